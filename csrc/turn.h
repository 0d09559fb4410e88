// What the files that implement Device share: taking one's turn, and cutting work over the threads.
#pragma once

#include <mutex>

#include "device.h"

namespace openwork {

constexpr std::int64_t kWorthSharing = 16 * 1024;  // entries touched; below it, waking the others costs more

class Device::Turn {
 public:
  explicit Turn(Device& device) : lock_(device.mutex_) {}

 private:
  std::lock_guard<std::mutex> lock_;
  FloatMode mode_;
};

// f(begin, end, worker) for parts of 0 .. total - 1, cut at multiples of `unit`; alone when `work` is small.
template <class F>
void Device::split(std::int64_t total, std::int64_t unit, std::int64_t work, const F& f) {
  if (work < kWorthSharing || total <= unit) return f(std::int64_t{0}, total, 0);
  pool_.run([&](int worker, int workers) {
    const Share part = share(total, worker, workers, unit);
    if (part.begin < part.end) f(part.begin, part.end, worker);
  });
}

}  // namespace openwork

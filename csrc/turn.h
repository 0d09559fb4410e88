// What the files that implement Device share: taking one's turn, and cutting work into parts for the threads.
#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>

#include "device.h"

namespace openwork {

constexpr std::int64_t kWorthSharing = 16 * 1024;  // entries touched; below it, waking the others costs more
constexpr std::int64_t kFewRows = 8;  // up to here every worker takes columns, whatever their number
constexpr std::int64_t kPieceSize = 512;  // entries of a row that one worker takes; groups of a scale never cross it

class Device::Turn {
 public:
  explicit Turn(Device& device) : lock_(device.mutex_), device_(device) {}
  ~Turn() { device_.busy_ns_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - began_).count(); }

 private:
  std::lock_guard<std::mutex> lock_;
  Device& device_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  FloatMode mode_;
};

constexpr int kPartsPerThread = 8;  // more balance better, fewer cost less

// f(begin, end, worker) for parts of 0 .. total - 1, cut at multiples of `unit`; alone when `work` is small.
template <class F>
void Device::split(std::int64_t total, std::int64_t unit, std::int64_t work, const F& f) {
  const std::int64_t units = (total + unit - 1) / unit;
  const std::int64_t most = 4 * work / kWorthSharing, wanted = std::int64_t{kPartsPerThread} * pool_.threads();
  if (work < kWorthSharing || units <= 1 || pool_.threads() == 1) return f(std::int64_t{0}, total, 0);
  const int parts = static_cast<int>(std::min({units, wanted, most}));
  pool_.deal(parts, [&](int part, int worker) {
    const Share each = share(total, part, parts, unit);
    f(each.begin, each.end, worker);
  });
}

}  // namespace openwork

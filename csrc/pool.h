// Pool: threads that stay, and parts of work that they take as they come to them.
//
// deal(parts, f) calls f(part, worker) once for each part, worker 0 being the calling thread, and returns when all are
// done. A worker takes the parts of its own stretch in order, and then what is left of the others': memory is read in
// one direction, and a thread that the system has put aside holds nobody up, because the caller does the parts it has not
// begun. Which worker does a part is therefore a matter of chance, and no result may depend on it.
// Between two deals the workers spin for some microseconds, because the next one usually follows at once, and then
// sleep; they keep off the processor that the calling thread is on, where the system lets them. Not for use by two
// threads at a time (Device has the lock). After a fork the child has no workers: they are made anew at its first deal.
#pragma once

#include <cstdint>
#include <memory>

namespace openwork {

struct Share {
  std::int64_t begin, end;
};

// Part number `part` of `parts` of 0 .. total - 1; whole multiples of `unit` except at the end.
inline Share share(std::int64_t total, int part, int parts, std::int64_t unit = 1) {
  const std::int64_t units = (total + unit - 1) / unit;
  const std::int64_t begin = units * part / parts * unit, end = units * (part + 1) / parts * unit;
  return {begin < total ? begin : total, end < total ? end : total};
}

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  // What will probably be read after the next deal: workers that have nothing left to do fetch the start of their
  // stretch of it. Nothing may be there any more when they do; fetching from nowhere does no harm.
  void expect(const void* data, std::int64_t bytes) {
    expected_ = static_cast<const char*>(data);
    expected_bytes_ = bytes;
  }

  template <class F>
  void deal(int parts, const F& f) {
    deal_out(parts, [](const void* g, int part, int worker) { (*static_cast<const F*>(g))(part, worker); }, &f);
  }

 private:
  using Job = void (*)(const void* f, int part, int worker);
  struct Crew;
  void deal_out(int parts, Job job, const void* f);

  int threads_;
  const char* expected_ = nullptr;
  std::int64_t expected_bytes_ = 0;
  std::unique_ptr<Crew> crew_;
};

}  // namespace openwork

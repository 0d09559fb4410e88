// Pool: threads that stay, for work that is cut statically.
//
// run(f) calls f(worker, workers) once for each worker, 0 being the calling thread, and returns when all are done.
// Between two runs the workers spin for some microseconds, because the next one usually follows at once, and then
// sleep. The pool knows nothing of the work; what a worker does must not depend on timing. Not for use by two threads
// at a time (Device has the lock). After a fork the child has no workers: they are made anew at its first run.
#pragma once

#include <cstdint>
#include <memory>

namespace openwork {

struct Share {
  std::int64_t begin, end;
};

// The part of 0 .. total - 1 that falls to `worker`; whole multiples of `unit` except at the end.
inline Share share(std::int64_t total, int worker, int workers, std::int64_t unit = 1) {
  const std::int64_t units = (total + unit - 1) / unit;
  const std::int64_t begin = units * worker / workers * unit, end = units * (worker + 1) / workers * unit;
  return {begin < total ? begin : total, end < total ? end : total};
}

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  template <class F>
  void run(const F& f) {
    run_on_all([](const void* g, int worker, int workers) { (*static_cast<const F*>(g))(worker, workers); }, &f);
  }

 private:
  using Job = void (*)(const void* f, int worker, int workers);
  struct Crew;
  void run_on_all(Job job, const void* f);

  int threads_;
  std::unique_ptr<Crew> crew_;
};

}  // namespace openwork

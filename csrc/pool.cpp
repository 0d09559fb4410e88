#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include "float_mode.h"

namespace openwork {
namespace {

constexpr std::int64_t kFetch = 192 * 1024;       // bytes that an idle worker fetches of what comes next
constexpr std::int64_t kCallerFetch = 16 * 1024;  // and the caller, who has something else to do
constexpr auto kSpin = std::chrono::microseconds(100);

// Counts the forks this process has come through, so that a pool knows when its threads stayed in the parent.
std::atomic<unsigned> forks{0};

void count_forks() {
#if !defined(_WIN32)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  (void)registered;
#endif
}

// Keeps the workers off the processor that the calling thread is on. On a busy machine the system may leave all of
// them on one for seconds while the work of strangers fills the others; two threads are then no faster than one.
class Seats {
 public:
#if defined(__linux__)
  Seats() { known_ = sched_getaffinity(0, sizeof allowed_, &allowed_) == 0 && CPU_COUNT(&allowed_) > 1; }

  // Asks the system only when the caller has moved, and not more often than every millisecond.
  void give_way(std::vector<std::thread>& workers) {
    const int caller = sched_getcpu();
    if (!known_ || caller == avoided_ || caller < 0 || caller >= CPU_SETSIZE) return;
    const auto time = std::chrono::steady_clock::now();
    if (time - moved_ < std::chrono::milliseconds(1)) return;
    moved_ = time;
    avoided_ = caller;
    cpu_set_t others = allowed_;
    CPU_CLR(static_cast<std::size_t>(caller), &others);
    for (std::thread& worker : workers) pthread_setaffinity_np(worker.native_handle(), sizeof others, &others);
  }

 private:
  cpu_set_t allowed_;
  bool known_ = false;
  int avoided_ = -1;
  std::chrono::steady_clock::time_point moved_{};
#else
  void give_way(std::vector<std::thread>&) {}
#endif
};

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until done(); first without giving the processor away, then giving it to others, at most `limit` long.
template <class Done>
bool wait_awake(const Done& done, bool crowded, std::chrono::microseconds limit) {
  if (!crowded)
    for (int i = 0; i < 2000; i++) {
      if (done()) return true;
      relax();
    }
  const auto until = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < 16; i++) {
      if (done()) return true;
      std::this_thread::yield();
    }
  } while (std::chrono::steady_clock::now() < until);
  return done();
}

}  // namespace

// Every worker has a run of parts of its own, and takes them from the front; one that has none left takes from the back
// of another's. So a worker walks through memory in one direction, and what it fetched ahead of a part is its next one.
// A run is one word, which also says which deal it is of:
//
//     run | deal number, 32 bits | end, 16 bits | next, 16 bits |
//
// A claim that succeeds belongs to the deal in the same word, and that deal cannot end before the part is done: so
// `job` and `work` are those of the claim. A worker that comes late finds nothing left to claim and touches nothing.
struct Pool::Crew {
  struct alignas(64) Run {  // a cache line each: claims of one worker do not disturb another's
    std::atomic<std::uint64_t> word{0};
  };
  std::vector<Run> runs;
  alignas(64) std::atomic<int> unfinished{0};
  alignas(64) std::atomic<int> asleep{0};
  std::atomic<bool> stop{false};
  std::atomic<const char*> expected{nullptr};
  std::atomic<std::int64_t> expected_bytes{0};
  Job job = nullptr;
  const void* work = nullptr;
  Seats seats;
  std::uint32_t deal = 0;
  bool crowded = false;  // more threads than processors: spinning would keep the others from working
  unsigned born = 0;     // the value of `forks` when the threads were made
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;

  explicit Crew(int count) : runs(static_cast<std::size_t>(count)), born(forks.load()) {
    const unsigned processors = std::thread::hardware_concurrency();
    crowded = processors != 0 && static_cast<unsigned>(count) > processors;
    try {
      for (int i = 1; i < count; i++) threads.emplace_back([this, i] { serve(i); });
    } catch (...) {
      dismiss();
      throw;
    }
  }

  ~Crew() { dismiss(); }

  void dismiss() {
    stop.store(true);
    {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
  }

  static int next_of(std::uint64_t word) { return static_cast<int>(word & 0xFFFF); }
  static int end_of(std::uint64_t word) { return static_cast<int>(word >> 16 & 0xFFFF); }

  bool has_parts() const {
    for (const Run& run : runs) {
      const std::uint64_t word = run.word.load();
      if (next_of(word) < end_of(word)) return true;
    }
    return false;
  }

  // A part from the front or the back of a run; false when it is empty.
  bool claim(Run& run, bool from_front, int* part) {
    std::uint64_t word = run.word.load(std::memory_order_acquire);
    while (next_of(word) < end_of(word)) {
      *part = from_front ? next_of(word) : end_of(word) - 1;
      const std::uint64_t taken = from_front ? word + 1 : word - (1 << 16);
      if (run.word.compare_exchange_weak(word, taken, std::memory_order_acq_rel, std::memory_order_acquire))
        return true;
    }
    return false;
  }

  // Does parts until none are left: its own, then those of the others, the next worker's first.
  void take_parts(int worker) {
    const int count = static_cast<int>(runs.size());
    for (int step = 0; step < count; step++) {
      Run& run = runs[static_cast<std::size_t>((worker + step) % count)];
      for (int part; claim(run, step == 0, &part);) {
        job(work, part, worker);
        unfinished.fetch_sub(1, std::memory_order_acq_rel);
      }
    }
  }

  // The start of this worker's stretch of what is expected, until it is called to work.
  void fetch(int worker, std::int64_t most) const {
    const char* data = expected.load(std::memory_order_relaxed);
    if (!data) return;
    const std::int64_t bytes = expected_bytes.load(std::memory_order_relaxed);
    const Share own = share(bytes, worker, static_cast<int>(runs.size()), 4096);
    const std::int64_t end = own.begin + most < own.end ? own.begin + most : own.end;
    for (std::int64_t at = own.begin; at < end; at += 64) {
      if (at % 4096 == 0 && has_parts()) return;
      __builtin_prefetch(data + at, 0, 2);
    }
  }

  void serve(int worker) {
    const FloatMode mode;
    const auto called = [&] { return stop.load(std::memory_order_acquire) || has_parts(); };
    for (;;) {
      if (!wait_awake(called, crowded, kSpin)) {
        std::unique_lock<std::mutex> lock(mutex);
        asleep.fetch_add(1);
        wake.wait(lock, called);
        asleep.fetch_sub(1);
      }
      if (stop.load(std::memory_order_acquire)) return;
      take_parts(worker);
      fetch(worker, kFetch);
    }
  }

  void run(int parts, Job next, const void* f) {
    job = next;
    work = f;
    if (!crowded) seats.give_way(threads);
    unfinished.store(parts, std::memory_order_relaxed);
    deal++;
    const int count = static_cast<int>(runs.size());
    for (int i = 0; i < count; i++) {
      const auto begin = static_cast<std::uint64_t>(parts * i / count);
      const auto end = static_cast<std::uint64_t>(parts * (i + 1) / count);
      runs[static_cast<std::size_t>(i)].word.store(std::uint64_t{deal} << 32 | end << 16 | begin);
    }
    if (asleep.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
    take_parts(0);
    fetch(0, kCallerFetch);
    const auto done = [&] { return unfinished.load(std::memory_order_acquire) == 0; };
    while (!wait_awake(done, crowded, std::chrono::milliseconds(10))) {
    }
  }
};

Pool::Pool(int threads) : threads_(threads) { count_forks(); }

Pool::~Pool() {
  if (crew_ && crew_->born != forks.load()) (void)crew_.release();  // its threads are in the parent process
}

void Pool::deal_out(int parts, Job job, const void* f) {
  if (threads_ == 1 || parts == 1) {
    for (int part = 0; part < parts; part++) job(f, part, 0);
    return;
  }
  if (crew_ && crew_->born != forks.load()) (void)crew_.release();
  if (!crew_) crew_ = std::make_unique<Crew>(threads_);
  crew_->expected.store(expected_, std::memory_order_relaxed);
  crew_->expected_bytes.store(expected_bytes_, std::memory_order_relaxed);
  expected_ = nullptr;
  crew_->run(parts, job, f);
}

}  // namespace openwork

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

#include "float_mode.h"

namespace openwork {
namespace {

constexpr auto kSpin = std::chrono::microseconds(100);

// Counts the forks this process has come through, so that a pool knows when its threads stayed in the parent.
std::atomic<unsigned> forks{0};

void count_forks() {
#if !defined(_WIN32)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  (void)registered;
#endif
}

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

struct Pool::Crew {
  std::atomic<std::uint64_t> round{0};  // a new number starts a run
  std::atomic<int> unfinished{0};
  std::atomic<int> asleep{0};
  std::atomic<bool> stop{false};
  Job job = nullptr;
  const void* work = nullptr;
  int size = 1;
  bool crowded = false;  // more threads than processors: spinning would keep the others from working
  unsigned born = 0;     // the value of `forks` when the threads were made
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;

  explicit Crew(int count) : size(count), born(forks.load()) {
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
    round.fetch_add(1);
    {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
  }

  void serve(int worker) {
    const FloatMode mode;
    std::uint64_t seen = 0;
    for (;;) {
      const auto called = [&] { return round.load(std::memory_order_acquire) != seen; };
      if (!wait_awake(called, crowded, kSpin)) {
        std::unique_lock<std::mutex> lock(mutex);
        asleep.fetch_add(1);
        wake.wait(lock, called);
        asleep.fetch_sub(1);
      }
      if (stop.load()) return;
      seen++;
      job(work, worker, size);
      unfinished.fetch_sub(1, std::memory_order_release);
    }
  }

  void run(Job next, const void* f) {
    job = next;
    work = f;
    unfinished.store(size - 1, std::memory_order_relaxed);
    round.fetch_add(1);
    if (asleep.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
    next(f, 0, size);
    const auto done = [&] { return unfinished.load(std::memory_order_acquire) == 0; };
    while (!wait_awake(done, crowded, std::chrono::milliseconds(10))) {
    }
  }
};

Pool::Pool(int threads) : threads_(threads) { count_forks(); }

Pool::~Pool() {
  if (crew_ && crew_->born != forks.load()) (void)crew_.release();  // its threads are in the parent process
}

void Pool::run_on_all(Job job, const void* f) {
  if (threads_ == 1) return job(f, 0, 1);
  if (crew_ && crew_->born != forks.load()) (void)crew_.release();
  if (!crew_) crew_ = std::make_unique<Crew>(threads_);
  crew_->run(job, f);
}

}  // namespace openwork

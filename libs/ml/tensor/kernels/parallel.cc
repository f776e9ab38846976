#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace tunefleet {
namespace {

/** A thread that waits for work looks for it this long before it sleeps: the next op mostly comes sooner. */
constexpr auto kSpin = std::chrono::microseconds(40);
constexpr int kLooksPerClock = 16;
constexpr int64_t kRangesPerThread = 4;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

unsigned thread_count() {
  const char* wanted = std::getenv("TF_NUM_INTRAOP_THREADS");
  const int given = wanted ? std::atoi(wanted) : 0;
  return given > 0 ? static_cast<unsigned>(given) : std::max(1u, std::thread::hardware_concurrency());
}

/**
 * One job at a time. `ticket_` holds the job's number and the chunks that nobody has taken yet, so a late thread cannot take a chunk of a job that
 * is over: its number has changed. The caller takes chunks, too, and never waits for a thread that has taken none.
 */
class Pool {
 public:
  Pool() : threads_(thread_count()) {
    for (unsigned i = 1; i < threads_; ++i) std::thread([this] { serve(); }).detach();
  }

  unsigned threads() const { return threads_; }

  void run(uint32_t chunks, void (*body)(void*, uint32_t), void* context) {
    std::unique_lock<std::mutex> lock(one_job_, std::try_to_lock);
    if (threads_ == 1 || chunks <= 1 || !lock.owns_lock()) {
      for (uint32_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
      return;
    }
    body_ = body;
    context_ = context;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(number << 32 | chunks);
    if (sleepers_.load() > 0) {
      std::lock_guard<std::mutex> awake(sleep_);
      woken_.notify_all();
    }
    while (take()) {
    }
    while (done_.load(std::memory_order_acquire) != chunks) relax();
  }

 private:
  /** Runs one chunk of the job at hand. @returns whether there was one */
  bool take() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
      if (static_cast<uint32_t>(ticket) == 0) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel));
    body_(context_, static_cast<uint32_t>(ticket) - 1);
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  bool has_work() const { return static_cast<uint32_t>(ticket_.load()) != 0; }

  /** Counted before it looks once more: either it sees the work or whoever brings the work sees it. */
  void sleep() {
    std::unique_lock<std::mutex> lock(sleep_);
    ++sleepers_;
    woken_.wait(lock, [this] { return has_work(); });
    --sleepers_;
  }

  void serve() {
    for (;;) {
      if (take()) continue;
      const auto until = std::chrono::steady_clock::now() + kSpin;
      while (!has_work() && std::chrono::steady_clock::now() < until) {
        for (int i = 0; i < kLooksPerClock && !has_work(); ++i) relax();
      }
      if (!has_work()) sleep();
    }
  }

  const unsigned threads_;
  std::mutex one_job_;
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> done_{0};
  std::atomic<int> sleepers_{0};
  std::mutex sleep_;
  std::condition_variable woken_;
  void (*body_)(void*, uint32_t) = nullptr;
  void* context_ = nullptr;
};

/** Never destroyed: its threads outlive static objects. */
Pool& pool() {
  static Pool* const only = new Pool();
  return *only;
}

}  // namespace

void for_each_chunk(uint32_t chunks, void (*body)(void*, uint32_t), void* context) { pool().run(chunks, body, context); }

void for_each_range(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  const int64_t chunks = std::min<int64_t>(pool().threads() * kRangesPerThread, count < grain ? count > 0 : count / grain);
  parallel(static_cast<uint32_t>(chunks), [&](uint32_t chunk) { body(context, chunk * count / chunks, (chunk + 1) * count / chunks); });
}

}  // namespace tunefleet

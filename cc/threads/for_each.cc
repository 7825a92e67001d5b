#include "cc/threads/for_each.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "cc/threads/shares.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace keras_lth::threads {

namespace {

constexpr unsigned kMost = 1024;

struct Job {
  Job(const std::function<void(unsigned, std::size_t)>& function, std::size_t items, unsigned helpers)
      : body(function), shares(items, helpers + std::size_t{1}), open(helpers) {}

  const std::function<void(unsigned, std::size_t)>& body;
  Shares shares;
  unsigned open;             // helpers that may still join
  unsigned next_worker = 1;  // 0 is the caller
  std::atomic<unsigned> active{0};  // helpers at work
  std::exception_ptr failure;
  std::condition_variable idle;
};

thread_local bool inside = false;

// To wake a thread can take as long as a small product, above all where processors are virtual, and the next product of
// a training step comes about as soon. So a thread looks for work, or for the end of it, before it sleeps.
constexpr std::chrono::microseconds kAwake{100};

// Returns whether `found` became true in that time. Lets others have the processor if they want it.
template <class Found>
bool Awake(Found found) {
  const auto until = std::chrono::steady_clock::now() + kAwake;
  for (unsigned turn = 1; !found(); ++turn) {
    if (turn % 64 == 0) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::yield();
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return true;
}

class Inside {
 public:
  Inside() : before_(inside) { inside = true; }
  ~Inside() { inside = before_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  const bool before_;
};

class Pool {
 public:
  void Run(Job* job) {
    const unsigned wanted = job->open;
    unsigned asleep = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Grow(wanted);
      jobs_.push_back(job);
      open_.fetch_add(wanted);
      asleep = wanted - std::min(wanted, awake_);
    }
    // Not all: a call of two threads must not wake the thousand of another.
    for (unsigned helper = 0; helper < asleep; ++helper) wake_.notify_one();
    Work(job, 0);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // A helper that has not come by now is not waited for.
      const auto left = std::find(jobs_.begin(), jobs_.end(), job);
      if (left != jobs_.end()) {
        jobs_.erase(left);
        open_.fetch_sub(job->open);
      }
    }
    Awake([job] { return job->active == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    job->idle.wait(lock, [job] { return job->active == 0; });
  }

  std::mutex& mutex() { return mutex_; }

 private:
  void Grow(unsigned wanted) {
    try {
      for (; started_ < std::min(wanted, kMost); ++started_) std::thread([this] { Serve(); }).detach();
    } catch (const std::exception&) {
      // No more threads or memory to be had: those that started and the caller do all the items.
    }
  }

  void Serve() {
    inside = true;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      while (!jobs_.empty()) {
        Job* job = jobs_.front();
        const unsigned worker = job->next_worker++;
        ++job->active;
        open_.fetch_sub(1);
        if (--job->open == 0) jobs_.pop_front();
        lock.unlock();
        Work(job, worker);
        lock.lock();
        if (--job->active == 0) job->idle.notify_one();
        ++awake_;
        lock.unlock();
        Awake([this] { return open_.load(std::memory_order_relaxed) > 0; });
        lock.lock();
        --awake_;
      }
    }
  }

  void Work(Job* job, unsigned worker) {
    const Inside mark;
    try {
      job->shares.Take(worker, [&](std::size_t item) { job->body(worker, item); });
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!job->failure) job->failure = std::current_exception();
      job->shares.Stop();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;
  std::atomic<unsigned> open_{0};  // helpers that may still join any of them
  unsigned awake_ = 0;             // helpers that look for a job
  unsigned started_ = 0;
};

std::atomic<Pool*> pool{nullptr};
std::mutex creation;
std::atomic<unsigned> set_size{0};

#if defined(__unix__) || defined(__APPLE__)
// A child has none of its parent's threads: it leaves the parent's pool alone and starts one of its own when it needs it.
void BeforeFork() {
  creation.lock();
  if (Pool* current = pool.load()) current->mutex().lock();
}

void InParent() {
  if (Pool* current = pool.load()) current->mutex().unlock();
  creation.unlock();
}

void InChild() {
  pool.store(nullptr);
  creation.unlock();
}

// When the library is loaded: at first use, another thread's fork could come between the lock and the registration.
[[maybe_unused]] const int registered = pthread_atfork(BeforeFork, InParent, InChild);
#endif

// Never destroyed: its threads sleep in it until the process ends.
Pool& ThePool() {
  if (Pool* current = pool.load()) return *current;
  const std::lock_guard<std::mutex> lock(creation);
  if (pool.load() == nullptr) pool.store(new Pool);
  return *pool.load();
}

}  // namespace

unsigned Available() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  // Unlike hardware_concurrency, this respects taskset and cpusets.
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
#endif
  return std::max(1U, std::thread::hardware_concurrency());
}

unsigned Size() {
  if (const unsigned size = set_size.load()) return size;
  const char* text = std::getenv("KERAS_LTH_THREADS");
  if (text == nullptr || *text == '\0') return Available();
  char* end = nullptr;
  const long size = std::strtol(text, &end, 10);
  if (*end != '\0' || size < 1 || size > static_cast<long>(kMost)) {
    throw std::invalid_argument("KERAS_LTH_THREADS is '" + std::string(text) + "', not a number from 1 to " +
                                std::to_string(kMost));
  }
  return static_cast<unsigned>(size);
}

void SetSize(unsigned size) { set_size.store(std::min(size, kMost)); }

void ForEach(unsigned workers, std::size_t items, const std::function<void(unsigned, std::size_t)>& body) {
  if (workers == 0) workers = Size();
  if (workers == 1 || items <= 1 || inside) {
    const Inside mark;
    for (std::size_t item = 0; item < items; ++item) body(0, item);
    return;
  }
  const auto helpers = static_cast<unsigned>(std::min<std::size_t>(std::min(workers, kMost), items) - 1);
  Job job(body, items, helpers);
  ThePool().Run(&job);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace keras_lth::threads

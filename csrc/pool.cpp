#include <stdint.h>

#include "pool.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <chrono>

namespace tgi {
namespace {

// Spinning longer would starve a busy neighbour on the same core; sleeping at once costs a wake-up in every
// step. So: some microseconds of pauses, then yields for about the time between two steps, then sleep.
constexpr int kPauses = 300;
constexpr auto kYielding = std::chrono::microseconds(1500);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void sleep_while_equal(std::atomic<uint32_t>& word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  if (word.load() == value) std::this_thread::sleep_for(std::chrono::microseconds(200));
#endif
}

void wake_all(std::atomic<uint32_t>& word) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

}  // namespace

Pool::Pool(int threads) : size_(threads < 1 ? 1 : threads) {
  for (int index = 1; index < size_; index++) threads_.emplace_back([this, index] { serve(index); });
}

Pool::~Pool() {
  stop_ = true;
  run_.fetch_add(1);
  wake_all(run_);
  for (auto& thread : threads_) thread.join();
}

void Pool::run(Work work, void* context) {
  std::lock_guard<std::mutex> turn(callers_);
  if (size_ == 1) return work(context, Member{0, 1, this});
  work_ = work;
  context_ = context;
  run_.fetch_add(1);
  if (sleepers_.load() > 0) wake_all(run_);
  work(context, Member{0, size_, this});
  barrier();
}

void Pool::serve(int index) {
  uint32_t seen = 0;
  for (;;) {
    wait_for_run(seen);
    seen++;
    if (stop_) return;
    work_(context_, Member{index, size_, this});
    barrier();
  }
}

void Pool::wait_for_run(uint32_t seen) {
  for (int i = 0; i < kPauses; i++) {
    if (run_.load(std::memory_order_acquire) != seen) return;
    pause();
  }
  const auto until = std::chrono::steady_clock::now() + kYielding;
  while (std::chrono::steady_clock::now() < until) {
    if (run_.load(std::memory_order_acquire) != seen) return;
    std::this_thread::yield();
  }
  sleepers_.fetch_add(1);
  while (run_.load() == seen) sleep_while_equal(run_, seen);
  sleepers_.fetch_sub(1);
}

void Pool::barrier() {
  const uint32_t passed = barriers_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    barriers_.fetch_add(1, std::memory_order_release);
    return;
  }
  for (int i = 0; barriers_.load(std::memory_order_acquire) == passed; i++) {
    if (i < kPauses) pause();
    else std::this_thread::yield();
  }
}

void Member::barrier() const {
  if (count > 1) pool->barrier();
}

}  // namespace tgi

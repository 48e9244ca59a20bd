// A persistent team of threads. The caller is member 0; the others spin, then yield, then sleep between runs.
//
// Work is split statically by member number, and never in a way that changes the order of a sum.
#pragma once
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace tgi {

// What a member of a run knows.
struct Member {
  int index;
  int count;
  class Pool* pool;

  void barrier() const;
  // The half-open share of `size` items that belongs to this member: contiguous, sizes differ by at most one.
  int64_t begin(int64_t size) const { return size * index / count; }
  int64_t end(int64_t size) const { return size * (index + 1) / count; }
};

class Pool {
 public:
  using Work = void (*)(void* context, const Member& member);

  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;

  int size() const { return size_; }
  // Runs `work` on every member and returns when all are done. Callers on several threads take turns.
  void run(Work work, void* context);

  template <class Body>
  void run(Body& body) {
    run([](void* context, const Member& member) { (*static_cast<Body*>(context))(member); }, &body);
  }

 private:
  friend struct Member;
  void serve(int index);
  void wait_for_run(uint32_t seen);
  void barrier();

  const int size_;
  std::vector<std::thread> threads_;
  std::mutex callers_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> run_{0};       // number of the current run; the word sleepers wait on
  alignas(64) std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> arrived_{0};        // at the barrier
  alignas(64) std::atomic<uint32_t> barriers_{0};  // passed
};

}  // namespace tgi

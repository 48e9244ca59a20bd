#include "arena.h"

#include <sys/mman.h>

#include "tgi.h"

namespace tgi {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kChunk = size_t(256) << 20;  // of address space; pages that nobody touches cost nothing

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Arena::~Arena() {
  for (const Chunk& chunk : chunks_) munmap(chunk.memory, chunk.bytes);
}

void* Arena::allocate(size_t bytes) {
  bytes = round_up(bytes ? bytes : 1, 64);
  if (chunks_.empty() || chunks_.back().taken + bytes > chunks_.back().bytes) {
    const size_t size = round_up(bytes > kChunk ? bytes : kChunk, kHugePage);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    void* memory = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    auto* begin = static_cast<uint8_t*>(memory);
    auto* aligned = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<size_t>(begin), kHugePage));
    if (aligned > begin) munmap(begin, aligned - begin);
    if (const size_t tail = begin + kHugePage - aligned; tail > 0) munmap(aligned + size, tail);
#ifdef MADV_HUGEPAGE
    madvise(aligned, size, MADV_HUGEPAGE);  // a wish: where it is refused, small pages do
#endif
    chunks_.push_back({aligned, size, 0});
  }
  Chunk& chunk = chunks_.back();
  void* result = chunk.memory + chunk.taken;
  chunk.taken += bytes;
  used_ += bytes;
  return result;
}

}  // namespace tgi

void tgi_huge_pages(void* memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto begin = tgi::round_up(reinterpret_cast<size_t>(memory), tgi::kHugePage);
  const auto end = (reinterpret_cast<size_t>(memory) + bytes) / tgi::kHugePage * tgi::kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

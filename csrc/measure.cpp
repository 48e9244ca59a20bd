// What the machine can do at most: reading memory, and arithmetic in registers.
#include <atomic>

#include "handles.h"
#include "simd/simd.h"
#include "tgi.h"

namespace tgi {
namespace {

// Independent sums, enough to hide the latency of one and few enough for the registers; passes make up a round.
constexpr int kChains = kMaxRows >= 16 ? TGI_MEASURE_CHAINS : 4;
constexpr int kPasses = TGI_MEASURE_CHAINS / kChains;

int64_t read(const uint8_t* begin, const uint8_t* end) {
  I sums[4] = {iset(0), iset(0), iset(0), iset(0)};
  for (const uint8_t* p = begin; p + 256 <= end; p += 256)
    for (int i = 0; i < 4; i++) sums[i] = ixor(sums[i], load_int(p + 64 * i));
  return (int64_t)sum(to_float(ixor(ixor(sums[0], sums[1]), ixor(sums[2], sums[3]))));
}

int64_t multiply_add(int64_t rounds) {
  F sums[kChains];
  for (int i = 0; i < kChains; i++) sums[i] = set((float)i);
  const F x = set(0.5f), y = set(1.0f);
  for (int64_t round = 0; round < rounds * kPasses; round++)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = fma(sums[i], x, y);
  for (int i = 1; i < kChains; i++) sums[0] = add(sums[0], sums[i]);
  return (int64_t)sum(sums[0]);
}

int64_t dot_product(int64_t rounds) {
  I sums[kChains];
  const uint8_t bytes[64] = {1, 2, 3};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; i++) sums[i] = iset(i);
  for (int64_t round = 0; round < rounds * kPasses; round++) {
    asm volatile("" : : "r"(bytes) : "memory");  // else a compiler would multiply once and only add
    const Weights4 w = split(load_bytes(bytes));
    const Activations4 a = broadcast4(bytes);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = dot4(sums[i], w, a);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kChains; i++) sums[0] = ixor(sums[0], sums[i]);
  return (int64_t)sum(to_float(sums[0]));
}

}  // namespace
}  // namespace tgi

int64_t tgi_measure_read(tgi_pool* pool, const void* memory, size_t bytes) {
  std::atomic<int64_t> total{0};
  const auto* begin = static_cast<const uint8_t*>(memory);
  auto work = [&](const tgi::Member& member) {
    const int64_t lines = bytes / 256;
    total += tgi::read(begin + 256 * member.begin(lines), begin + 256 * member.end(lines));
  };
  pool->pool.run(work);
  return total;
}

int64_t tgi_measure_arithmetic(tgi_pool* pool, int kind, int64_t rounds) {
  std::atomic<int64_t> total{0};
  auto work = [&](const tgi::Member&) { total += kind ? tgi::dot_product(rounds) : tgi::multiply_add(rounds); };
  pool->pool.run(work);
  return total;
}

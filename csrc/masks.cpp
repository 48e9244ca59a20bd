// Masks of bits: which tokens each row may choose. A bit for each id, the first in the lowest bit of the first word.
//
// Groups of sixteen ids none of which is allowed are not even read, so that narrow masks cost next to nothing.
#include <math.h>

#include <algorithm>
#include <vector>

#include "handles.h"
#include "simd/simd.h"
#include "tgi.h"

namespace tgi {
namespace {

constexpr int kMassBlock = 256;  // as in vocabulary.cpp: sums are those of a row with -infinity in place of what is banned

// A row and its mask.
struct Masked {
  const float* row;
  const uint32_t* mask;

  bool allows(int64_t id) const { return mask[id / 32] >> (id % 32) & 1; }

  // Bits of the ids from k on, sixteen of them, or fewer at the end.
  uint32_t bits(int64_t k, int64_t end) const {
    const uint32_t all = mask[k / 32] >> (k % 32) & 0xffff;
    return end - k < kLanes ? all & ((1u << (end - k)) - 1) : all;
  }

  // Their numbers, -infinity where banned.
  F numbers(int64_t k, int64_t end, uint32_t bits) const {
    static constexpr int32_t kToBit15[kLanes] = {1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11, 1 << 10, 1 << 9, 1 << 8,
                                                 1 << 7,  1 << 6,  1 << 5,  1 << 4,  1 << 3,  1 << 2,  1 << 1, 1};
    const F values = k + kLanes <= end ? load(row + k) : load_part(row + k, (int)(end - k));
    const F allowed = to_float(iand(imul(iset((int)bits), load_int(kToBit15)), 1 << 15));  // more than 0 if so
    return if_less(zero(), allowed, values, set(-INFINITY));
  }

  template <class Body>
  void each(int64_t begin, int64_t end, Body body) const {
    for (int64_t k = begin; k < end; k += kLanes)
      if (const uint32_t some = bits(k, end)) body(numbers(k, end, some));
  }

  // As largest_of in vocabulary.cpp.
  float largest_of(int64_t begin, int64_t end, F& odd) const {
    const F infinity = set(INFINITY);
    F top = set(-INFINITY);
    each(begin, end, [&](F v) {
      odd = add(odd, if_less(v, infinity, zero(), v));
      top = max(top, v);
    });
    return largest(top);
  }

  double mass(int64_t begin, int64_t end, F peak) const {
    F total = zero();
    each(begin, end, [&](F v) { total = add(total, exp(sub(v, peak))); });
    return sum(total);
  }

  // The first NaN, else the first of the largest numbers, of those that are allowed; 0: there is none but -infinity.
  int64_t first(int64_t begin, int64_t end, float best) const {
    int64_t found = -1;
    for (int64_t id = begin; id < end; id++) {
      if (!allows(id)) continue;
      if (isnan(row[id])) return id;
      if (found < 0 && row[id] == best && best > -INFINITY) found = id;
    }
    return std::max<int64_t>(found, 0);
  }
};

// Every member takes the same part of all rows, which it is likely to have written itself a moment ago.
void best_allowed(Pool& pool, const float* logits, int64_t size, int count, const int64_t* rows, const uint32_t* masks,
                  int64_t words, int64_t* ids, float* values, double* masses) {
  const int64_t blocks = (size + kMassBlock - 1) / kMassBlock;
  std::vector<float> maxima(count * blocks);
  std::vector<double> sums(masses ? count * blocks : 0);
  std::vector<char> usual(size_t(count) * pool.size());
  const auto at = [&](int64_t i) { return Masked{logits + rows[i] * size, masks + i * words}; };
  const auto end_of = [&](int64_t block) { return std::min((block + 1) * kMassBlock, size); };
  auto work = [&](const Member& member) {
    const int64_t begin = member.begin(blocks), end = member.end(blocks);
    for (int i = 0; i < count; i++) {
      F odd = zero();
      for (int64_t block = begin; block < end; block++)
        maxima[i * blocks + block] = at(i).largest_of(block * kMassBlock, end_of(block), odd);
      usual[size_t(i) * member.count + member.index] = sum(odd) == 0;
    }
    member.barrier();
    for (int i = 0; masses && i < count; i++) {
      const float* of_row = &maxima[i * blocks];
      const F peak = set(*std::max_element(of_row, of_row + blocks));
      for (int64_t block = begin; block < end; block++)
        sums[i * blocks + block] = at(i).mass(block * kMassBlock, end_of(block), peak);
    }
    if (masses) member.barrier();
    for (int64_t i = member.begin(count); i < member.end(count); i++) {
      const char* fine = &usual[i * member.count];
      const bool is_usual = std::find(fine, fine + member.count, 0) == fine + member.count;
      const float* of_row = &maxima[i * blocks];
      const float* best = std::max_element(of_row, of_row + blocks);
      const int64_t from = is_usual ? (best - of_row) * kMassBlock : 0;
      ids[i] = at(i).first(from, is_usual ? std::min(from + kMassBlock, size) : size, is_usual ? *best : INFINITY);
      values[i] = is_usual ? *best : at(i).row[ids[i]];
      if (!masses) continue;
      double total = 0;
      for (int64_t block = 0; block < blocks; block++) total += sums[i * blocks + block];
      masses[i] = is_usual && isfinite(*best) ? log(total) : NAN;
    }
  };
  pool.run(work);
}

void mask(Pool& pool, float* logits, int64_t size, int count, const int64_t* rows, const uint32_t* masks,
          int64_t words) {
  const int64_t groups = (size + kLanes - 1) / kLanes;
  auto work = [&](const Member& member) {
    const int64_t begin = member.begin(groups) * kLanes, end = std::min(member.end(groups) * kLanes, size);
    for (int i = 0; i < count; i++) {
      float* row = logits + rows[i] * size;
      const Masked masked{row, masks + i * words};
      for (int64_t k = begin; k < end; k += kLanes) {
        const F kept = masked.numbers(k, size, masked.bits(k, size));
        if (k + kLanes <= size) store(row + k, kept);
        else store_part(row + k, kept, (int)(size - k));
      }
    }
  };
  pool.run(work);
}

}  // namespace
}  // namespace tgi

void tgi_mask(tgi_pool* pool, float* logits, int64_t size, int count, const int64_t* rows, const uint32_t* masks,
              int64_t words) {
  tgi::mask(pool->pool, logits, size, count, rows, masks, words);
}

void tgi_best_allowed(tgi_pool* pool, const float* logits, int64_t size, int count, const int64_t* rows,
                      const uint32_t* masks, int64_t words, int64_t* ids, float* values, double* masses) {
  tgi::best_allowed(pool->pool, logits, size, count, rows, masks, words, ids, values, masses);
}

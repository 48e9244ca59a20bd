// Over the vocabulary: the best tokens of each row, the mass beside the best, and a pick by cumulative weight.
//
// A row's numbers depend on that row alone. Sums run in float32 over 256 ids and in double beyond.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "handles.h"
#include "simd/simd.h"
#include "tgi.h"

namespace tgi {
namespace {

constexpr int kRankBlock = 64;
constexpr int kSumBlock = 256;

struct Entry {
  float value;
  int64_t id;
};

// A NaN comes first, so that it cannot stay unseen; ties go to the lower id.
bool before(const Entry& a, const Entry& b) {
  if (isnan(a.value) || isnan(b.value)) return isnan(a.value) && (!isnan(b.value) || a.id < b.id);
  return a.value != b.value ? a.value > b.value : a.id < b.id;
}

F part(const float* row, int64_t k, int64_t end, float beyond) {
  if (k + kLanes <= end) return load(row + k);
  float lanes[kLanes];
  for (int i = 0; i < kLanes; i++) lanes[i] = k + i < end ? row[k + i] : beyond;
  return load(lanes);
}

// The largest number of [begin, end); sets `odd` to other than 0 if there is a NaN or +inf, which it may hide.
float largest_of(const float* row, int64_t begin, int64_t end, F& odd) {
  const F infinity = set(INFINITY);
  F top = set(-INFINITY);
  for (int64_t k = begin; k < end; k += kLanes) {
    const F v = part(row, k, end, -INFINITY);
    odd = add(odd, if_less(v, infinity, zero(), v));
    top = max(top, v);
  }
  return largest(top);
}

// The largest number of each block. False if the row holds a NaN or +inf.
bool block_maxima(const float* row, int64_t size, std::vector<float>& maxima) {
  maxima.clear();
  F odd = zero();
  for (int64_t begin = 0; begin < size; begin += kRankBlock)
    maxima.push_back(largest_of(row, begin, std::min(begin + kRankBlock, size), odd));
  return sum(odd) == 0;
}

void rank_row(const float* row, int64_t size, int count, std::vector<float>& maxima, std::vector<Entry>& found,
              int64_t* ids, float* values) {
  const bool usual = block_maxima(row, size, maxima);
  float least = -INFINITY;  // at least `count` values are no smaller
  if (usual && (int64_t)maxima.size() > count) {
    std::vector<float> order = maxima;
    std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), std::greater<float>());
    least = order[count - 1];
  }
  found.clear();
  for (int64_t block = 0; block < (int64_t)maxima.size(); block++) {
    if (usual && maxima[block] < least) continue;
    const int64_t end = std::min((block + 1) * kRankBlock, size);
    for (int64_t k = block * kRankBlock; k < end; k++)
      if (!(row[k] < least)) found.push_back({row[k], k});
  }
  std::partial_sort(found.begin(), found.begin() + count, found.end(), before);
  for (int i = 0; i < count; i++) {
    ids[i] = found[i].id;
    values[i] = found[i].value;
  }
}

// Divides scores by a temperature. Most are 1, and a division takes as long as all the rest of an exponential.
struct Divisor {
  F by;
  bool one;
  explicit Divisor(float divisor) : by(set(divisor)), one(divisor == 1) {}
  F operator()(F x) const { return one ? x : div(x, by); }
};

F weights_at(const float* row, int64_t k, int64_t end, const Divisor& divide, F peak) {
  return exp(sub(divide(part(row, k, end, -INFINITY)), peak));
}

double block_mass(const float* row, int64_t begin, int64_t size, const Divisor& divide, F peak) {
  const int64_t end = std::min(begin + kSumBlock, size);
  F total = zero();
  for (int64_t k = begin; k < end; k += kLanes) total = add(total, weights_at(row, k, end, divide, peak));
  return sum(total);
}

double log_mass(const float* row, int64_t size, float divisor, float best) {
  if (!isfinite(best)) return NAN;
  const Divisor by(divisor);
  const F peak = by(set(best));
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += kSumBlock) total += block_mass(row, begin, size, by, peak);
  return log(total);
}

// The first id whose cumulative weight exceeds u times the total; never one of weight 0.
void pick_row(const float* row, int64_t size, float divisor, double u, std::vector<float>& maxima,
              std::vector<double>& masses, int64_t* id, double* logprob) {
  *id = 0;
  *logprob = NAN;
  if (!block_maxima(row, size, maxima)) return;
  const float best = *std::max_element(maxima.begin(), maxima.end());
  if (best == -INFINITY) return;
  const Divisor by(divisor);
  const F peak = by(set(best));
  double total = 0;
  masses.clear();
  for (int64_t begin = 0; begin < size; begin += kSumBlock) {
    masses.push_back(block_mass(row, begin, size, by, peak));
    total += masses.back();
  }
  // u < 1, so that the target is below the total and falls on a block with weight, unless rounding says
  // otherwise: then on the last one.
  const double target = u * total;
  double passed = 0;
  int64_t chosen = -1;
  for (int64_t block = 0; block < (int64_t)masses.size(); block++) {
    if (masses[block] <= 0) continue;
    if (chosen >= 0 && passed > target) break;
    chosen = block;
    if (passed + masses[block] > target) break;
    passed += masses[block];
  }
  const int64_t begin = chosen * kSumBlock, end = std::min(begin + kSumBlock, size);
  // What is left of u decides inside the block relative to the block's own exact sum, so that the rounding of
  // the block's sum cannot push the target past its end.
  const double rest = std::min(std::max((target - passed) / masses[chosen], 0.0), 1.0 - 0x1p-53);
  float weights[kSumBlock];
  double exact = 0;
  for (int64_t k = begin; k < end; k += kLanes) {
    float lanes[kLanes];
    store(lanes, weights_at(row, k, end, by, peak));
    memcpy(weights + (k - begin), lanes, 4 * std::min<int64_t>(kLanes, end - k));
  }
  for (int64_t k = 0; k < end - begin; k++) exact += weights[k];
  double sum = 0;
  for (int64_t k = 0; k < end - begin; k++) {
    if (weights[k] <= 0) continue;
    *id = begin + k;
    *logprob = log(weights[k] / total);
    sum += weights[k];
    if (sum > rest * exact) break;
  }
}

// The best token of each row and the mass: every member takes the same part of all rows, which it is likely to have
// written itself a moment ago. The same sums in the same order as log_mass.
void best_and_mass(Pool& pool, const float* logits, int rows, int64_t size, int64_t* ids, float* values,
                   double* masses) {
  const int64_t blocks = (size + kSumBlock - 1) / kSumBlock;
  std::vector<float> maxima(rows * blocks);
  std::vector<double> sums(rows * blocks);
  std::vector<char> usual(size_t(rows) * pool.size());
  auto work = [&](const Member& member) {
    const int64_t first = member.begin(blocks), last = member.end(blocks);
    for (int row = 0; row < rows; row++) {
      F odd = zero();
      for (int64_t block = first; block < last; block++) {
        const int64_t begin = block * kSumBlock;
        maxima[row * blocks + block] = largest_of(logits + row * size, begin, std::min(begin + kSumBlock, size), odd);
      }
      usual[size_t(row) * member.count + member.index] = sum(odd) == 0;
    }
    member.barrier();
    for (int row = 0; row < rows; row++) {
      const float* of_row = &maxima[row * blocks];
      const F peak = set(*std::max_element(of_row, of_row + blocks));
      for (int64_t block = first; block < last; block++)
        sums[row * blocks + block] = block_mass(logits + row * size, block * kSumBlock, size, Divisor(1), peak);
    }
    member.barrier();
    for (int64_t row = member.begin(rows); row < member.end(rows); row++) {
      const float* at = logits + row * size;
      const char* fine = &usual[row * member.count];
      if (std::find(fine, fine + member.count, 0) != fine + member.count) {
        std::vector<float> some;
        std::vector<Entry> found;
        rank_row(at, size, 1, some, found, ids + row, values + row);
        masses[row] = log_mass(at, size, 1, values[row]);
        continue;
      }
      const float* of_row = &maxima[row * blocks];
      const float* best = std::max_element(of_row, of_row + blocks);
      values[row] = *best;
      ids[row] = (best - of_row) * kSumBlock;
      while (at[ids[row]] != *best) ids[row]++;
      double total = 0;
      for (int64_t block = 0; block < blocks; block++) total += sums[row * blocks + block];
      masses[row] = isfinite(*best) ? log(total) : NAN;
    }
  };
  pool.run(work);
}

template <class Body>
void for_rows(tgi_pool* pool, int rows, Body body) {
  auto work = [&](const Member& member) {
    for (int64_t row = member.begin(rows); row < member.end(rows); row++) body(row);
  };
  if (rows == 1) body(0);  // nothing to share
  else pool->pool.run(work);
}

}  // namespace
}  // namespace tgi

void tgi_rank(tgi_pool* pool, const float* logits, int rows, int64_t size, int count, int64_t* ids, float* values,
              double* masses) {
  if (count == 1 && masses) return tgi::best_and_mass(pool->pool, logits, rows, size, ids, values, masses);
  tgi::for_rows(pool, rows, [&](int64_t row) {
    std::vector<float> maxima;
    std::vector<tgi::Entry> found;
    tgi::rank_row(logits + row * size, size, count, maxima, found, ids + row * count, values + row * count);
    if (masses) masses[row] = tgi::log_mass(logits + row * size, size, 1, values[row * count]);
  });
}

void tgi_log_mass(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
                  const float* best, double* out) {
  tgi::for_rows(pool, rows, [&](int64_t row) {
    out[row] = tgi::log_mass(logits + row * size, size, divisors[row], best[row]);
  });
}

void tgi_pick(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
              const double* uniforms, int64_t* ids, double* logprobs) {
  tgi::for_rows(pool, rows, [&](int64_t row) {
    std::vector<float> maxima;
    std::vector<double> masses;
    tgi::pick_row(logits + row * size, size, divisors[row], uniforms[row], maxima, masses, ids + row, logprobs + row);
  });
}

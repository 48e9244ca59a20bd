// The softmax of a piece of scores, and the merging of pieces in order.
#pragma once
#include <math.h>
#include <string.h>

#include <algorithm>

#include "attention/scores.h"

namespace tgi {

// Probabilities as the product with the values takes them: as bfloat16, or in place of the scores.
template <int Type>
void set_weights(Work& work, int r, int key, F p, bool shared) {
#if defined(TGI_HALVES)
  if (Type == TGI_BFLOAT16 && !shared) return store_halves(&work.half_weights[r][key], p);
#else
  (void)shared;
#endif
  store(&work.scores[r][key], p);
}

// Rows of a softmax at a time: each waits for its own largest score before it goes on.
constexpr int kTogether = kMaxRows >= 16 ? 4 : 2;

// The scales of the values of 16 keys of an int8 cache.
inline F value_scales(const Reads& reads, int key) {
  if (!reads.shared()) return load(reads.scales(key / kBlock) + key % kBlock);
  return OneScale::scales<0>(reads.key(key / kBlock) + key % kBlock / kLanes * reads.key_panel);
}

// From scores [begin, end) of N rows from r on the weights of the values, and the rows' largest scores and totals. Weights
// are the probabilities, over an int8 cache times the scales of its values and rounded.
template <int Type, int N>
void softmax(const AttentionCall& call, Work& work, const Reads& reads, int r, int begin, int end) {
  const F factor = set(scale_left(call));
  F top[N], less[N], total[N];
  I peak[N];
  for (int i = 0; i < N; i++) top[i] = set(-INFINITY), total[i] = zero(), peak[i] = iset(0);
  for (int key = begin; key < end; key += kLanes)
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) top[i] = max(top[i], load(&work.scores[r + i][key]));
  for (int i = 0; i < N; i++) {
    const float largest_score = largest(top[i]) * scale_left(call);
    work.piece.largest[r + i] = largest_score;
    less[i] = set(largest_score == -INFINITY ? 0.0f : -largest_score);  // where no key is seen, all stay minus infinity
  }
  for (int key = begin; key < end; key += kLanes) {
    const F s = Type == TGI_INT8 ? value_scales(reads, key) : zero();
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      F p = exp(fma(load(&work.scores[r + i][key]), factor, less[i]));
      total[i] = add(total[i], p);
      if constexpr (Type == TGI_INT8) {
        p = if_less(zero(), p, mul(p, s), p);  // the scale of an unseen key may be NaN
        peak[i] = imax(magnitude(p), peak[i]);
      }
      set_weights<Type>(work, r + i, key, p, reads.shared());
    }
  }
  for (int i = 0; i < N; i++) work.piece.total[r + i] = sum(total[i]);
  if (Type == TGI_INT8 && !reads.shared()) {
    float peaks[N];
    for (int i = 0; i < N; i++) peaks[i] = as_float(ilargest(peak[i]));
    quantise_weights<N>(work, r, peaks, begin, end);
  }
}

inline float exp_of(float x) {
  float lanes[kLanes];
  store(lanes, exp(set(x)));
  return lanes[0];
}

// merged = merged combined with the next piece, in order.
inline void merge_row(State& merged, float largest_score, float total, const float* values, int r, int width, bool first) {
  if (first) {
    merged.largest[r] = largest_score;
    merged.total[r] = total;
    memcpy(merged.values[r], values, 4 * size_t(width));
    return;
  }
  if (largest_score == -INFINITY) return;
  if (merged.largest[r] == -INFINITY) return merge_row(merged, largest_score, total, values, r, width, true);
  const float top = std::max(merged.largest[r], largest_score);
  const float before = exp_of(merged.largest[r] - top), now = exp_of(largest_score - top);
  merged.largest[r] = top;
  merged.total[r] = merged.total[r] * before + total * now;
  for (int d = 0; d < width; d += kLanes)
    store(&merged.values[r][d], add(mul(load(&merged.values[r][d]), set(before)), mul(load(values + d), set(now))));
}

}  // namespace tgi

// The scores of a piece of keys over a cache of any type, and what is done to scores before the softmax.
#pragma once
#include "attention/codes.h"
#include "attention/floats.h"

namespace tgi {

constexpr int score_panels(int rows) { return rows <= 8 && kMaxRows >= 16 ? 2 : 1; }

template <int Type, int R, int C>
void score_keys(const CacheShape& shape, Work& work, const uint8_t* panel, size_t stride, int key, FetchAhead fetch) {
  if constexpr (Type == TGI_INT8) score_code_keys<R, C>(shape, work, panel, stride, key, fetch);
  else score_float_keys<Type, R, C>(shape, work, panel, stride, key, fetch);
}

// Scores of keys [begin, end) of a piece; begin is a multiple of 16.
template <int Type, int R>
void score_piece(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  constexpr int C = score_panels(R);
  for (int key = begin; key < end;) {
    const int block = key / kBlock, half = key % kBlock / kLanes;
    const uint8_t* record = reads.key(block);
    const FetchAhead fetch{reads.after_key(block) - record};
    if (Type == TGI_INT8 && !reads.shared()) {  // the scales of the values, which are needed all at once
      const float* scales = reads.scales(block);
      for (int i = 0; i < kBlock; i += kLanes) prefetch(scales + i);
    }
    const uint8_t* panel = record + half * reads.key_panel;
    if (C == 2 && half == 0 && key + kLanes < end) {
      score_keys<Type, R, C>(shape, work, panel, reads.key_panel, key, fetch);
      key += 2 * kLanes;
    } else {
      score_keys<Type, R, 1>(shape, work, panel, reads.key_panel, key, fetch);
      key += kLanes;
    }
  }
}

alignas(64) constexpr float kCount[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline bool adjusts(const AttentionCall& call) { return call.soft_cap != 0 || call.slopes || call.bias; }

// What is left to multiply scores with after `adjust`.
inline float scale_left(const AttentionCall& call) { return adjusts(call) ? 1.0f : call.scale; }

// The bias of 16 keys whose first is at this distance; beyond the furthest it stays.
inline F bias_at(const AttentionCall& call, const float* bias, int distance) {
  const int most = call.furthest;
  if (distance >= -most && distance + kLanes - 1 <= most) return load(bias + distance);
  if (distance + kLanes - 1 <= -most) return set(bias[-most]);
  if (distance >= most) return set(bias[most]);
  float lanes[kLanes];
  for (int i = 0; i < kLanes; i++) lanes[i] = bias[std::min(std::max(distance + i, -most), most)];
  return load(lanes);
}

// Scores as they are compared where more than their scale is to be applied: capped, and with the bias of their distance.
inline void adjust(const AttentionCall& call, Work& work, int r, int base, int begin, int end) {
  float* scores = work.scores[r];
  const F distance = add(load(kCount), set((float)(base - work.positions[r]))), slope = set(work.slopes[r]);
  for (int key = begin; key < end; key += kLanes) {
    F s = mul(load(scores + key), set(call.scale));
    if (call.soft_cap != 0) s = mul(set(call.soft_cap), tanh(mul(s, set(1.0f / call.soft_cap))));
    if (call.slopes) s = add(s, mul(slope, add(distance, set((float)key))));
    if (call.bias) s = add(s, bias_at(call, work.biases[r], base + key - work.positions[r]));
    store(scores + key, s);
  }
}

// Of scores [begin, end), those outside [first, last) become minus infinity.
inline void hide_unseen(float* scores, int begin, int end, int first, int last) {
  const F none = set(-INFINITY);
  const auto hide = [&](int from, int past) {
    for (int key = from / kLanes * kLanes; key < past; key += kLanes) {
      const F at = add(load(kCount), set((float)key));
      const F late = if_less(at, set((float)last), load(scores + key), none);
      store(scores + key, if_less(at, set((float)first), none, late));
    }
  };
  if (first > begin) hide(begin, std::min(first, end));
  if (last < end) hide(std::max(last, begin), end);
}

}  // namespace tgi

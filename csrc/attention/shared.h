// Weighted values where the values are the keys themselves, as of latents, which the cache has only once.
//
// Keys lie transposed, 16 positions of one dimension beside each other: so a lane sums over every sixteenth position, and the
// lanes are added up once a piece.
#pragma once
#include <algorithm>
#include <utility>

#include "attention/scores.h"

namespace tgi {

// Dimensions of keys that lie in one record, and how many are summed at a time: as many sums as there are registers for.
constexpr int key_dims(int type) { return type == TGI_INT8 ? 4 : type == TGI_BFLOAT16 ? 2 : 1; }
constexpr int dims_together(int type, int rows) {
  int dims = key_dims(type);
  while (dims > 1 && dims * rows > kMaxRows) dims /= 2;
  return dims;
}

// Dimension k + D of the keys of a panel; k is the first one of a record. Of codes, without their scale.
template <int Type, int D>
inline F key_lanes(const uint8_t* panel, int k) {
  if constexpr (Type == TGI_FLOAT32) return load(reinterpret_cast<const float*>(panel) + k * kLanes);
  else if constexpr (Type == TGI_FLOAT16) return load_f16(panel + k * 2 * kLanes);
  else if constexpr (Type == TGI_E4M3) return load_e4m3(panel + k * kLanes);
  else if constexpr (Type == TGI_E5M2) return load_e5m2(panel + k * kLanes);
  else if constexpr (Type == TGI_BFLOAT16) {
    const Bytes pairs = load_bytes(panel + k * 2 * kLanes);
    return D ? odd_bf16(pairs) : even_bf16(pairs);
  } else {
    return sub(byte_of<D>(load_bytes(panel + kHeaderBytes + k * kLanes)), set((float)Int8Panel::kZero));
  }
}

template <int Type, int R, int First, int... D>
inline void weigh_dims(Work& work, const Reads& reads, int begin, int seen, int k, std::integer_sequence<int, D...>) {
  F sums[R][sizeof...(D)];
  for (auto& row : sums)
    for (F& sum : row) sum = zero();
  for (int key = begin; key < seen; key += kLanes) {
    const uint8_t* panel = reads.key(key / kBlock) + key % kBlock / kLanes * reads.key_panel;
    F keys[] = {key_lanes<Type, First + D>(panel, k)...};
    if (key + kLanes > seen) {  // what a former owner left might not be a number
      const F left = sub(set((float)(seen - key)), load(kCount));
      for (F& lanes : keys) lanes = if_less(zero(), left, lanes, zero());
    }
    for (int r = 0; r < R; r++) {
      const F weights = load(&work.scores[r][key]);
      ((sums[r][D] = fma(weights, keys[D], sums[r][D])), ...);
    }
  }
  for (int r = 0; r < R; r++) ((work.piece.values[r][k + First + D] = sum(sums[r][D])), ...);
}

template <int Type, int R, int... Part>
inline void weigh_record(Work& work, const Reads& reads, int begin, int seen, int k, std::integer_sequence<int, Part...>) {
  constexpr int kDims = dims_together(Type, R);
  using Dims = std::make_integer_sequence<int, kDims>;
  (weigh_dims<Type, R, Part * kDims>(work, reads, begin, seen, k, Dims()), ...);
}

// As weigh_piece; begin is a multiple of 16, and weights are floats in place of the scores, over an int8 cache times the
// scales of the keys.
template <int Type, int R>
void weigh_keys(const CacheShape& shape, Work& work, const Reads& reads, int begin, int seen) {
  constexpr int kParts = key_dims(Type) / dims_together(Type, R);
  int k = 0;
  for (; k < shape.head_dim; k += key_dims(Type))
    weigh_record<Type, R>(work, reads, begin, seen, k, std::make_integer_sequence<int, kParts>());
  for (int r = 0; r < R; r++) std::fill(work.piece.values[r] + k, work.piece.values[r] + shape.padded_dim(), 0.0f);
}

}  // namespace tgi

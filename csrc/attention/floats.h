// Scores and weighted values over a cache of floats: products of vectors of 16 lanes.
#pragma once
#include <algorithm>
#include <type_traits>

#include "attention/work.h"

namespace tgi {

constexpr int value_panels(int rows) { return kMaxRows < 16 ? 1 : rows <= 4 ? 4 : rows <= 8 ? 2 : 1; }

// Scores of 16 * C keys.
template <int Type, int R, int C>
void score_float_keys(const CacheShape& shape, Work& work, const uint8_t* panel, size_t stride, int key, FetchAhead fetch) {
  Sums<R, C> sums(zero());
  if constexpr (Type == TGI_FLOAT32) {
    multiply<F32Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
  } else if constexpr (Type == TGI_FLOAT16) {
    multiply<F16Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
  } else if constexpr (Type == TGI_E4M3 || Type == TGI_E5M2) {
    multiply<F8Panel<Type>, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
  } else {
#if defined(__AVX512BF16__)
    multiply_halves<Rows<kMaxHeadDim / 2>>(sums, work.half_queries[0], panel, stride, shape.head_dim, fetch);
#else
    multiply<Bf16Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
#endif
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(&work.scores[r][key + c * kLanes], sums.at[r][c]);
}

template <int Type, int R, int C>
void weigh_panels(Work& work, const Reads& reads, int begin, int end, int panel) {
  using Byte = std::conditional_t<Type == TGI_FLOAT16, F16Panel, F8Panel<Type>>;
  using Half = std::conditional_t<Type == TGI_BFLOAT16, Bf16Panel, Byte>;
  using Panel = std::conditional_t<Type == TGI_FLOAT32, F32Panel, Half>;
  Sums<R, C> sums(zero());
  const size_t stride = reads.value_panel;
  for (int key = begin; key < end;) {
    const int block = key / kBlock, offset = key % kBlock;
    const int count = std::min(kBlock - offset, end - key);
    const uint8_t* record = reads.value(block);
    const uint8_t* from = record + panel * stride + offset / Panel::kStep * Panel::kBytes;
    const FetchAhead fetch{reads.after_value(block) - record};
#if defined(__AVX512BF16__)
    if constexpr (Type == TGI_BFLOAT16) {
      multiply_halves<Rows<kPiece / 2>>(sums, &work.half_weights[0][key], from, stride, count, fetch);
      key += count;
      continue;
    }
#endif
    multiply<Panel, Rows<kPiece>>(sums, &work.scores[0][key], from, stride, count, fetch);
    key += count;
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(&work.piece.values[r][(panel + c) * kLanes], sums.at[r][c]);
}

// The probabilities that softmax left times the values of keys [begin, end).
template <int Type, int R>
void weigh_piece(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  constexpr int C = value_panels(R);
  const int panels = shape.padded_dim() / kLanes;
  int panel = 0;
  for (; panel + C <= panels; panel += C) weigh_panels<Type, R, C>(work, reads, begin, end, panel);
  if constexpr (C > 1)
    for (; panel < panels; panel++) weigh_panels<Type, R, 1>(work, reads, begin, end, panel);
}

}  // namespace tgi

// Scores and weighted values over an int8 cache: integer dot products, which are exact.
#pragma once
#include <algorithm>

#include "attention/work.h"

namespace tgi {

// As score_float_keys.
template <int R, int C>
void score_code_keys(const CacheShape& shape, Work& work, const uint8_t* panel, size_t stride, int key, FetchAhead fetch) {
  Sums<R, C> sums(zero());
  const Tile tile{nullptr, work.codes, work.code_scales, work.code_offsets};
  multiply_groups<Int8Panel, OneScale, R>(sums, tile, 0, panel, stride, shape.padded_dim(), shape.padded_dim(), fetch);
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(&work.scores[r][key + c * kLanes], sums.at[r][c]);
}

// Probabilities over an int8 cache are rounded to 15 bits of the largest of a row's piece, q = 128 upper + lower, with
// upper in [0, 127] and lower in [-64, 63]: two exact integer dot products with the values' codes, whose sums over a piece
// fit 24 bits each.
constexpr float kLargestWeight = 127 * 128;

// Rounds weights [begin, end) of N rows from r on, which lie in their scores.
template <int N>
void quantise_weights(Work& work, int r, const float (&peaks)[N], int begin, int end) {
  F inverse[N];
  I upper_sum[N], lower_sum[N];
  for (int i = 0; i < N; i++) {
    inverse[i] = set(inverse_step(peaks[i], kLargestWeight));
    upper_sum[i] = lower_sum[i] = iset(0);
  }
  for (int key = begin; key < end; key += kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      const I q = iadd(to_int(mul(load(&work.scores[r + i][key]), inverse[i])), iset(64));
      const I upper = shift_right<7>(q), lower = iadd(iand(q, 127), iset(-64));
      store_s8(&work.weight_codes[r + i][0][key], upper);
      store_s8(&work.weight_codes[r + i][1][key], lower);
      upper_sum[i] = iadd(upper_sum[i], upper);
      lower_sum[i] = iadd(lower_sum[i], lower);
    }
  }
  for (int i = 0; i < N; i++) {
    work.weight_scales[r + i] = step(peaks[i], kLargestWeight);
    work.weight_offsets[r + i][0] = offset_of(isum(upper_sum[i]), Int8Panel::kZero);
    work.weight_offsets[r + i][1] = offset_of(isum(lower_sum[i]), Int8Panel::kZero);
  }
}

// dots += rows of codes, `Pitch` bytes apart, times C panels of values.
template <int Pitch, int Rows, int C>
void add_values(I (&dots)[Rows][C], const uint8_t* codes, const Reads& reads, int begin, int end, int panel) {
  const size_t stride = reads.value_panel;
  for (int key = begin; key < end;) {
    const uint8_t* record = reads.value(key / kBlock);
    const uint8_t* from = record + panel * stride + key % kBlock / 4 * 64;
    const FetchAhead fetch{reads.after_value(key / kBlock) - record};
    for (const int block_end = std::min(key / kBlock * kBlock + kBlock, end); key < block_end; key += 4, from += 64) {
      Weights4 values[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) {
        fetch(from + c * stride);
        values[c] = split(load_bytes(from + c * stride));
      }
      add_dots<Pitch>(dots, values, codes + key);
    }
  }
}

template <int R, int C>
void weigh_code_panels(Work& work, const Reads& reads, int begin, int end, int panel) {
  I dots[2 * R][C];  // of row r: 2 r the upper part, 2 r + 1 the lower one
  const uint8_t* codes = work.weight_codes[0][0];
  if constexpr (2 * R <= kMaxRows) {
    for (int i = 0; i < 2 * R; i++)
      for (int c = 0; c < C; c++) dots[i][c] = iset(work.weight_offsets[i / 2][i % 2]);
    add_values<kPiece>(dots, codes, reads, begin, end, panel);
  } else {  // more sums than registers
    for (int part = 0; part < 2; part++) {
      I some[R][C];
      for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) some[r][c] = iset(work.weight_offsets[r][part]);
      add_values<2 * kPiece>(some, codes + part * kPiece, reads, begin, end, panel);
      for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) dots[2 * r + part][c] = some[r][c];
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) {
      const F value = fma(to_float(dots[2 * r][c]), set(128.0f), to_float(dots[2 * r + 1][c]));
      store(&work.piece.values[r][(panel + c) * kLanes], mul(value, set(work.weight_scales[r])));
    }
}

// As weigh_piece; begin and end are multiples of 16.
template <int R>
void weigh_codes(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  constexpr int C = kMaxRows < 16 ? 1 : R <= 2 ? 4 : R <= 4 ? 2 : 1;
  const int panels = shape.padded_dim() / kLanes;
  int panel = 0;
  for (; panel + C <= panels; panel += C) weigh_code_panels<R, C>(work, reads, begin, end, panel);
  if constexpr (C > 1)
    for (; panel < panels; panel++) weigh_code_panels<R, 1>(work, reads, begin, end, panel);
}

}  // namespace tgi

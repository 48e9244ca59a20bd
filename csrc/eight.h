// Weights that are floats of 8 bits (e4m3), with a scale for each row or for blocks of its columns.
//
// A bfloat16 holds each of these numbers, so kernels widen them in registers and multiply them as bfloat16 weights; sums of the
// columns that share a scale are multiplied with it, and added up. A record is 8 values of k: 128 bytes in the order of the
// lower bytes of a narrow panel (narrow.h), which is what two bytes are zipped from.
//
// Sixteen entries of a table are enough for either half of the bits: of a code seee emmm the upper byte of the bfloat16
// depends on seee and its lower one on emmm, but for numbers below 2^-6, whose seee is 0 or 8. For these emmm says all.
#pragma once
#include "linear.h"
#include "panel.h"

namespace tgi {

constexpr int kEightStep = 8;          // values of k in a record
constexpr size_t kEightRecord = 128;   // bytes of it
constexpr size_t kEightWide = 256;     // bytes of the same as a Bf16Panel

// By seee: the upper byte, and whether the number may be a small one. By emmm: what small numbers change in both bytes.
alignas(16) constexpr uint8_t kEightUpper[16] = {60,  61,  62,  63,  64,  65,  66,  67,
                                                 188, 189, 190, 191, 192, 193, 194, 195};
alignas(16) constexpr uint8_t kEightSmall[16] = {255, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0};
alignas(16) constexpr uint8_t kEightChangeUpper[16] = {60, 7, 7, 7, 0, 0, 0, 0};
alignas(16) constexpr uint8_t kEightChangeLower[16] = {0, 0x10, 0xa0, 0xf0, 0x40, 0x70, 0x20, 0x10};

constexpr int kEightExponent = 0x78;  // bits of a code, none of which a small number has

struct EightTables {
  Table upper = load_table(kEightUpper), small = load_table(kEightSmall);
  Table change_upper = load_table(kEightChangeUpper), change_lower = load_table(kEightChangeLower);
};

// Four values of k of 16 rows to two vectors of pairs, as a Bf16Panel has them. Most have no small number among them.
static inline void widen_four(const uint8_t* codes, const EightTables& tables, Bytes& first, Bytes& second) {
  const Bytes all = load_bytes(codes), high = high_nibbles(all);
  Bytes upper = look_up(tables.upper, high), lower = raised_nibbles(all);
  if (__builtin_expect(any_without(all, kEightExponent), 0)) {
    const Bytes low = low_nibbles(all), small = look_up(tables.small, high);
    upper = bits_xor(upper, bits_and(look_up(tables.change_upper, low), small));
    lower = bits_xor(lower, bits_and(look_up(tables.change_lower, low), small));
  }
  first = zip_first(lower, upper);
  second = zip_second(lower, upper);
}

// A whole panel as a Bf16Panel.
void widen_eight_panel(const Linear& linear, int panel, uint8_t* wide);

// Row by row, from the codes [in] and the scales of a row, and back.
void pack_eight(const Linear& linear, const uint8_t* codes, const float* scales, int row);
void read_eight(const Linear& linear, int row, float* out);

// sums, zeros before, = scale times what run(part, k, length) adds to part, over all columns [k, k + length) that share scales. Layers without
// scales are one such sum.
template <int R, int C, class Run>
static inline void sum_scaled(const Linear& linear, int panel, int apart, Sums<R, C>& sums, const Run& run) {
  const int group = linear.factors ? linear.factor_group : linear.padded_in;
  for (int k = 0, g = 0; k < linear.padded_in; k += group, g++) {
    Sums<R, C> part(zero());
    run(part, k, group_length(group, linear.padded_in, k));
    if (!linear.factors) return void(sums = part);
    for (int c = 0; c < C; c++) {
      const F factors = load(linear.factors + (size_t(panel + c * apart) * linear.factor_groups + g) * kLanes);
      for (int r = 0; r < R; r++) sums.at[r][c] = fma(part.at[r][c], factors, sums.at[r][c]);
    }
  }
}

// sums += columns [k, k + count) of a tile times C panels, panel, panel + apart, ..., widened in registers. add as in
// multiply_narrow.
template <int R, int C, class Add>
static inline void multiply_eight(const Linear& linear, int panel, int apart, int k, int count, Sums<R, C>& result,
                                  const Add& add) {
  const size_t stride = apart * linear.panel_bytes;
  const uint8_t* from = linear.data + size_t(panel) * linear.panel_bytes + size_t(k / kEightStep) * kEightRecord;
  const EightTables tables;
  Sums<R, C> sums = result;
  for (const int end = k + count; k < end; k += 4, from += 64) {
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) {
      Bytes first, second;
      FetchStream{}(from + c * stride);
      widen_four(from + c * stride, tables, first, second);
      add(sums, c, k, first);
      add(sums, c, k + 2, second);
    }
  }
  result = sums;
}

}  // namespace tgi

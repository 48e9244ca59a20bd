// Codes of checkpoints: groups of any multiple of 16 columns, zero points, float minimums, code books.
//
// The scales of a panel lie before its codes, float16 or float32 [group][16], or, as in ggml's K-quants, float16 [256 columns][16] and
// bytes [group][16], signed whole numbers that these are multiplied with; then zero points [group][16] bytes and minimums
// like scales, where there are some; codes begin at the next cache line. As nibbles, whole numbers of scales and minimums
// share those bytes. Before a panel is multiplied its scales are unfolded to float32, so that inner loops know one form of
// them, whatever they are kept in.
//
// A weight is scale * (value of the code - zero point) + minimum. Activations are rounded by groups of their own, the parts of
// this file: a part has one scale of each. What minimums add is their product with the sums of a part's rounded activations.
//
// These weights are not rotated, and models have a few channels that are large for every token (see hadamard.h). So the largest
// activation of a part is not rounded where it is far larger than the others: it is multiplied by itself, with its column of
// weights in float32. The others round as well then as those of rotated layers.
#pragma once
#include <string.h>

#include <vector>

#include "linear.h"
#include "panel.h"

namespace tgi {

// What is multiplied of C panels.
struct Apart {
  const uint8_t* codes;  // of the first; the others `stride` bytes apart
  size_t stride;
  const float* scales;   // [panel][part][16]
  const int32_t* zeros;  // the same, or nullptr: all are that of the layer
  const float* minimums; // the same, or nullptr
  size_t floats;         // from panel to panel
  Table table;           // values of the codes of a BookPanel
};

// Panels panel, panel + apart, ..., unfolded in memory of this thread, which the next call overwrites.
Apart unfold(const Linear& linear, int panel, int apart, int count);

// As `add_record`, with the layer's table. (One function for both costs int5 a tenth of its speed on AVX2.)
template <class Panel, int Height, int J = 0, int R, int C>
[[gnu::always_inline]] static inline void add_record_by(I (&dots)[R][C], const uint8_t* a, const uint8_t* w, size_t stride,
                                                        Table table) {
  if constexpr (4 * J < Panel::kStep) {
    Weights4 weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) weights[c] = split(Panel::template codes<J>(w + c * stride, table));
    add_dots(dots, weights, a + 4 * Height * J);
    add_record_by<Panel, Height, J + 1>(dots, a, w, stride, table);
  }
}

// One part of `length` values: sums += R rows of a tile of Height rows times C panels.
template <class Panel, int Height, class Fetch, int R, int C>
static inline void add_apart(F (&sums)[R][C], const uint8_t* a, const float* activation_scales, const int32_t* offsets,
                             const Apart& w, size_t part, const uint8_t* codes, int length, Fetch fetch) {
  I dots[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) dots[r][c] = iset(offsets[r]);
  if (w.zeros) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const I zeros = load_int(w.zeros + c * w.floats + part * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) dots[r][c] = imul(dots[r][c], zeros);
    }
  }
  for (int k = 0; k < length; k += Panel::kStep, codes += Panel::kBytes, a += Panel::kStep * Height) {
    fetch_record<Panel, C>(fetch, codes, w.stride);
    add_record_by<Panel, Height>(dots, a, codes, w.stride, w.table);
  }
#pragma GCC unroll 8
  for (int c = 0; c < C; c++) {
    const F scales = load(w.scales + c * w.floats + part * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
      sums[r][c] = fma(to_float(dots[r][c]), mul(set(activation_scales[r]), scales), sums[r][c]);
  }
}

// As `multiply_groups`.
template <class Panel, int Height, class Fetch, int R, int C>
static inline void multiply_apart(Sums<R, C>& result, const Tile& tile, int row, const Apart& w, int group, int count,
                                  Fetch fetch) {
  Sums<R, C> sums = result;
  const uint8_t* codes = w.codes;
  for (int k = 0, part = 0; k < count; k += group, part++, codes += group / Panel::kStep * Panel::kBytes)
    add_apart<Panel, Height>(sums.at, tile.codes + size_t(k) * Height + 4 * row, tile.scales + part * Height + row,
                             tile.offsets + part * Height + row, w, part, codes, group_length(group, count, k), fetch);
  result = sums;
}

// As `multiply_groups_halved`.
template <class Panel, int Height, int C>
static inline void multiply_apart_halved(Sums<Height, C>& result, const Tile& tile, const Apart& w, int group, int count) {
  constexpr int kUpper = (Height + 1) / 2;
  Sums<kUpper, C> upper(zero());
  Sums<Height - kUpper, C> lower(zero());
  const uint8_t* codes = w.codes;
  for (int k = 0, part = 0; k < count; k += group, part++, codes += group / Panel::kStep * Panel::kBytes) {
    const uint8_t* a = tile.codes + size_t(k) * Height;
    const int at = part * Height, below = at + kUpper, length = group_length(group, count, k);
    add_apart<Panel, Height>(upper.at, a, tile.scales + at, tile.offsets + at, w, part, codes, length, FetchStream{});
    add_apart<Panel, Height>(lower.at, a + 4 * kUpper, tile.scales + below, tile.offsets + below, w, part, codes, length,
                             FetchNothing{});
  }
  for (int r = 0; r < Height; r++)
    for (int c = 0; c < C; c++) result.at[r][c] = r < kUpper ? upper.at[r][c] : lower.at[r - kUpper][c];
}

constexpr int kPackedColumns = 128;  // that are packed together, whole parts
// Smaller parts of activations share the scale of so many columns, of which at most one is left out: the weights' groups may be of
// 16 columns, in which a largest value that is twice the next is nothing special.
constexpr int kRoundedColumns = 32;

// How many times the next largest an activation must be to be left out.
constexpr float kOutlier = 2.0f;

// The outliers of some rows, row by row.
struct OutlierList {
  std::vector<Outlier> all;
  std::vector<int> starts;  // [rows + 1]
};
void collect_outliers(const Linear& linear, const Packed& packed, int rows, OutlierList& list);

// The values of the codes of column k of a record.
template <class Panel>
static inline F column_of(const uint8_t* record, int k, Table table) {
  auto* from = const_cast<uint8_t*>(record);
  if constexpr (std::is_same_v<Panel, BookPanel>) {
    const I codes = Int4Panel::lanes(from, k);
    alignas(64) uint8_t lanes[4 * kLanes];
    memcpy(lanes, &codes, sizeof lanes);
    return byte_of<0>(look_up(table, load_bytes(lanes)));
  } else {
    return to_float(Panel::lanes(from, k));
  }
}

// sums += the products of the outliers of `rows` rows of a tile, from its row `row` on, with panel c of some; `step` vectors from
// row to row.
template <class Panel>
[[gnu::noinline]] static void add_outliers(const Linear& linear, const Tile& tile, int row, int rows, const Apart& w, int c,
                                           F* sums, int step) {
  const uint8_t* codes = w.codes + c * w.stride;
  for (int r = row; r < row + rows; r++, sums += step) {
    F sum = *sums;
    for (int i = tile.outlier_starts[r]; i < tile.outlier_starts[r + 1]; i++) {
      const int k = tile.outliers[i].column;
      const size_t part = c * w.floats + size_t(k / linear.group) * kLanes;
      const F zeros = w.zeros ? to_float(load_int(w.zeros + part)) : set((float)linear.zero);
      const F value = column_of<Panel>(codes + size_t(k / Panel::kStep) * Panel::kBytes, k % Panel::kStep, w.table);
      sum = fma(set(tile.outliers[i].value), mul(sub(value, zeros), load(w.scales + part)), sum);
    }
    *sums = sum;
  }
}
template <class Panel, int R, int C>
static inline void add_outliers(const Linear& linear, Sums<R, C>& sums, const Tile& tile, int row, const Apart& w) {
  if (tile.outlier_starts[row] == tile.outlier_starts[row + R]) return;
  for (int c = 0; c < C; c++) add_outliers<Panel>(linear, tile, row, R, w, c, &sums.at[0][c], C);
}

// Where the parts of a row go that are rounded together; all but the codes [part][apart].
struct RoundedParts {
  uint8_t* codes;  // [length]
  float* scales;
  int32_t* offsets;
  float* sums;
  float* outliers;
  int32_t* outlier_columns;
  int apart;
};
// Rounds `length` columns of a row, one part or as many as share a scale: x [count], which is changed, since an outlier stays a
// float and counts as 0. first: their column in the row.
void round_parts(const Linear& linear, float* x, int count, int length, int first, const RoundedParts& to);

// sums += what minimums add to rows of a tile of Height, from `row` on.
template <int Height, int R, int C>
[[gnu::noinline]] static void add_minimums(Sums<R, C>& sums, const Tile& tile, int row, const Apart& w, int parts) {
  const auto* minimums = reinterpret_cast<const uint8_t*>(w.minimums);
  // Few rows are one chain of sums for each panel, which wait less side by side.
  if constexpr (R * C <= 12)
    return multiply<F32Panel, Interleaved<Height>>(sums, tile.sums + row, minimums, w.floats * sizeof(float), parts,
                                                   FetchNothing{});
  for (int c = 0; c < C; c++) {
    Sums<R, 1> one;
    for (int r = 0; r < R; r++) one.at[r][0] = sums.at[r][c];
    multiply<F32Panel, Interleaved<Height>>(one, tile.sums + row, minimums + c * w.floats * sizeof(float), 0, parts,
                                            FetchNothing{});
    for (int r = 0; r < R; r++) sums.at[r][c] = one.at[r][0];
  }
}

// Where the parts of a panel begin, and its bytes; sets them in a layer whose other sizes are known.
void lay_out_apart(Linear& linear);

// What a checkpoint brings, from row `first` of the layer on: codes [rows][in] in the order of the codes, scales [rows]
// [scale groups], zeros and minimums the same or nullptr; steps [rows][blocks of 256 columns], or nullptr.
struct StoredRows {
  const uint8_t* codes;
  const float* scales;
  const uint8_t* zeros;
  const float* minimums;
  const float *steps, *minimum_steps;
};

void pack_apart(const Linear& linear, const StoredRows& rows, int64_t from, int row);

// Row `row` as floats [in], in the order of the model's columns.
void read_apart(const Linear& linear, int row, float* out);

}  // namespace tgi

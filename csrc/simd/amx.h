// Tiles of up to 16 rows x 16 columns on AMX, for quantised and for bfloat16 weights: several times the arithmetic
// of AVX-512. Panels are already what AMX wants; activations lie row by row for it.
//
// Quantised: integer dot products are exact and groups are scaled and added as in panel.h, so a row has the same
// bits here and there. bfloat16: activations are rounded to bfloat16 too and all numbers of rows come here, since
// the sums are rounded differently from those of fused multiply-adds.
#pragma once
#if defined(__AMX_INT8__)
#include <immintrin.h>
#include <string.h>

#include "apart.h"
#include "panel.h"

namespace tgi {

// Values of k that one tile instruction takes from a group, of `count` in groups of `group`.
static inline int amx_depth(int group, int count) {
  const int unit = group | count;  // whole groups, and the last one, are multiples of its lowest bit
  return unit % 64 == 0 ? 64 : unit % 32 == 0 ? 32 : 16;
}

// Tile instructions read memory behind the compiler's back: what was written there must be there.
static inline void written(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

constexpr int kAmxHalves = 32;  // values of k that one tile of bfloat16 takes

// The shapes of the eight tiles of this thread: 0-3 sums, 4-5 activations, 6-7 weights. depth: bytes of a row of
// activations; rows: of activations and sums.
class AmxTiles {
 public:
  AmxTiles(int depth, int rows) {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; tile++) {
      config.row_bytes[tile] = tile == 4 || tile == 5 ? depth : 64;
      config.rows[tile] = tile >= 6 ? depth / 4 : rows;
    }
    written(&config);
    _tile_loadconfig(&config);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
};

// The codes of one record as bytes [k / 4][16][4].
template <class Panel, int J = 0>
static inline void amx_unpack(const uint8_t* record, Table table, uint8_t* to) {
  if constexpr (4 * J < Panel::kStep) {
    store_bytes(to + 64 * J, Panel::template codes<J>(record, table));
    amx_unpack<Panel, J + 1>(record, table, to);
  }
}

// The codes of one group as bytes [k / 4][16][4]: where they are, or unpacked into `buffer`.
template <class Panel>
static inline const uint8_t* amx_codes(const uint8_t* codes, int length, Table table, uint8_t* buffer) {
  if constexpr (Panel::kStep == 4) return codes;
  for (int k = 0; k < length; k += Panel::kStep, codes += Panel::kBytes) amx_unpack<Panel>(codes, table, buffer + 16 * k);
  written(buffer);
  return buffer;
}

constexpr size_t kAmxAhead = 4096;  // bytes fetched ahead: the tile loads of a group come all at once

constexpr int kAmxRows = 8;  // with fewer, the dot product of AVX-512 is as fast

constexpr int kAmxGroup = 512;  // longer groups of 4-bit codes would not fit the buffer; they take the other path

// Rounded activations of some tiles. codes: of the first row, rows of `count` bytes; scales and offsets: of each tile
// [group][rows] and [scale of the weights][rows].
struct AmxRows {
  const uint8_t* codes;
  int count;
  const float* scales;
  const int32_t* offsets;
  int rows;
};

// Panels in groups with headers, in parts that share a scale of the weights: groups, or halves of them.
template <class Panel, class Header>
struct AmxGroups {
  static constexpr int kScales = Header::kScales;
  const uint8_t* w;
  size_t stride;
  int group, count;

  int part() const { return group / kScales; }
  size_t bytes() const { return Panel::group_bytes(group); }
  const uint8_t* header(int n, int p) const { return w + p / kScales * bytes() + n * stride; }
  const uint8_t* codes(int n, int p) const {
    return header(n, p) + kHeaderBytes + p % kScales * (size_t(part() / Panel::kStep) * Panel::kBytes);
  }
  Table table() const { return Table(); }
  F scales(int n, int p) const {
    return p % kScales ? Header::template scales<kScales - 1>(header(n, p)) : Header::template scales<0>(header(n, p));
  }
  I offset(int, int, I of_row) const { return of_row; }
};

// Panels whose scales lie apart.
template <class Panel>
struct AmxApart {
  static constexpr int kScales = 1;
  const Apart& w;
  int group, count;

  int part() const { return group; }
  size_t bytes() const { return size_t(group / Panel::kStep) * Panel::kBytes; }
  const uint8_t* codes(int n, int p) const { return w.codes + p * bytes() + n * w.stride; }
  const uint8_t* header(int n, int p) const { return codes(n, p); }
  Table table() const { return w.table; }
  F scales(int n, int p) const { return load(w.scales + n * w.floats + size_t(p) * kLanes); }
  I offset(int n, int p, I of_row) const {
    return w.zeros ? imul(load_int(w.zeros + n * w.floats + size_t(p) * kLanes), of_row) : of_row;
  }
};

// sums[m][n] += M tiles times N panels. While the tiles of one part are computed, the next one is unpacked and the dot
// products of the part before are scaled and added.
template <class Panel, int M, int N, class Weights>
static inline void amx_multiply(Sums<16, 1> (&sums)[M][N], const AmxRows& from, const Weights& weights) {
  alignas(64) uint8_t unpacked[2][N][Panel::kStep == 4 ? 64 : kAmxGroup * 16];
  alignas(64) int32_t dots[2][M][N][16][16];
  constexpr int kScales = Weights::kScales;
  const uint8_t* const codes = from.codes;
  const int count = from.count, rows = from.rows, part = weights.part(), parts = (count + part - 1) / part;
  const int groups = (count + weights.group - 1) / weights.group, depth = amx_depth(part, count);
  const size_t row_bytes = count, bytes = weights.bytes();
  const Table table = weights.table();

  const uint8_t* codes_of[2][N];
  const auto unpack = [&](int p) {
    const int length = group_length(part, count, p * part);
    for (int n = 0; n < N; n++)
      codes_of[p % 2][n] = amx_codes<Panel>(weights.codes(n, p), length, table, unpacked[p % 2][n]);
  };
  const auto compute = [&](int p) {
    const auto& panel = codes_of[p % 2];
    _tile_zero(0);
    if constexpr (N > 1) _tile_zero(1);
    if constexpr (M > 1) _tile_zero(2);
    if constexpr (M > 1 && N > 1) _tile_zero(3);
    for (int k = 0; k < group_length(part, count, p * part); k += depth) {
      const uint8_t* row = codes + p * part + k;
      _tile_loadd(4, row, row_bytes);
      _tile_loadd(6, panel[0] + 16 * k, 64);
      _tile_dpbsud(0, 4, 6);
      if constexpr (N > 1) {
        _tile_loadd(7, panel[1] + 16 * k, 64);
        _tile_dpbsud(1, 4, 7);
      }
      if constexpr (M > 1) {
        _tile_loadd(5, row + 16 * row_bytes, row_bytes);
        _tile_dpbsud(2, 5, 6);
        if constexpr (N > 1) _tile_dpbsud(3, 5, 7);
      }
    }
    auto& to = dots[p % 2];
    _tile_stored(0, to[0][0], 64);
    if constexpr (N > 1) _tile_stored(1, to[0][1], 64);
    if constexpr (M > 1) _tile_stored(2, to[1][0], 64);
    if constexpr (M > 1 && N > 1) _tile_stored(3, to[1][1], 64);
  };
  const auto finish = [&](int p) {
    const int height = M > 1 ? 16 : rows, g = p / kScales;  // several tiles are full ones
    for (int n = 0; n < N; n++) {
      const uint8_t* header = weights.header(n, p);
      const F weight_scales = weights.scales(n, p);
      for (int m = 0; m < M; m++) {
#pragma GCC unroll 16
        for (int r = 0; r < height; r++) {
          const I offset = iset(from.offsets[size_t(m * groups * kScales + p) * height + r]);
          const I dot = _mm512_add_epi32(load_int(dots[p % 2][m][n][r]), weights.offset(n, p, offset));
          // A burst of all of them would wait for free line buffers with nothing else to do meanwhile.
          if constexpr (M == 1) {  // with more tiles, the panels are read again and again and near already
            if (p % kScales == 0)
              for (size_t line = 64 * r; line < bytes; line += 64 * height) prefetch(header + kAmxAhead + line);
          }
          F& sum = sums[m][n].at[r][0];
          sum = fma(to_float(dot), mul(set(from.scales[size_t(m * groups + g) * height + r]), weight_scales), sum);
        }
      }
    }
  };
  unpack(0);
  for (int p = 0; p < parts; p++) {
    if (p + 1 < parts) unpack(p + 1);
    compute(p);
    if (p > 0) finish(p - 1);
  }
  finish(parts - 1);
}

// sums[m][n] += what minimums add; sums_of: of each tile [part][rows].
template <int M, int N>
static inline void amx_add_minimums(Sums<16, 1> (&sums)[M][N], const float* sums_of, int rows, const Apart& w, int parts) {
  const int height = M > 1 ? 16 : rows;
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++)
      for (int r = 0; r < height; r++) {
        F sum = sums[m][n].at[r][0];
        for (int p = 0; p < parts; p++)
          sum = fma(set(sums_of[size_t(m * parts + p) * height + r]), load(w.minimums + n * w.floats + size_t(p) * kLanes), sum);
        sums[m][n].at[r][0] = sum;
      }
}

// sums[m][n] = M tiles of rows of bfloat16 times N panels of bfloat16, over `count` values of k.
template <int M, int N>
static inline void amx_multiply_halves(Sums<16, 1> (&sums)[M][N], const uint8_t* halves, size_t row_bytes,
                                       const uint8_t* w, size_t stride, int count) {
  _tile_zero(0);
  if constexpr (N > 1) _tile_zero(1);
  if constexpr (M > 1) _tile_zero(2);
  if constexpr (M > 1 && N > 1) _tile_zero(3);
  for (int k = 0; k < count; k += kAmxHalves, halves += 64, w += 1024) {
    _tile_loadd(4, halves, row_bytes);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N > 1) {
      _tile_loadd(7, w + stride, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M > 1) {
      _tile_loadd(5, halves + 16 * row_bytes, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (N > 1) _tile_dpbf16ps(3, 5, 7);
    }
    if constexpr (M == 1) {  // with more, the panels are read again and again and near already
      for (int line = 0; line < 1024; line += 64)
        for (int n = 0; n < N; n++) prefetch(w + n * stride + kAmxAhead + line);
    }
  }
  _tile_stored(0, &sums[0][0], 64);
  if constexpr (N > 1) _tile_stored(1, &sums[0][1], 64);
  if constexpr (M > 1) _tile_stored(2, &sums[1][0], 64);
  if constexpr (M > 1 && N > 1) _tile_stored(3, &sums[1][1], 64);
}

}  // namespace tgi
#endif

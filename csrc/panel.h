// The inner loops: a tile of R rows of activations times C panels of 16 weight columns.
//
// A panel holds 16 output columns for all of K, in the order it is read. Each output element is one sum over
// ascending k in one accumulator, so it has the same bits whatever R and C it was computed with.
#pragma once
#include "formats.h"
#include "simd/simd.h"
#include "tgi.h"

namespace tgi {

// An activation that is not rounded, see apart.h.
struct Outlier {
  int column;
  float value;
};

// Activations of one tile, interleaved so that the R rows of one k lie together; either values or the rest.
struct Tile {
  const float* values;    // [k][R]
  const uint8_t* codes;   // [k / 4][R][4] int8
  const float* scales;    // [group][R]
  const int32_t* offsets; // [scale of the weights][R], minus the sum of its codes, times the zero point if all share one
  // Of layers whose scales lie apart only: of each row the outliers [outlier_starts[r], outlier_starts[r + 1]) of a list.
  const Outlier* outliers = nullptr;
  const int* outlier_starts = nullptr;
  const float* sums = nullptr;  // [group][R], of the activations as they are rounded; of layers with minimums only
};

template <int R, int C>
struct Sums {
  F at[R][C];
  Sums() = default;
  explicit Sums(F value) {
    for (auto& row : at)
      for (F& sum : row) sum = value;
  }
};

// Where element k of row r of a float tile is: interleaved, or rows of a fixed length.
template <int R>
struct Interleaved {
  static constexpr int of(int k, int r) { return k * R + r; }
};
template <int Length>
struct Rows {
  static constexpr int of(int k, int r) { return r * Length + k; }
};

// float32 weights: [k][16]
struct F32Panel {
  static constexpr int kStep = 1;  // values of k in one record
  static constexpr int kBytes = 64;
  template <class At, int R, int C>
  static inline void step(Sums<R, C>& sums, const float* a, int k, const uint8_t* w, size_t stride) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const F weights = load(reinterpret_cast<const float*>(w + c * stride));
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) sums.at[r][c] = fma(set(a[At::of(k, r)]), weights, sums.at[r][c]);
    }
  }
};

// bfloat16 weights: [k / 2][16][2], so that one load and one operation each widen two values of k
struct Bf16Panel {
  static constexpr int kStep = 2;
  static constexpr int kBytes = 64;
  template <class At, int R, int C>
  static inline void step(Sums<R, C>& sums, const float* a, int k, const uint8_t* w, size_t stride) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) add<At>(sums, c, a, k, load_bytes(w + c * stride));
  }
  template <class At, int R, int C>
  static inline void add(Sums<R, C>& sums, int c, const float* a, int k, Bytes pair) {
    const F even = even_bf16(pair), odd = odd_bf16(pair);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums.at[r][c] = fma(set(a[At::of(k, r)]), even, sums.at[r][c]);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums.at[r][c] = fma(set(a[At::of(k + 1, r)]), odd, sums.at[r][c]);
  }
};

// float16 weights: [k][16]
struct F16Panel {
  static constexpr int kStep = 1;
  static constexpr int kBytes = 32;
  template <class At, int R, int C>
  static inline void step(Sums<R, C>& sums, const float* a, int k, const uint8_t* w, size_t stride) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const F weights = load_f16(w + c * stride);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) sums.at[r][c] = fma(set(a[At::of(k, r)]), weights, sums.at[r][c]);
    }
  }
};

// Floats of 8 bits: [k][16]. Type: TGI_E4M3 or TGI_E5M2
template <int Type>
struct F8Panel {
  static constexpr int kStep = 1;
  static constexpr int kBytes = 16;
  template <class At, int R, int C>
  static inline void step(Sums<R, C>& sums, const float* a, int k, const uint8_t* w, size_t stride) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const F weights = Type == TGI_E4M3 ? load_e4m3(w + c * stride) : load_e5m2(w + c * stride);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) sums.at[r][c] = fma(set(a[At::of(k, r)]), weights, sums.at[r][c]);
    }
  }
};

// What is fetched while the weights at p are multiplied: what follows in their stream, ...
struct FetchStream {
  // Requests for the first-level cache are few at a time, which multiplications between them make too few. The second
  // level's keep memory busy; from there to the first it is not far.
  static constexpr int kNear = 512, kFar = 8192;
  inline void operator()(const uint8_t* p) const {
    prefetch(p + kNear);
    prefetch_far(p + kFar);
  }
};
// ... what lies anywhere else, ...
struct FetchAhead {
  ptrdiff_t ahead;
  inline void operator()(const uint8_t* p) const { prefetch_far(p + ahead); }
};
// ... or nothing.
struct FetchNothing {
  inline void operator()(const uint8_t*) const {}
};

// sums += a[0 .. count) times C panels that lie `stride` bytes apart; count is a multiple of kStep.
template <class Panel, class At, int R, int C, class Fetch = FetchStream>
static inline void multiply(Sums<R, C>& result, const float* a, const uint8_t* w, size_t stride, int count,
                            Fetch fetch = {}) {
  Sums<R, C> sums = result;  // a copy that nothing can point to stays in registers
  for (int k = 0; k < count; k += Panel::kStep, w += Panel::kBytes) {
    for (int c = 0; c < C; c++) fetch(w + c * stride);
    Panel::template step<At, R, C>(sums, a, k, w, stride);
  }
  result = sums;
}

#if defined(__AVX512BF16__)
template <int R, int C>
static inline void add_pair(Sums<R, C>& sums, int c, Bytes weights, const uint16_t* a, int apart) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sums.at[r][c] = dot2(sums.at[r][c], weights, a + r * apart);
}

// The same for bfloat16 panels and activations, in pairs: At::of(k / 2, r) counts pairs.
template <class At, int R, int C, class Fetch = FetchStream>
static inline void multiply_halves(Sums<R, C>& result, const uint16_t* a, const uint8_t* w, size_t stride, int count,
                                   Fetch fetch = {}) {
  Sums<R, C> sums = result;
  for (int pair = 0; 2 * pair < count; pair++, w += Bf16Panel::kBytes) {
    const uint16_t* pairs = a + 2 * At::of(pair, 0);
    constexpr int kApart = 2 * (At::of(0, 1) - At::of(0, 0));
    for (int c = 0; c < C; c++) fetch(w + c * stride);
    if constexpr (C < 3) {
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) add_pair(sums, c, load_bytes(w + c * stride), pairs, kApart);
    } else {
      Bytes weights[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) weights[c] = load_bytes(w + c * stride);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const Bytes shared = in_register(broadcast4(pairs + kApart * r));
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) sums.at[r][c] = dot2(sums.at[r][c], weights[c], shared);
      }
    }
  }
  result = sums;
}
#endif

// dots += four values of k: R rows of activations, `Pitch` bytes apart, times C vectors of weights
template <int Pitch = 4, int R, int C>
static inline void add_dots(I (&dots)[R][C], const Weights4 (&weights)[C], const uint8_t* a) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    if constexpr (C == 1) {
      dots[r][0] = dot4(dots[r][0], weights[0], broadcast4(a + Pitch * r));
    } else {
      const auto four = in_register(broadcast4(a + Pitch * r));
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) dots[r][c] = dot4(dots[r][c], weights[c], four);
    }
  }
}

// dots += a record of R rows of activations, in a tile of Height, times C panels. Inlined by force: compilers leave records of
// eight steps out of line, and then sums live in memory, at half the speed.
template <class Panel, int Height, int J = 0, int R, int C>
[[gnu::always_inline]] static inline void add_record(I (&dots)[R][C], const uint8_t* a, const uint8_t* w, size_t stride) {
  if constexpr (4 * J < Panel::kStep) {
    Weights4 weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) weights[c] = split(Panel::template codes<J>(w + c * stride));
    add_dots(dots, weights, a + 4 * Height * J);
    add_record<Panel, Height, J + 1>(dots, a, w, stride);
  }
}

// Asks for what follows a record of some panels that lie `stride` bytes apart.
template <class Panel, int C, class Fetch>
static inline void fetch_record(const Fetch& fetch, const uint8_t* w, size_t stride) {
  for (int line = 0; line < Panel::kBytes; line += 64)
    for (int c = 0; c < C; c++) fetch(w + c * stride + line);
}

// The columns of scale J of a group, `length` values: sums += R rows of a tile of Height rows times C panels. The dot product
// is exact, then sum = fma(float(dot), activation scale * weight scale, sum).
template <class Panel, class Header, int J, int Height, class Fetch, int R, int C>
static inline void add_part(F (&sums)[R][C], const uint8_t* a, const float* activation_scales, const int32_t* offsets,
                            const uint8_t* w, const uint8_t* codes, size_t stride, int length, Fetch fetch) {
  I dots[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const I offset = iset(offsets[r]);
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) dots[r][c] = offset;
  }
  for (int k = 0; k < length; k += Panel::kStep, codes += Panel::kBytes, a += Panel::kStep * Height) {
    fetch_record<Panel, C>(fetch, codes, stride);
    add_record<Panel, Height>(dots, a, codes, stride);
  }
#pragma GCC unroll 8
  for (int c = 0; c < C; c++) {
    const F scales = Header::template scales<J>(w + c * stride);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
      sums[r][c] = fma(to_float(dots[r][c]), mul(set(activation_scales[r]), scales), sums[r][c]);
  }
}

// One group of `length` values. offsets: [scales of a header][Height].
template <class Panel, class Header, int Height, class Fetch, int R, int C>
static inline void add_group(F (&sums)[R][C], const uint8_t* a, const float* activation_scales, const int32_t* offsets,
                             const uint8_t* w, size_t stride, int length, Fetch fetch) {
  for (int c = 0; c < C; c++) fetch(w + c * stride);  // the header
  const uint8_t* codes = w + kHeaderBytes;
  const int first = Header::kScales > 1 && length > kHalfGroup ? kHalfGroup : length;
  add_part<Panel, Header, 0, Height>(sums, a, activation_scales, offsets, w, codes, stride, first, fetch);
  if constexpr (Header::kScales > 1) {
    if (length > first)
      add_part<Panel, Header, 1, Height>(sums, a + kHalfGroup * Height, activation_scales, offsets + Height, w,
                                         codes + kHalfGroup / Panel::kStep * Panel::kBytes, stride, length - first, fetch);
  }
}

// sums += R rows, from `row` on, of a tile of Height rows times C panels of quantised weights: `count` values of k.
template <class Panel, class Header, int Height, class Fetch, int R, int C>
static inline void multiply_groups(Sums<R, C>& result, const Tile& tile, int row, const uint8_t* w, size_t stride,
                                   int group, int count, Fetch fetch) {
  Sums<R, C> sums = result;  // a copy that nothing can point to
  const int32_t* offsets = tile.offsets + row;
  for (int k = 0, at = row; k < count; k += group, at += Height, w += Panel::group_bytes(group)) {
    add_group<Panel, Header, Height>(sums.at, tile.codes + size_t(k) * Height + 4 * row, tile.scales + at, offsets, w,
                                     stride, group_length(group, count, k), fetch);
    offsets += Header::kScales * Height;
  }
  result = sums;
}

// The same for all rows of a tile of which half at a time fits the registers: group by group both halves, so that weights
// from memory arrive while both are computed.
template <class Panel, class Header, int Height, int C>
static inline void multiply_groups_halved(Sums<Height, C>& result, const Tile& tile, const uint8_t* w, size_t stride,
                                          int group, int count) {
  constexpr int kUpper = (Height + 1) / 2;
  Sums<kUpper, C> upper(zero());
  Sums<Height - kUpper, C> lower(zero());
  const int32_t* offsets = tile.offsets;
  for (int k = 0, at = 0; k < count; k += group, at += Height, w += Panel::group_bytes(group)) {
    const uint8_t* a = tile.codes + size_t(k) * Height;
    const int below = at + kUpper, length = group_length(group, count, k);
    add_group<Panel, Header, Height>(upper.at, a, tile.scales + at, offsets, w, stride, length, FetchStream{});
    add_group<Panel, Header, Height>(lower.at, a + 4 * kUpper, tile.scales + below, offsets + kUpper, w, stride, length,
                                     FetchNothing{});
    offsets += Header::kScales * Height;
  }
  for (int r = 0; r < Height; r++)
    for (int c = 0; c < C; c++) result.at[r][c] = r < kUpper ? upper.at[r][c] : lower.at[r - kUpper][c];
}

// Panels taken at once for R rows: enough independent sums to hide the latency of one, no more than fit the registers.
constexpr int panels_at_once(int rows) {
  if (kMaxRows >= 16) return rows <= 2 ? 4 : rows <= 4 ? 3 : rows <= 8 ? 2 : 1;
  return kMaxRows >= 4 && rows == 1 ? 2 : 1;
}

}  // namespace tgi

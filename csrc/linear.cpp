#include "linear.h"

#include <string.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "activations.h"
#include "apart.h"
#include "eight.h"
#include "hadamard.h"
#include "narrow.h"
#include "panel.h"
#include "simd/amx.h"
#include "widen.h"

namespace tgi {
namespace {

// Row blocks of this many bytes of activations stay in the second-level cache while the weights pass by.
constexpr size_t kBlockBytes = size_t(512) << 10;

// Whether activations are rounded to bfloat16.
bool halved(const Linear& linear) {
#if defined(TGI_HALVES)
  return linear.format == TGI_BFLOAT16;
#else
  (void)linear;
  return false;
#endif
}

// Of one row of packed activations, without scales.
size_t row_bytes(const Linear& linear) {
  return size_t(linear.padded_in) * (linear.rounds ? 1 : halved(linear) ? 2 : 4);
}

int tile_rows(int rows, int first) { return rows - first < kMaxRows ? rows - first : kMaxRows; }

Tile tile_at(const Linear& linear, const Packed& packed, int first) {
  return {packed.values + size_t(first) * linear.padded_in, packed.codes + first * row_bytes(linear),
          packed.scales + size_t(first) * linear.groups,
          packed.offsets + size_t(first) * linear.groups * linear.scales,
          packed.list ? packed.list->all.data() : nullptr, packed.list ? packed.list->starts.data() + first : nullptr,
          packed.sums + size_t(first) * linear.groups};
}

// Writes `rows` rows of one panel's sums.
template <int R, int C>
void write(const Linear& linear, const Sums<R, C>& sums, int rows, int panel, float* y, size_t stride, bool accumulate,
           int c = 0) {
  const int column = panel * kLanes;
  const int width = linear.out - column < kLanes ? linear.out - column : kLanes;
  const F bias = linear.bias ? load(linear.bias + column) : zero();
  for (int r = 0; r < rows; r++) {
    float* to = y + r * stride + column;
    const F value = linear.bias ? add(sums.at[r][c], bias) : sums.at[r][c];
    if (width == kLanes) {
      store(to, accumulate ? add(load(to), value) : value);
    } else {
      store_part(to, accumulate ? add(load_part(to, width), value) : value, width);
    }
  }
}

// A loop as a function of its own, sums included. Inlined beside the loops of the other formats into the one that chooses
// among them, its sums do not stay in registers: five formats of codes cost bfloat16, which uses none of them, a third of
// its speed. Where they cross the border instead, they pass through memory: 5 % at 16 rows of 576 columns.
template <class Loop>
[[gnu::noinline]] void apart_from_others(const Loop& loop) {
  loop();
}

// Calls body(type of the panels, type of their headers) for quantised weights.
template <class Body>
void with_codes(const Linear& linear, const Body& body) {
  with_header(linear.format, linear.apart,
              [&](auto panel, auto header) { apart_from_others([&] { body(panel, header); }); });
}

// Where C panels begin that lie `stride` bytes apart.
struct Streams {
  const uint8_t* begin;
  size_t stride;
};

Streams streams_at(const Linear& linear, int panel, int apart) {
  return {linear.data + size_t(panel) * linear.panel_bytes, apart * linear.panel_bytes};
}

// The sums of a tile of R rows over C panels, a kind for each format: with activations rounded to int8, ...
template <class Panel, class Header>
struct Rounded {
  static constexpr int at_once(int rows) { return kMaxRows >= 16 && rows > 8 ? 2 : panels_at_once(rows); }

  template <int R, int C>
  static void sum(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& sums) {
    const Streams w = streams_at(linear, panel, apart);
    const Apart unfolded = Header::kApart ? unfold(linear, panel, apart, C) : Apart{};
    if constexpr (Header::kApart && R > 8)
      multiply_apart_halved<Panel>(sums, tile, unfolded, linear.group, linear.padded_in);
    else if constexpr (Header::kApart)
      multiply_apart<Panel, R>(sums, tile, 0, unfolded, linear.group, linear.padded_in, FetchStream{});
    else if constexpr (R > 8)
      multiply_groups_halved<Panel, Header>(sums, tile, w.begin, w.stride, linear.group, linear.padded_in);
    else
      multiply_groups<Panel, Header, R>(sums, tile, 0, w.begin, w.stride, linear.group, linear.padded_in, FetchStream{});
    if constexpr (Header::kApart) {
      add_outliers<Panel>(linear, sums, tile, 0, unfolded);
      if (linear.minimums) add_minimums<R>(sums, tile, 0, unfolded, linear.groups);
    }
  }
};

// ... and as floats: weights that are floats, ...
template <class Panel>
struct Floats {
  static constexpr int at_once(int rows) { return panels_at_once(rows); }

  template <int R, int C>
  static void sum(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& sums) {
    const Streams w = streams_at(linear, panel, apart);
    if constexpr (std::is_same_v<Panel, Bf16Panel>) {
      sum_scaled(linear, panel, apart, sums, [&](auto& part, int k, int count) {
        const uint8_t* from = w.begin + size_t(k) * 2 * kLanes;
#if defined(__AVX512BF16__)
        const auto* halves = reinterpret_cast<const uint16_t*>(tile.codes) + size_t(k) * R;
        multiply_halves<Interleaved<R>>(part, halves, from, w.stride, count);
#else
        multiply<Panel, Interleaved<R>>(part, tile.values + size_t(k) * R, from, w.stride, count);
#endif
      });
    } else {
      multiply<Panel, Interleaved<R>>(sums, tile.values, w.begin, w.stride, linear.padded_in);
    }
  }
};

// sums of panel c += values k and k + 1 of a tile times a pair of bfloat16 weights
struct AddBfloat16 {
  const Tile& tile;
  template <int R, int C>
  inline void operator()(Sums<R, C>& sums, int c, int k, Bytes pair) const {
#if defined(__AVX512BF16__)
    add_pair(sums, c, pair, reinterpret_cast<const uint16_t*>(tile.codes) + size_t(k) * R, 2);
#else
    Bf16Panel::add<Interleaved<R>>(sums, c, tile.values, k, pair);
#endif
  }
};

// ... bfloat16 in fewer bits, ...
struct Narrow {
  static constexpr int at_once(int rows) { return panels_at_once(rows); }

  template <int R, int C>
  static void sum(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& sums) {
    const auto run = [&] { multiply_narrow(linear, panel, apart, sums, AddBfloat16{tile}); };
    // Few sums have their way through memory for nothing, and beside `write` the loop of one row is a sixth slower.
    if constexpr (R < 4) apart_from_others(run);
    else run();
  }
};

// ... in floats of 8 bits, ...
struct Eight {
  static constexpr int at_once(int rows) { return panels_at_once(rows); }

  template <int R, int C>
  static void sum(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& sums) {
    apart_from_others([&] {
      sum_scaled(linear, panel, apart, sums, [&](auto& part, int k, int count) {
        multiply_eight(linear, panel, apart, k, count, part, AddBfloat16{tile});
      });
    });
  }
};

// ... and codes.
struct Codes {
  static constexpr int at_once(int rows) { return panels_at_once(rows); }

  template <int R, int C>
  static void sum(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& sums) {
    const Streams w = streams_at(linear, panel, apart);
    linear.apart ? multiply_apart_widened(linear, tile.values, panel, apart, sums)
                 : multiply_codes(linear, tile.values, w.begin, w.stride, sums);
  }
};

// One tile of R rows over panels [begin, end), C of them at once: panel, panel + apart, ... Each of these streams is
// read from its begin to its end, so that what is fetched ahead is what comes next.
template <class Kind, int R, int C = Kind::at_once(R)>
[[gnu::noinline]] void run_streams(const Linear& linear, const Tile& tile, int begin, int end, float* y, size_t stride,
                                   bool accumulate) {
  const int apart = (end - begin) / C;
  for (int panel = begin; panel < begin + apart; panel++) {
    Sums<R, C> sums(zero());
    Kind::sum(linear, tile, panel, apart, sums);
    for (int c = 0; c < C; c++) write(linear, sums, R, panel + c * apart, y, stride, accumulate, c);
  }
  for (int panel = begin + apart * C; panel < end; panel++) {
    Sums<R, 1> sums(zero());
    Kind::sum(linear, tile, panel, 1, sums);
    write(linear, sums, R, panel, y, stride, accumulate);
  }
}

template <int R>
void run_tile(const Linear& linear, const Tile& tile, int begin, int end, float* y, size_t stride, bool accumulate) {
  const auto run = [&](auto kind) { run_streams<decltype(kind), R>(linear, tile, begin, end, y, stride, accumulate); };
  if (linear.rounds)
    return with_header(linear.format, linear.apart,
                       [&](auto panel, auto header) { run(Rounded<decltype(panel), decltype(header)>{}); });
  switch (linear.format) {
    case TGI_FLOAT32:
      return run(Floats<F32Panel>{});
    case TGI_BFLOAT16:
      return linear.eight ? run(Eight{}) : linear.narrow ? run(Narrow{}) : run(Floats<Bf16Panel>{});
    case TGI_FLOAT16:
      return run(Floats<F16Panel>{});
    default:
      return run(Codes{});
  }
}

// A full tile over some panels, some rows at a time: shapes that load less for each product than a whole tile over one
// panel. The weights are read several times, which is for all tiles but the first, which brought them into a cache.
struct Block {
  int rows, panels;
};
constexpr Block kRoundedBlock{4, 4}, kHalvedBlock{8, 3};  // what the registers hold, beside the sums of groups

template <int R, int C, class Sum>
void run_block(const Linear& linear, int panel, float* y, size_t stride, bool accumulate, const Sum& sum) {
  for (int row = 0; row < kMaxRows; row += R) {
    Sums<R, C> sums(zero());
    sum(sums, row);
    for (int c = 0; c < C; c++) write(linear, sums, R, panel + c, y + row * stride, stride, accumulate, c);
  }
}

// The panels of a block; 1 where there is none.
int block_panels(const Linear& linear) {
  if (kMaxRows < 16) return 1;
#if defined(__AVX512BF16__)
  if (halved(linear)) return kHalvedBlock.panels;
#endif
  return linear.rounds ? kRoundedBlock.panels : 1;
}

void run_blocks(const Linear& linear, const Tile& tile, int panel, float* y, size_t stride, bool accumulate) {
  const Streams w = streams_at(linear, panel, 1);
  const Apart unfolded = linear.apart ? unfold(linear, panel, 1, kRoundedBlock.panels) : Apart{};
  if (linear.rounds)
    return with_codes(linear, [&](auto panel_type, auto header) {
      using Header = decltype(header);
      run_block<kRoundedBlock.rows, kRoundedBlock.panels>(
          linear, panel, y, stride, accumulate, [&](auto& sums, int row) {
            if constexpr (Header::kApart) {
              multiply_apart<decltype(panel_type), kMaxRows>(sums, tile, row, unfolded, linear.group, linear.padded_in,
                                                             FetchNothing{});
              add_outliers<decltype(panel_type)>(linear, sums, tile, row, unfolded);
              if (linear.minimums) add_minimums<kMaxRows>(sums, tile, row, unfolded, linear.groups);
            } else {
              multiply_groups<decltype(panel_type), Header, kMaxRows>(sums, tile, row, w.begin, w.stride, linear.group,
                                                                      linear.padded_in, FetchNothing{});
            }
          });
    });
#if defined(__AVX512BF16__)
  run_block<kHalvedBlock.rows, kHalvedBlock.panels>(linear, panel, y, stride, accumulate, [&](auto& sums, int row) {
    sum_scaled(linear, panel, 1, sums, [&](auto& part, int k, int count) {
      const auto* halves = reinterpret_cast<const uint16_t*>(tile.codes) + size_t(k) * kMaxRows + 2 * row;
      multiply_halves<Interleaved<kMaxRows>>(part, halves, w.begin + size_t(k) * 2 * kLanes, w.stride, count,
                                             FetchNothing{});
    });
  });
#endif
}

using RunTile = void (*)(const Linear&, const Tile&, int, int, float*, size_t, bool);

template <int... Indices>
RunTile choose_tile(int rows, std::integer_sequence<int, Indices...>) {
  static constexpr RunTile table[] = {run_tile<Indices + 1>...};
  return table[rows - 1];
}

RunTile tile_for(int rows) { return choose_tile(rows, std::make_integer_sequence<int, kMaxRows>()); }

// Whether a tile of so many rows lies row by row, for AMX, and not interleaved.
bool row_by_row(const Linear& linear, int tile_height) {
#if defined(__AMX_INT8__)
  if (halved(linear)) return true;
  return linear.rounds && tile_height >= kAmxRows && (linear.format == TGI_INT8 || linear.group <= kAmxGroup);
#else
  (void)linear, (void)tile_height;
  return false;
#endif
}

// Where a member packs: rows [begin, end) of a tile.
struct TilePart {
  const Tile& tile;
  int height;  // rows of the whole tile
  int begin, end;
};

// Quantises `length` values of one row as in quantise_group, with an offset for each `part` of them, `apart` from each other.
// The sum of the rounded values of the last part.
float quantise(const float* x, int count, int length, int part, int zero_point, uint8_t* codes, float* scale,
              int32_t* offsets, int apart) {
  I top = iset(0);
  for (int k = 0; k < count; k += kLanes) top = imax(magnitude(values_at(x, k, count)), top);
  const float peak = as_float(ilargest(top));
  const F inverse = set(inverse_step(peak, 127.0f));
  *scale = step(peak, 127.0f);
  int total = 0;
  for (int begin = 0; begin < length; begin += part, offsets += apart) {
    total = round_to_codes(x, count, begin, std::min(begin + part, length), inverse, codes);
    *offsets = offset_of(total, zero_point);
  }
  return *scale * (float)total;
}

// The same of a whole block that is rotated on the way, without passing through memory; part: half of it, or all.
void quantise_rotated(const float* x, int part, int zero_point, uint8_t* codes, float* scale, int32_t* offsets, int apart) {
  constexpr int kVectors = kRotation / kLanes;
  F values[kVectors];
  load_rotated(x, values);
  I top = magnitude(values[0]);
#pragma GCC unroll 8
  for (int i = 1; i < kVectors; i++) top = imax(magnitude(values[i]), top);
  const float peak = as_float(ilargest(top));
  const F inverse = set(inverse_step(peak, 127.0f));
  *scale = step(peak, 127.0f);
  I sums[2] = {iset(0), iset(0)};
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; i++) {
    const I code = to_int(mul(values[i], inverse));
    sums[2 * i / kVectors] = iadd(sums[2 * i / kVectors], code);
    store_s8(codes + i * kLanes, code);
  }
  if (part == kRotation) return void(*offsets = offset_of(isum(iadd(sums[0], sums[1])), zero_point));
  for (int half = 0; half < 2; half++) offsets[half * apart] = offset_of(isum(sums[half]), zero_point);
}

// `count` values of row x from column k on as the layer multiplies them: where they are, or in `memory` in its order or rotated.
const float* as_multiplied(const Linear& linear, const float* x, int k, int count, float* memory) {
  if (linear.order) {
    for (int i = 0; i < count; i++) memory[i] = x[linear.order[k + i]];
    return memory;
  }
  if (!linear.rotated) return x + k;
  memcpy(memory, x + k, sizeof(float) * count);
  rotate_row(memory, count);
  return memory;
}

// Quantises groups [first, last) of rows `stride` floats apart.
void pack_quantised(const Linear& linear, const float* x, size_t stride, const TilePart& part, int first, int last) {
  static thread_local std::vector<uint8_t> memory;
  static thread_local std::vector<float> turned;
  const int rows = part.end - part.begin, group = linear.group;
  const bool plain = row_by_row(linear, part.height) || part.height == 1;
  auto* codes = const_cast<uint8_t*>(part.tile.codes);
  auto* scales = const_cast<float*>(part.tile.scales);
  auto* offsets = const_cast<int32_t*>(part.tile.offsets);
  if (!plain) memory.resize(std::max(memory.size(), size_t(rows) * group));
  if (linear.rotated) turned.resize(std::max(turned.size(), size_t(group)));
  for (int g = first; g < last; g++) {
    const int column = g * group, count = std::min(linear.in - column, group);
    const int length = group_length(group, linear.padded_in, column);
    for (int r = 0; r < rows; r++) {
      const int row = part.begin + r;
      uint8_t* to = plain ? codes + size_t(row) * linear.padded_in + column : memory.data() + size_t(r) * group;
      float* scale = scales + g * part.height + row;
      int32_t* of_parts = offsets + g * linear.scales * part.height + row;
      const int shared = group / linear.scales;
      if (linear.rotated && !linear.order && group == kRotation && count == kRotation)
        quantise_rotated(x + r * stride + column, shared, linear.zero, to, scale, of_parts, part.height);
      else
        quantise(as_multiplied(linear, x + r * stride, column, count, turned.data()), count, length, shared, linear.zero, to,
                 scale, of_parts, part.height);
    }
    if (!plain)
      interleave(memory.data(), group, rows, length / 4, codes + size_t(column) * part.height + 4 * part.begin, part.height);
  }
}

// Rounds blocks [first, last) of rows for a layer whose scales lie apart.
void pack_apart_rounded(const Linear& linear, const Packed& packed, size_t first_row, const float* x, size_t stride,
                        const TilePart& part, int first, int last) {
  static thread_local std::vector<uint8_t> memory;
  alignas(64) float block[kPackedColumns];
  const int rows = part.end - part.begin, height = part.height;
  const int together = std::max(linear.group, kRoundedColumns);
  const bool plain = row_by_row(linear, height) || height == 1;
  if (!plain) memory.resize(std::max(memory.size(), size_t(rows) * kPackedColumns));
  auto at = [&](auto* all, size_t index) { return const_cast<std::remove_const_t<std::remove_pointer_t<decltype(all)>>*>(all) + index; };
  for (int b = first; b < last; b++) {
    const int column = b * kPackedColumns, count = std::min(linear.in - column, kPackedColumns);
    const int length = group_length(kPackedColumns, linear.padded_in, column);
    for (int r = 0; r < rows; r++) {
      const int row = part.begin + r;
      uint8_t* codes = plain ? at(part.tile.codes, size_t(row) * linear.padded_in + column) : &memory[size_t(r) * kPackedColumns];
      const float* values = as_multiplied(linear, x + r * stride, column, count, block);
      if (values != block) memcpy(block, values, sizeof(float) * count);
      for (int k = 0; k < length; k += together) {
        const size_t group = size_t((column + k) / linear.group) * height + row, outlier = first_row * linear.groups + group;
        round_parts(linear, block + k, std::min(count - k, together), std::min(length - k, together), column + k,
                    {codes + k, at(part.tile.scales, group), at(part.tile.offsets, group), at(part.tile.sums, group),
                     packed.outliers + outlier, packed.outlier_columns + outlier, height});
      }
    }
    if (!plain)
      interleave(memory.data(), kPackedColumns, rows, length / 4,
                 at(part.tile.codes, size_t(column) * height + 4 * part.begin), height);
  }
}

#if defined(TGI_HALVES)
// Rounds columns [first, last) to bfloat16: row by row for AMX, else interleaved in pairs.
void pack_halves(const Linear& linear, const float* x, size_t stride, const TilePart& part, int first, int last) {
  auto* halves = reinterpret_cast<uint16_t*>(const_cast<uint8_t*>(part.tile.codes));
  const bool plain = row_by_row(linear, part.height) || part.height == 1;
  const int rows = part.end - part.begin;
  alignas(64) uint16_t rounded[kMaxRows][kLanes];
  for (int k = first; k < last; k += kLanes) {
    const int left = linear.in - k, count = std::min(last - k, kLanes);
    for (int r = 0; r < rows; r++) {
      const float* from = x + r * stride + k;
      store_halves(rounded[r], left >= kLanes ? load(from) : left > 0 ? load_part(from, left) : zero());
      if (plain) memcpy(halves + size_t(part.begin + r) * linear.padded_in + k, rounded[r], 2 * count);
    }
    if (!plain)
      interleave(reinterpret_cast<const uint8_t*>(rounded), sizeof(rounded[0]), rows, count / 2,
                 reinterpret_cast<uint8_t*>(halves + size_t(k) * part.height + 2 * part.begin), part.height);
  }
}
#endif

// Copies columns [first, last).
void copy_floats(const float* x, size_t stride, int known, const TilePart& part, int first, int last) {
  float* to = const_cast<float*>(part.tile.values) + part.begin;
  const int rows = part.end - part.begin;
  interleave(reinterpret_cast<const uint8_t*>(x), 4 * stride, rows, known - first,
             reinterpret_cast<uint8_t*>(to + size_t(first) * part.height), part.height);
  for (int k = known; k < last; k++)
    for (int r = 0; r < rows; r++) to[size_t(k) * part.height + r] = 0;
}

void pack_floats(const Linear& linear, const float* x, size_t stride, const TilePart& part, int first, int last) {
  const int known = std::max(std::min(linear.in, last), first);
  if (!linear.rotated && !linear.order) return copy_floats(x + first, stride, known, part, first, last);
  float turned[kMaxRows][kRotation];
  for (int k = first; k < last; k += kRotation) {
    const int end = std::min(k + kRotation, last), count = std::max(std::min(end, known) - k, 0);
    for (int r = 0; r < part.end - part.begin; r++) as_multiplied(linear, x + r * stride, k, count, turned[r]);
    copy_floats(turned[0], kRotation, k + count, part, k, end);
  }
}

#if defined(__AMX_INT8__)
// sums[m][n] = M tiles of bfloat16 rows times N panels; sums of columns that share scales are multiplied with them.
template <int M, int N>
void multiply_amx_halves(const Linear& linear, const Tile& tile, int panel, int apart, Sums<16, 1> (&sums)[M][N]) {
  const uint8_t* w = linear.data + size_t(panel) * linear.panel_bytes;
  const size_t stride = apart * linear.panel_bytes;
  if (!linear.factors) return amx_multiply_halves<M, N>(sums, tile.codes, row_bytes(linear), w, stride, linear.padded_in);
  for (auto& row : sums)
    for (auto& one : row) one = Sums<16, 1>(zero());
  for (int g = 0, k = 0; k < linear.padded_in; g++, k += linear.factor_group) {
    Sums<16, 1> part[M][N];
    amx_multiply_halves<M, N>(part, tile.codes + 2 * k, row_bytes(linear), w + size_t(k) * 2 * kLanes, stride,
                              group_length(linear.factor_group, linear.padded_in, k));
    for (int n = 0; n < N; n++) {
      const F factors = load(linear.factors + (size_t(panel + n * apart) * linear.factor_groups + g) * kLanes);
      for (int m = 0; m < M; m++)
        for (int r = 0; r < kMaxRows; r++)
          sums[m][n].at[r][0] = fma(part[m][n].at[r][0], factors, sums[m][n].at[r][0]);
    }
  }
}

template <int M, int N>
void run_amx_block(const Linear& linear, const Tile& tile, int height, int panel, int apart, float* y, size_t stride,
                   bool accumulate) {
  Sums<16, 1> sums[M][N];
  const uint8_t* w = linear.data + size_t(panel) * linear.panel_bytes;
  const size_t panel_stride = apart * linear.panel_bytes;
  const Apart unfolded = linear.apart ? unfold(linear, panel, apart, N) : Apart{};
  if (halved(linear)) {
    multiply_amx_halves(linear, tile, panel, apart, sums);
  } else {
    for (auto& row : sums)
      for (auto& tile : row)
        for (auto& sum : tile.at) sum[0] = zero();
    with_codes(linear, [&](auto panel_type, auto header) {
      using Panel = decltype(panel_type);
      using Header = decltype(header);
      const AmxRows rows{tile.codes, linear.padded_in, tile.scales, tile.offsets, height};
      if constexpr (Header::kApart) {
        amx_multiply<Panel, M, N>(sums, rows, AmxApart<Panel>{unfolded, linear.group, linear.padded_in});
        for (int m = 0; m < M; m++)
          for (int n = 0; n < N; n++)
            add_outliers<Panel>(linear, tile, m * kMaxRows, height, unfolded, n, &sums[m][n].at[0][0], 1);
      } else amx_multiply<Panel, M, N>(sums, rows, AmxGroups<Panel, Header>{w, panel_stride, linear.group, linear.padded_in});
    });
  }
  if (linear.minimums) amx_add_minimums<M, N>(sums, tile.sums, height, unfolded, linear.groups);
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++)
      write(linear, sums[m][n], height, panel + n * apart, y + m * kMaxRows * stride, stride, accumulate);
}

// Rows [first, last), one tile or several full ones, over panels [begin, end), two by two.
void run_amx(const Linear& linear, const Packed& packed, int first, int last, int begin, int end, float* y,
             size_t stride, bool accumulate) {
  const int height = std::min(last - first, kMaxRows);
  const AmxTiles tiles(halved(linear) ? 64 : amx_depth(linear.group / linear.scales, linear.padded_in),
                       height);
  const int apart = (end - begin) / 2;
  for (int panel = begin; panel < end; panel += panel + 1 == begin + apart ? 1 + apart : 1) {
    const bool pair = panel < begin + apart;
    for (int row = first; row < last; row += 2 * kMaxRows) {
      const Tile tile = tile_at(linear, packed, row);
      const bool tall = row + kMaxRows < last;
      const auto block = tall ? pair ? run_amx_block<2, 2> : run_amx_block<2, 1>
                              : pair ? run_amx_block<1, 2> : run_amx_block<1, 1>;
      block(linear, tile, height, panel, apart, y + row * stride, stride, accumulate);
    }
  }
}
#endif

}  // namespace

float quantise_group(const float* x, int count, int length, int zero_point, uint8_t* codes, float* scale, int32_t* offset) {
  return quantise(x, count, length, length, zero_point, codes, scale, offset, 1);
}

void interleave(const uint8_t* from, size_t stride, int rows, int words, uint8_t* to, int height) {
  if (height == 1) return (void)memcpy(to, from, 4 * size_t(words));
  int word = 0;
  if (rows == kMaxRows && height == kMaxRows)
    for (; word + 4 <= words; word += 4) interleave_rows(from + 4 * word, stride, to + size_t(4) * word * height);
  for (; word < words; word++)
    for (int r = 0; r < rows; r++) memcpy(to + 4 * (size_t(word) * height + r), from + r * stride + 4 * word, 4);
}

size_t packed_bytes(const Linear& linear, int rows) {
  return (row_bytes(linear) + 4 * size_t(linear.groups) * (1 + linear.scales + 3 * linear.apart)) * rows + 384;
}

Packed packed_in(const Linear& linear, int rows, void* memory) {
  auto* begin = static_cast<uint8_t*>(memory);
  if (!linear.rounds && !halved(linear)) return {reinterpret_cast<float*>(begin), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  const size_t codes = (row_bytes(linear) * rows + 63) / 64 * 64;
  const size_t scales = (4 * size_t(linear.groups) * rows + 63) / 64 * 64;
  const size_t offsets = (4 * size_t(linear.groups) * linear.scales * rows + 63) / 64 * 64;
  auto* of_scales = begin + codes;
  auto* of_offsets = of_scales + scales;
  auto* sums = of_offsets + offsets;
  auto* outliers = sums + (linear.apart ? scales : 0);
  return {nullptr,
          begin,
          reinterpret_cast<float*>(of_scales),
          reinterpret_cast<int32_t*>(of_offsets),
          reinterpret_cast<float*>(sums),
          reinterpret_cast<float*>(outliers),
          reinterpret_cast<int32_t*>(outliers + (linear.apart ? scales : 0)),
          nullptr};
}

static int unit_columns(const Linear& linear) {
  return linear.rounds ? kPackedColumns : linear.rotated ? kRotation : kLanes;
}

int pack_units(const Linear& linear) {
  return linear.rounds && !linear.apart ? linear.groups : (linear.padded_in + unit_columns(linear) - 1) / unit_columns(linear);
}

void pack_activations(const Linear& linear, const float* x, size_t stride, int rows, const Share& share,
                      const Packed& packed) {
  const int unit = unit_columns(linear), begin = share.first * unit, end = std::min(share.last * unit, linear.padded_in);
  for (int row = share.begin; row < share.end;) {
    const int first = row / kMaxRows * kMaxRows, past = std::min(first + kMaxRows, share.end);
    const Tile tile = tile_at(linear, packed, first);
    const TilePart part{tile, tile_rows(rows, first), row - first, past - first};
    const float* from = x + row * stride;
    if (linear.rounds && linear.apart) pack_apart_rounded(linear, packed, first, from, stride, part, share.first, share.last);
    else if (linear.rounds) pack_quantised(linear, from, stride, part, share.first, share.last);
#if defined(TGI_HALVES)
    else if (halved(linear)) pack_halves(linear, from, stride, part, begin, end);
#endif
    else pack_floats(linear, from, stride, part, begin, end);
    row = past;
  }
}

namespace {

// The part of a narrow layer, or one of floats of 8 bits, that panels [panel, panel + count) are, widened into `memory`.
Linear widened(const Linear& linear, int panel, int count, std::vector<uint8_t>& memory) {
  const size_t bytes = size_t(linear.padded_in) * 2 * kLanes;
  memory.resize(std::max(memory.size(), bytes * count + 64));
  Linear wide = linear;
  wide.narrow = wide.eight = false;
  wide.panel_bytes = bytes;
  wide.data = reinterpret_cast<uint8_t*>((reinterpret_cast<size_t>(memory.data()) + 63) / 64 * 64);
  for (int i = 0; i < count; i++)
    (linear.eight ? widen_eight_panel : widen_panel)(linear, panel + i, wide.data + i * bytes);
  if (linear.factors) wide.factors += size_t(panel) * linear.factor_groups * kLanes;
  wide.panels = count;
  wide.out -= panel * kLanes;
  if (wide.bias) wide.bias += panel * kLanes;
  return wide;
}

void multiply_as_they_lie(const Linear& linear, const Packed& packed, int rows, int begin, int end, float* y,
                          size_t stride, bool accumulate) {
  int block = (int)(kBlockBytes / row_bytes(linear)) / kMaxRows * kMaxRows;
  if (block < 2 * kMaxRows) block = 2 * kMaxRows;
  const int full = rows / kMaxRows * kMaxRows;
  for (int first = 0; first < full; first += block) {
    const int last = first + block < full ? first + block : full;
#if defined(__AMX_INT8__)
    if (row_by_row(linear, kMaxRows)) {
      run_amx(linear, packed, first, last, begin, end, y, stride, accumulate);
      continue;
    }
#endif
    const int width = last - first > kMaxRows ? block_panels(linear) : 1;
    for (int panel = begin; panel < end; panel += width)
      for (int row = first; row < last; row += kMaxRows) {
        const Tile tile = tile_at(linear, packed, row);
        const int past = std::min(panel + width, end);
        if (width > 1 && past - panel == width && row > first)
          run_blocks(linear, tile, panel, y + row * stride, stride, accumulate);
        else run_tile<kMaxRows>(linear, tile, panel, past, y + row * stride, stride, accumulate);
      }
  }
  if (full == rows) return;
#if defined(__AMX_INT8__)
  if (row_by_row(linear, rows - full))
    return run_amx(linear, packed, full, rows, begin, end, y, stride, accumulate);
#endif
  tile_for(rows - full)(linear, tile_at(linear, packed, full), begin, end, y + full * stride, stride, accumulate);
}

}  // namespace

void multiply_panels(const Linear& linear, const Packed& packed, int rows, int begin, int end, float* y, size_t stride,
                     bool accumulate) {
  if (linear.apart && linear.rounds) {
    static thread_local OutlierList list;
    collect_outliers(linear, packed, rows, list);
    Packed with_list = packed;
    with_list.list = &list;
    return multiply_as_they_lie(linear, with_list, rows, begin, end, y, stride, accumulate);
  }
  // For several tiles, and for AMX, such panels are widened once; a single tile widens on the way.
  if (!(linear.narrow || linear.eight) || (rows <= kMaxRows && !row_by_row(linear, rows)))
    return multiply_as_they_lie(linear, packed, rows, begin, end, y, stride, accumulate);
  static thread_local std::vector<uint8_t> memory;
  const int at_once = row_by_row(linear, rows) ? 2 : block_panels(linear);
  for (int panel = begin; panel < end; panel += at_once) {
    const int count = std::min(at_once, end - panel);
    const Linear wide = widened(linear, panel, count, memory);
    multiply_as_they_lie(wide, packed, rows, 0, count, y + panel * kLanes, stride, accumulate);
  }
}

}  // namespace tgi

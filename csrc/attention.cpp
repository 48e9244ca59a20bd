#include "attention.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "amx.h"
#include "linear.h"

namespace tgi {

namespace {

// Softmax state of a tile: the largest score, the sum of exponentials, the weighted values.
struct State {
  float largest[kMaxRows];
  float total[kMaxRows];
  alignas(64) float values[kMaxRows][kMaxHeadDim];
};

// Scratch of one tile.
struct Work {
  alignas(64) float queries[kMaxRows][kMaxHeadDim];
  alignas(64) float scores[kMaxRows][kPiece];
  alignas(64) uint8_t row_codes[kMaxRows * kMaxHeadDim];  // queries in int8, row by row
  alignas(64) uint8_t codes[kMaxRows * kMaxHeadDim];      // and interleaved
#if defined(TGI_HALVES)
  alignas(64) uint16_t half_queries[kMaxRows][kMaxHeadDim];
  alignas(64) uint16_t half_weights[kMaxRows][kPiece];
#endif
  float code_scales[kMaxRows];
  int32_t code_offsets[kMaxRows];
  alignas(64) uint8_t weight_codes[kMaxRows][2][kPiece];  // probabilities over an int8 cache: upper and lower parts
  float weight_scales[kMaxRows];
  int32_t weight_offsets[kMaxRows][2];
  int positions[kMaxRows];
  float slopes[kMaxRows];
  State piece, merged;
};

alignas(64) constexpr float kCount[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

constexpr int score_panels(int rows) { return rows <= 8 && kMaxRows >= 16 ? 2 : 1; }
constexpr int value_panels(int rows) { return kMaxRows < 16 ? 1 : rows <= 4 ? 4 : rows <= 8 ? 2 : 1; }

// Scores of 16 * C keys.
template <int Type, int R, int C>
void score_keys(const CacheShape& shape, Work& work, const uint8_t* panel, size_t stride, int key, FetchAhead fetch) {
  Sums<R, C> sums(zero());
  if constexpr (Type == TGI_FLOAT32) {
    multiply<F32Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
  } else if constexpr (Type == TGI_FLOAT16) {
    multiply<F16Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
  } else if constexpr (Type == TGI_BFLOAT16) {
#if defined(__AVX512BF16__)
    multiply_halves<Rows<kMaxHeadDim / 2>>(sums, work.half_queries[0], panel, stride, shape.head_dim, fetch);
#else
    multiply<Bf16Panel, Rows<kMaxHeadDim>>(sums, work.queries[0], panel, stride, shape.head_dim, fetch);
#endif
  } else {
    const Tile tile{nullptr, work.codes, work.code_scales, work.code_offsets};
    multiply_groups<Int8Panel, false, R>(sums, tile, 0, panel, stride, shape.padded_dim(), shape.padded_dim(), fetch);
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(&work.scores[r][key + c * kLanes], sums.at[r][c]);
}

// The blocks of a piece, and the head that is read of them.
struct Piece {
  const int64_t* table;
  int blocks;
  int kv_head;
};

// What is read in order: the keys of a piece, its values, then the keys of the next piece. Blocks lie anywhere in memory, so
// the processor cannot guess; `after` tells what comes kBlocksAhead later. Sizes are computed once: to ask for them at every
// block would cost as much as its products.
class Reads {
 public:
  Reads(const AttentionCall& call, const Piece& piece, const Piece& next)
      : key_panel(call.shape.key_panel()), value_panel(call.shape.value_panel()), keys_(call.keys), values_(call.values),
        kv_heads_(call.shape.kv_heads), key_record_(call.shape.key_record()), value_record_(call.shape.value_record()),
        piece_(piece), next_(next) {}

  const size_t key_panel, value_panel;  // bytes

  const uint8_t* key(int block) const { return key_of(piece_, block); }
  const uint8_t* value(int block) const {
    return values_ + (piece_.table[block] * kv_heads_ + piece_.kv_head) * value_record_;
  }
  // The scales of a block's values in an int8 cache.
  const float* scales(int block) const {
    return reinterpret_cast<const float*>(value(block) + value_record_ - kBlock * 4);
  }
  const uint8_t* after_key(int block) const {
    const int later = block + kBlocksAhead;
    return later < piece_.blocks ? key(later) : value(std::min(later - piece_.blocks, piece_.blocks - 1));
  }
  const uint8_t* after_value(int block) const {
    const int later = block + kBlocksAhead;
    return later < piece_.blocks ? value(later) : key_of(next_, std::min(later - piece_.blocks, next_.blocks - 1));
  }

 private:
  static constexpr int kBlocksAhead = 3;

  const uint8_t* key_of(const Piece& piece, int block) const {
    return keys_ + (piece.table[block] * kv_heads_ + piece.kv_head) * key_record_;
  }

  const uint8_t* keys_;
  const uint8_t* values_;
  const int64_t kv_heads_;
  const size_t key_record_, value_record_;
  const Piece piece_, next_;
};

// Scores of keys [begin, end) of a piece; begin is a multiple of 16.
template <int Type, int R>
void score_piece(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  constexpr int C = score_panels(R);
  for (int key = begin; key < end;) {
    const int block = key / kBlock, half = key % kBlock / kLanes;
    const uint8_t* record = reads.key(block);
    const FetchAhead fetch{reads.after_key(block) - record};
    if (Type == TGI_INT8) {  // the scales of the values, which are needed all at once
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

template <int Type, int R, int C>
void weigh_panels(Work& work, const Reads& reads, int begin, int end, int panel) {
  using Half = std::conditional_t<Type == TGI_BFLOAT16, Bf16Panel, F16Panel>;
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

#if defined(__AMX_BF16__)
constexpr bool kTiles = true;  // attention over a bfloat16 cache is computed by AMX, for any number of rows

// The shapes of the tiles: 0 and 1 sums; 2 and 3 rows and columns of 32 values of k; 4 and 5 of what is left of the
// head's dimensions, 6 and 7 of what is left of the last block's positions, both in pairs.
class AttentionTiles {
 public:
  AttentionTiles(int rows, int dimensions, int positions) {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    const int pairs[8] = {0, 0, 16, 16, dimensions, dimensions, positions, positions};
    for (int tile = 0; tile < 8; tile++) {
      const bool left = tile == 2 || tile == 4 || tile == 6;
      if (tile > 1 && pairs[tile] == 0) continue;
      config.rows[tile] = tile < 2 || left ? rows : pairs[tile];
      config.row_bytes[tile] = left ? 4 * pairs[tile] : 64;
    }
    written(&config);
    _tile_loadconfig(&config);
  }
  ~AttentionTiles() { _tile_release(); }
  AttentionTiles(const AttentionTiles&) = delete;
};

inline void prefetch_tile(const uint8_t* p) {
  for (int line = 0; line < 1024; line += 64) prefetch_far(p + line);
}

// As score_piece.
void score_piece_in_tiles(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  const int pairs = (shape.head_dim + 1) / 2, whole = pairs / 16;
  constexpr size_t kStride = sizeof(work.half_queries[0]);
  written(work.half_queries);
  for (int key = begin; key < end;) {
    const int block = key / kBlock, half = key % kBlock / kLanes;
    const uint8_t* record = reads.key(block);
    const uint8_t* after = reads.after_key(block) + half * reads.key_panel;
    const uint8_t* panel = record + half * reads.key_panel;
    const bool two = half == 0 && key + kLanes < end;
    const size_t other = two ? reads.key_panel : 0;
    _tile_zero(0);
    _tile_zero(1);
    for (int c = 0; c < whole; c++) {
      _tile_loadd(2, work.half_queries[0] + c * kAmxHalves, kStride);
      _tile_loadd(3, panel + c * 1024, 64);
      _tile_dpbf16ps(0, 2, 3);
      prefetch_tile(after + c * 1024);
      if (!two) continue;
      _tile_loadd(3, panel + other + c * 1024, 64);
      _tile_dpbf16ps(1, 2, 3);
      prefetch_tile(after + other + c * 1024);
    }
    if (pairs % 16) {
      _tile_loadd(4, work.half_queries[0] + whole * kAmxHalves, kStride);
      _tile_loadd(5, panel + whole * 1024, 64);
      _tile_dpbf16ps(0, 4, 5);
      if (two) {
        _tile_loadd(5, panel + other + whole * 1024, 64);
        _tile_dpbf16ps(1, 4, 5);
      }
    }
    _tile_stored(0, &work.scores[0][key], sizeof(work.scores[0]));
    if (two) _tile_stored(1, &work.scores[0][key + kLanes], sizeof(work.scores[0]));
    key += two ? 2 * kLanes : kLanes;
  }
}

// As weigh_piece, on probabilities rounded to bfloat16. Blocks are taken whole from their first position on, so that
// sums are cut at the same positions whatever the window; what lies before `begin` has no weight.
void weigh_piece_in_tiles(const CacheShape& shape, Work& work, int rows, const Reads& reads, int begin, int seen) {
  const int first = begin / kBlock * kBlock;
  for (int r = 0; r < rows; r++)
    for (int key = first; key < begin; key += kLanes) store_halves(&work.half_weights[r][key], zero());
  written(work.half_weights);
  constexpr size_t kStride = sizeof(work.half_weights[0]);
  const size_t stride = reads.value_panel;
  const int panels = shape.padded_dim() / kLanes;
  for (int panel = 0; panel < panels; panel += 2) {
    const bool two = panel + 1 < panels;
    const size_t other = two ? stride : 0;
    _tile_zero(0);
    _tile_zero(1);
    for (int key = first; key < seen; key += kBlock) {
      const uint8_t* at = reads.value(key / kBlock) + panel * stride;
      const uint8_t* after = reads.after_value(key / kBlock) + panel * stride;
      if (key + kBlock <= seen) {
        _tile_loadd(2, work.half_weights[0] + key, kStride);
        _tile_loadd(3, at, 64);
        _tile_dpbf16ps(0, 2, 3);
        prefetch_tile(after);
        _tile_loadd(3, at + other, 64);
        _tile_dpbf16ps(1, 2, 3);
        prefetch_tile(after + other);
      } else {
        _tile_loadd(6, work.half_weights[0] + key, kStride);
        _tile_loadd(7, at, 64);
        _tile_dpbf16ps(0, 6, 7);
        _tile_loadd(7, at + other, 64);
        _tile_dpbf16ps(1, 6, 7);
      }
    }
    _tile_stored(0, &work.piece.values[0][panel * kLanes], sizeof(work.piece.values[0]));
    if (two) _tile_stored(1, &work.piece.values[0][(panel + 1) * kLanes], sizeof(work.piece.values[0]));
  }
}
#else
constexpr bool kTiles = false;
#endif

bool adjusts(const AttentionCall& call) { return call.soft_cap != 0 || call.slopes; }

// What is left to multiply scores with after `adjust`.
float scale_left(const AttentionCall& call) { return adjusts(call) ? 1.0f : call.scale; }

// Scores as they are compared where more than their scale is to be applied: capped, and with ALiBi's bias.
void adjust(const AttentionCall& call, Work& work, int r, int base, int begin, int end) {
  float* scores = work.scores[r];
  const F distance = add(load(kCount), set((float)(base - work.positions[r]))), slope = set(work.slopes[r]);
  for (int key = begin; key < end; key += kLanes) {
    F s = mul(load(scores + key), set(call.scale));
    if (call.soft_cap != 0) s = mul(set(call.soft_cap), tanh(mul(s, set(1.0f / call.soft_cap))));
    if (call.slopes) s = add(s, mul(slope, add(distance, set((float)key))));
    store(scores + key, s);
  }
}

// Of scores [begin, end), those outside [first, last) become minus infinity.
void hide_unseen(float* scores, int begin, int end, int first, int last) {
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

// Probabilities as the product with the values takes them: as bfloat16, or in place of the scores.
template <int Type>
void set_weights(Work& work, int r, int key, F p) {
#if defined(TGI_HALVES)
  if constexpr (Type == TGI_BFLOAT16) return store_halves(&work.half_weights[r][key], p);
#endif
  store(&work.scores[r][key], p);
}

// Rows of a softmax at a time: each waits for its own largest score before it goes on.
constexpr int kTogether = kMaxRows >= 16 ? 4 : 2;

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
    const F s = Type == TGI_INT8 ? load(reads.scales(key / kBlock) + key % kBlock) : zero();
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      F p = exp(fma(load(&work.scores[r + i][key]), factor, less[i]));
      total[i] = add(total[i], p);
      if constexpr (Type == TGI_INT8) {
        p = if_less(zero(), p, mul(p, s), p);  // the scale of an unseen key may be NaN
        peak[i] = imax(magnitude(p), peak[i]);
      }
      set_weights<Type>(work, r + i, key, p);
    }
  }
  for (int i = 0; i < N; i++) work.piece.total[r + i] = sum(total[i]);
  if constexpr (Type == TGI_INT8) {
    float peaks[N];
    for (int i = 0; i < N; i++) peaks[i] = as_float(ilargest(peak[i]));
    quantise_weights<N>(work, r, peaks, begin, end);
  }
}

float exp_of(float x) {
  float lanes[kLanes];
  store(lanes, exp(set(x)));
  return lanes[0];
}

// merged = merged combined with the next piece, in order.
void merge_row(State& merged, float largest_score, float total, const float* values, int r, int width, bool first) {
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

void write_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem& item, const State& state) {
  const int group = call.heads / call.shape.kv_heads, width = call.shape.head_dim;
  for (int r = 0; r < item.count; r++) {
    const int query = item.first + r;
    const int64_t row = rows.starts[item.sequence] + query / group;
    float* out = call.out + row * call.out_stride + (item.kv_head * group + query % group) * width;
    const F factor = set(state.total[r]);
    for (int d = 0; d < width; d += kLanes) {
      const F value = div(load(&state.values[r][d]), factor);
      width - d < kLanes ? store_part(out + d, value, width - d) : store(out + d, value);
    }
  }
}

void read_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem& item, Work& work) {
  const int group = call.heads / call.shape.kv_heads, width = call.shape.head_dim, padded = call.shape.padded_dim();
  for (int r = 0; r < item.count; r++) {
    const int query = item.first + r, head = item.kv_head * group + query % group;
    const int64_t row = rows.starts[item.sequence] + query / group;
    const float* from = call.queries + row * call.query_stride + head * width;
    memcpy(work.queries[r], from, 4 * size_t(width));
    if (width % 2) work.queries[r][width] = 0;  // bfloat16 keys come in pairs
    work.positions[r] = (int)rows.positions[row];
    work.slopes[r] = call.slopes ? call.slopes[head] : 0;
#if defined(TGI_HALVES)
    if (call.shape.type == TGI_BFLOAT16)
      for (int d = 0; d < width; d += kLanes)
        store_halves(&work.half_queries[r][d], width - d < kLanes ? load_part(from + d, width - d) : load(from + d));
#endif
    if (call.shape.type == TGI_INT8)
      quantise_group(from, width, padded, Int8Panel::kZero, work.row_codes + r * padded, work.code_scales + r,
                     work.code_offsets + r);
  }
  if (call.shape.type == TGI_INT8) interleave(work.row_codes, padded, item.count, padded / 4, work.codes, item.count);
}

// The keys that a tile sees, [first, last), in positions.
struct Seen {
  int first, last;
};

Seen seen_by(const StepRows& rows, const AttentionItem& item, int group, int window) {
  const int64_t* positions = rows.positions + rows.starts[item.sequence];
  const int low = (int)positions[item.first / group], high = (int)positions[(item.first + item.count - 1) / group];
  return {window ? std::max(0, low - window + 1) : 0, high + 1};
}

Piece piece_of(const StepRows& rows, const AttentionItem& item, const Seen& seen, int piece) {
  const int keys = std::min(seen.last - piece * kPiece, kPiece);
  const int64_t* table = rows.tables + item.sequence * rows.width + piece * (kPiece / kBlock);
  return {table, (keys + kBlock - 1) / kBlock, item.kv_head};
}

// item[1] is read next, unless this is the `last` one.
template <int Type, int R>
void attend_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem* items, bool last, int window,
                 Work& work) {
  const CacheShape& shape = call.shape;
  const AttentionItem& item = items[0];
  const int group = call.heads / shape.kv_heads;
  const Seen all = seen_by(rows, item, group, window);
  read_tile(call, rows, item, work);
  constexpr bool kInTiles = kTiles && Type == TGI_BFLOAT16;
#if defined(__AMX_BF16__)
  std::optional<AttentionTiles> tiles;
  if (kInTiles) tiles.emplace(R, (shape.head_dim + 1) / 2 % 16, (all.last % kBlock + 1) / 2);
#endif
  for (int piece = item.begin; piece < item.end; piece++) {
    const int base = piece * kPiece;
    const int begin = std::max(all.first - base, 0) / kLanes * kLanes;
    const int seen = std::min(all.last - base, kPiece);
    const int end = (seen + kLanes - 1) / kLanes * kLanes;
    const Piece now = piece_of(rows, item, all, piece);
    const Piece next = piece + 1 < item.end ? piece_of(rows, item, all, piece + 1)
                       : last               ? now
                                            : piece_of(rows, items[1], seen_by(rows, items[1], group, window), items[1].begin);
    const Reads reads(call, now, next);
#if defined(__AMX_BF16__)
    if constexpr (kInTiles) score_piece_in_tiles(shape, work, reads, begin, end);
#endif
    if constexpr (!kInTiles) score_piece<Type, R>(shape, work, reads, begin, end);
    for (int r = 0; r < R; r++) {
      const int position = work.positions[r];
      if (adjusts(call)) adjust(call, work, r, base, begin, end);
      hide_unseen(work.scores[r], begin, end, window ? std::max(0, position - window + 1) - base : 0, position + 1 - base);
    }
    constexpr int kLeft = R % kTogether;
    for (int r = 0; r < R - kLeft; r += kTogether) softmax<Type, kTogether>(call, work, reads, r, begin, end);
    if constexpr (kLeft > 0) softmax<Type, kLeft>(call, work, reads, R - kLeft, begin, end);
#if defined(__AMX_BF16__)
    if constexpr (kInTiles) weigh_piece_in_tiles(shape, work, R, reads, begin, seen);
#endif
    if constexpr (Type == TGI_INT8) weigh_codes<R>(shape, work, reads, begin, end);
    else if constexpr (!kInTiles) weigh_piece<Type, R>(shape, work, reads, begin, seen);
    for (int r = 0; r < R; r++)
      merge_row(work.merged, work.piece.largest[r], work.piece.total[r], work.piece.values[r], r, shape.padded_dim(),
                piece == item.begin);
  }
}

using AttendTile = void (*)(const AttentionCall&, const StepRows&, const AttentionItem*, bool, int, Work&);

template <int Type, int... Indices>
AttendTile tile_of_type(int rows, std::integer_sequence<int, Indices...>) {
  static constexpr AttendTile table[] = {attend_tile<Type, Indices + 1>...};
  return table[rows - 1];
}

AttendTile tile_for(int type, int rows) {
  const auto counts = std::make_integer_sequence<int, kMaxRows>();
  if (type == TGI_FLOAT32) return tile_of_type<TGI_FLOAT32>(rows, counts);
  if (type == TGI_BFLOAT16) return tile_of_type<TGI_BFLOAT16>(rows, counts);
  if (type == TGI_FLOAT16) return tile_of_type<TGI_FLOAT16>(rows, counts);
  return tile_of_type<TGI_INT8>(rows, counts);
}

// A partial result: for each row largest, total and the values.
size_t partial_floats(const CacheShape& shape, int count) { return size_t(count) * (16 + shape.padded_dim()); }

void leave_partial(const CacheShape& shape, const AttentionItem& item, const State& state) {
  for (int r = 0; r < item.count; r++) {
    float* to = item.partial + r * (16 + shape.padded_dim());
    to[0] = state.largest[r];
    to[1] = state.total[r];
    memcpy(to + 16, state.values[r], 4 * size_t(shape.padded_dim()));
  }
}

int64_t cost(const AttentionItem& item, int keys) {
  return int64_t(std::min(keys, (item.end - item.begin) * kPiece)) * (item.count + 4);
}

}  // namespace

void plan_attention(const StepRows& rows, int heads, const CacheShape& shape, int window, int members,
                    AttentionPlan& plan) {
  plan.window = window;
  plan.items.clear();
  plan.merges.clear();
  const int group = heads / shape.kv_heads;
  std::vector<AttentionItem> tiles;
  std::vector<int64_t> costs;
  int pieces = 0;
  for (int sequence = 0; sequence < rows.sequences; sequence++) {
    const int64_t start = rows.starts[sequence];
    const int queries = (int)(rows.starts[sequence + 1] - start) * group;
    for (int first = 0; first < queries; first += kMaxRows) {
      const int count = std::min(kMaxRows, queries - first);
      const int low = (int)rows.positions[start + first / group];
      const int high = (int)rows.positions[start + (first + count - 1) / group];
      const int begin = window ? std::max(0, low - window + 1) / kPiece : 0, end = high / kPiece + 1;
      for (int kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
        tiles.push_back({sequence, kv_head, first, count, begin, end, nullptr});
        costs.push_back(cost(tiles.back(), high + 1 - begin * kPiece));
      }
      pieces += (end - begin) * shape.kv_heads;
    }
  }
  if ((int)tiles.size() < 4 * members && members > 1 && pieces > (int)tiles.size()) {
    costs.clear();
    size_t floats = 0;
    for (const AttentionItem& tile : tiles) {
      const int first = (int)plan.items.size();
      for (int piece = tile.begin; piece < tile.end; piece++) {
        AttentionItem item = tile;
        item.begin = piece;
        item.end = piece + 1;
        plan.items.push_back(item);
        costs.push_back(cost(item, kPiece));
        floats += partial_floats(shape, item.count);
      }
      plan.merges.push_back({first, (int)plan.items.size()});
    }
    if (plan.partials.size() < floats) plan.partials.resize(floats);
    float* next = plan.partials.data();
    for (AttentionItem& item : plan.items) {
      item.partial = next;
      next += partial_floats(shape, item.count);
    }
  } else {
    plan.items = std::move(tiles);
  }
  int64_t total = 0, passed = 0;
  for (int64_t c : costs) total += c;
  plan.shares.assign(members + 1, (int)plan.items.size());
  plan.shares[0] = 0;
  int member = 1;
  for (int i = 0; i < (int)costs.size() && member < members; i++) {
    // An item goes to the member in whose share its middle lies.
    while (member < members && (passed + costs[i] / 2) * members >= total * member) plan.shares[member++] = i;
    passed += costs[i];
  }
}

void attend(const AttentionCall& call, const StepRows& rows, const AttentionPlan& plan, const Member& member) {
  Work work;
  const int end = plan.shares[member.index + 1];
  for (int i = plan.shares[member.index]; i < end; i++) {
    const AttentionItem& item = plan.items[i];
    tile_for(call.shape.type, item.count)(call, rows, &item, i + 1 == end, plan.window, work);
    if (item.partial) leave_partial(call.shape, item, work.merged);
    else write_tile(call, rows, item, work.merged);
  }
  if (plan.merges.empty()) return;
  member.barrier();
  const int stride = 16 + call.shape.padded_dim();
  for (int64_t m = member.begin(plan.merges.size()); m < member.end(plan.merges.size()); m++) {
    const auto [first, last] = plan.merges[m];
    for (int i = first; i < last; i++)
      for (int r = 0; r < plan.items[i].count; r++) {
        const float* part = plan.items[i].partial + r * stride;
        merge_row(work.merged, part[0], part[1], part + 16, r, call.shape.padded_dim(), i == first);
      }
    write_tile(call, rows, plan.items[first], work.merged);
  }
}

}  // namespace tgi

// What the algorithms of attention share: the scratch of one tile, and the order in which the cache is read.
#pragma once
#include <algorithm>

#include "attention/attention.h"
#include "linear.h"
#include "simd/simd.h"

namespace tgi {

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
  const float* biases[kMaxRows];  // at distance 0
  State piece, merged;
};

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

  // The values are the keys, and lie nowhere else.
  bool shared() const { return values_ == nullptr; }

  const uint8_t* key(int block) const { return key_of(piece_, block); }
  const uint8_t* value(int block) const {
    return values_ + (piece_.table[block] * kv_heads_ + piece_.kv_head) * value_record_;
  }
  // The scales of a block's values in an int8 cache that has values.
  const float* scales(int block) const {
    return reinterpret_cast<const float*>(value(block) + value_record_ - kBlock * 4);
  }
  const uint8_t* after_key(int block) const {
    const int later = block + kBlocksAhead;
    if (later < piece_.blocks) return key(later);
    return shared() ? key_of_next(later) : value(std::min(later - piece_.blocks, piece_.blocks - 1));
  }
  const uint8_t* after_value(int block) const {
    const int later = block + kBlocksAhead;
    return later < piece_.blocks ? value(later) : key_of_next(later);
  }

 private:
  static constexpr int kBlocksAhead = 3;

  const uint8_t* key_of_next(int later) const {
    return key_of(next_, std::min(later - piece_.blocks, next_.blocks - 1));
  }

  const uint8_t* key_of(const Piece& piece, int block) const {
    return keys_ + (piece.table[block] * kv_heads_ + piece.kv_head) * key_record_;
  }

  const uint8_t* keys_;
  const uint8_t* values_;
  const int64_t kv_heads_;
  const size_t key_record_, value_record_;
  const Piece piece_, next_;
};

}  // namespace tgi

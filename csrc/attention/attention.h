// Attention over the paged cache: causal, or to all keys of a sequence.
//
// Keys are taken in pieces of 256, cut at multiples of 256 positions: scores, softmax and weighted values of
// a piece, then the pieces merged in order. So a row's arithmetic depends on its own position alone, not on
// the rows computed with it, on chunks, on what was in the cache before, or on how pieces are spread over threads.
#pragma once
#include <vector>

#include "cache.h"
#include "pool.h"

namespace tgi {

constexpr int kPiece = 256;

// The rows of a step (or a slice of one), and where their sequences lie in the cache.
struct StepRows {
  int sequences;
  const int64_t* starts;     // [sequences + 1] first row of each sequence, counted as `positions` is
  const int64_t* positions;  // [rows]
  const int64_t* tables;     // [sequences][width] blocks
  int64_t width;
  const int64_t* lengths;    // [sequences] keys that every row of a sequence sees; nullptr: those up to its own position
};

// Which of the keys up to its own a row sees: the last `window`, those from a multiple of `chunk` on, or all.
struct Span {
  int window = 0, chunk = 0;  // 0: none

  int first(int position) const {
    if (chunk) return position / chunk * chunk;
    return window && position >= window ? position - window + 1 : 0;
  }
};

// A tile of queries that share a KV head, over pieces [begin, end) of their keys.
struct AttentionItem {
  int sequence;
  int kv_head;
  int first, count;  // queries of the tile: query q is row q / group of the sequence, head q % group of the KV head
  int begin, end;    // pieces
  float* partial;    // where a split tile leaves its part; nullptr: write the result
};

struct AttentionPlan {
  Span span;
  std::vector<AttentionItem> items;
  std::vector<int> shares;               // items of each member: shares[m] .. shares[m + 1]
  std::vector<std::pair<int, int>> merges;  // ranges of items that are the pieces of one tile
  std::vector<float> partials;
};

// Numbers in a partial result of `count` rows.
inline size_t partial_floats(const CacheShape& shape, int count) { return size_t(count) * (16 + shape.padded_dim()); }

struct AttentionCall {
  CacheShape shape;
  int heads;
  float scale;
  float soft_cap;       // 0: none
  const float* slopes;  // ALiBi [heads], nullptr: none
  const float* sinks;   // scores without a value [heads], nullptr: none
  const float* bias;    // [heads][2 * furthest + 1] by distance, nullptr: none
  int furthest;
  const uint8_t* keys;  // of the layer
  const uint8_t* values;  // nullptr: the keys are the values too
  const float* queries;  // row r, head h at r * query_stride + h * head_dim
  size_t query_stride;
  float* out;  // the same with out_stride
  size_t out_stride;
};

// Cuts rows into tiles and, where tiles are few, tiles into pieces; spreads them over `members` by their cost.
void plan_attention(const StepRows& rows, int heads, const CacheShape& shape, const Span& span, int members,
                    AttentionPlan& plan);

// This member's share. All members must call it; it contains a barrier if tiles were split.
void attend(const AttentionCall& call, const StepRows& rows, const AttentionPlan& plan, const Member& member);

}  // namespace tgi

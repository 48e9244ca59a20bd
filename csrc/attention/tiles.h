// Scores and weighted values over a bfloat16 cache in tiles of AMX, for any number of rows.
#pragma once
#include "attention/work.h"
#include "simd/amx_attention.h"

namespace tgi {

#if defined(__AMX_BF16__)
constexpr bool kTiles = true;

// As score_piece.
inline void score_piece_in_tiles(const CacheShape& shape, Work& work, const Reads& reads, int begin, int end) {
  const int pairs = (shape.head_dim + 1) / 2;
  written(work.half_queries);
  for (int key = begin; key < end;) {
    const int block = key / kBlock, half = key % kBlock / kLanes;
    const uint8_t* after = reads.after_key(block) + half * reads.key_panel;
    const uint8_t* panel = reads.key(block) + half * reads.key_panel;
    const bool two = half == 0 && key + kLanes < end;
    amx_score(work.half_queries[0], sizeof(work.half_queries[0]), panel, two ? reads.key_panel : 0, two, pairs, after,
              &work.scores[0][key], sizeof(work.scores[0]));
    key += two ? 2 * kLanes : kLanes;
  }
}

// As weigh_piece, on probabilities rounded to bfloat16. Blocks are taken whole from their first position on, so that
// sums are cut at the same positions whatever the window; what lies before `begin` has no weight.
inline void weigh_piece_in_tiles(const CacheShape& shape, Work& work, int rows, const Reads& reads, int begin, int seen) {
  const int first = begin / kBlock * kBlock;
  for (int r = 0; r < rows; r++)
    for (int key = first; key < begin; key += kLanes) store_halves(&work.half_weights[r][key], zero());
  written(work.half_weights);
  constexpr size_t kStride = sizeof(work.half_weights[0]);
  const int panels = shape.padded_dim() / kLanes;
  for (int panel = 0; panel < panels; panel += 2) {
    const bool two = panel + 1 < panels;
    const size_t other = two ? reads.value_panel : 0, offset = panel * reads.value_panel;
    amx_weigh_begin();
    for (int key = first; key < seen; key += kBlock) {
      const uint8_t* at = reads.value(key / kBlock) + offset;
      if (key + kBlock <= seen)
        amx_weigh(work.half_weights[0] + key, kStride, at, other, reads.after_value(key / kBlock) + offset);
      else amx_weigh_left(work.half_weights[0] + key, kStride, at, other);
    }
    amx_weigh_end(&work.piece.values[0][panel * kLanes], sizeof(work.piece.values[0]), two);
  }
}
#else
constexpr bool kTiles = false;
#endif

}  // namespace tgi

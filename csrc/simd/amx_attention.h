// The products of attention over a bfloat16 cache in tiles of AMX: one half block of keys, or one block of values, at a time.
//
// Tiles 0 and 1 hold sums; 2 and 3 rows and columns of 32 values of k; 4 and 5 of what is left of the head's dimensions,
// 6 and 7 of what is left of the last block's positions, both in pairs.
#pragma once
#if defined(__AMX_BF16__)
#include "simd/amx.h"

namespace tgi {

class AttentionTiles {
 public:
  // dimensions, positions: the pairs that are left of the head's dimensions and of the last block's positions.
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

static inline void prefetch_tile(const uint8_t* p) {
  for (int line = 0; line < 1024; line += 64) prefetch_far(p + line);
}

// scores [rows][16] = queries times the keys of a panel, and with `two` the next 16 scores those of the panel `other` bytes
// on, over `pairs` pairs of dimensions. Strides in bytes. after: the panel that is fetched meanwhile.
static inline void amx_score(const uint16_t* queries, size_t stride, const uint8_t* panel, size_t other, bool two, int pairs,
                             const uint8_t* after, float* scores, size_t score_stride) {
  const int whole = pairs / 16;
  _tile_zero(0);
  _tile_zero(1);
  for (int c = 0; c < whole; c++) {
    _tile_loadd(2, queries + c * kAmxHalves, stride);
    _tile_loadd(3, panel + c * 1024, 64);
    _tile_dpbf16ps(0, 2, 3);
    prefetch_tile(after + c * 1024);
    if (!two) continue;
    _tile_loadd(3, panel + other + c * 1024, 64);
    _tile_dpbf16ps(1, 2, 3);
    prefetch_tile(after + other + c * 1024);
  }
  if (pairs % 16) {
    _tile_loadd(4, queries + whole * kAmxHalves, stride);
    _tile_loadd(5, panel + whole * 1024, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (two) {
      _tile_loadd(5, panel + other + whole * 1024, 64);
      _tile_dpbf16ps(1, 4, 5);
    }
  }
  _tile_stored(0, scores, score_stride);
  if (two) _tile_stored(1, scores + kLanes, score_stride);
}

static inline void amx_weigh_begin() {
  _tile_zero(0);
  _tile_zero(1);
}

// Adds weights times the values of a block: of the panel `at` and of the one `other` bytes on.
static inline void amx_weigh(const uint16_t* weights, size_t stride, const uint8_t* at, size_t other, const uint8_t* after) {
  _tile_loadd(2, weights, stride);
  _tile_loadd(3, at, 64);
  _tile_dpbf16ps(0, 2, 3);
  prefetch_tile(after);
  _tile_loadd(3, at + other, 64);
  _tile_dpbf16ps(1, 2, 3);
  prefetch_tile(after + other);
}

// The same for a block of which not all positions are there.
static inline void amx_weigh_left(const uint16_t* weights, size_t stride, const uint8_t* at, size_t other) {
  _tile_loadd(6, weights, stride);
  _tile_loadd(7, at, 64);
  _tile_dpbf16ps(0, 6, 7);
  _tile_loadd(7, at + other, 64);
  _tile_dpbf16ps(1, 6, 7);
}

static inline void amx_weigh_end(float* values, size_t stride, bool two) {
  _tile_stored(0, values, stride);
  if (two) _tile_stored(1, values + kLanes, stride);
}

}  // namespace tgi
#endif

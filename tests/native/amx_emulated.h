// The tile instructions of AMX in plain C++, by Intel's description of them, for processors that have none: to be included
// before any other source (compilers: -include). Shapes that do not fit each other trap, as they do in the processor.
#pragma once
#if defined(__AMX_TILE__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace amx_emulated {

struct Config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

inline thread_local Config config;
inline thread_local uint8_t tiles[8][16][64];

inline void load_config(const void* from) {
  memcpy(&config, from, sizeof(config));
  memset(tiles, 0, sizeof(tiles));
}

inline void load(int tile, const void* from, size_t stride) {
  memset(tiles[tile], 0, sizeof(tiles[tile]));
  for (int r = 0; r < config.rows[tile]; r++)
    memcpy(tiles[tile][r], static_cast<const uint8_t*>(from) + r * stride, config.row_bytes[tile]);
}

inline void store(int tile, void* to, size_t stride) {
  for (int r = 0; r < config.rows[tile]; r++)
    memcpy(static_cast<uint8_t*>(to) + r * stride, tiles[tile][r], config.row_bytes[tile]);
}

inline void zero(int tile) { memset(tiles[tile], 0, sizeof(tiles[tile])); }

// sums[m][n] += product(four bytes of row m of a, four of column n of b), over their rows
template <class Sum, class Product>
void multiply(int sums, int a, int b, const Product& product) {
  if (config.rows[sums] != config.rows[a] || config.row_bytes[a] != 4 * config.rows[b] ||
      config.row_bytes[sums] != config.row_bytes[b])
    __builtin_trap();
  for (int m = 0; m < config.rows[sums]; m++)
    for (int n = 0; n < config.row_bytes[sums] / 4; n++) {
      Sum sum;
      memcpy(&sum, &tiles[sums][m][4 * n], 4);
      for (int k = 0; k < config.rows[b]; k++) sum += product(&tiles[a][m][4 * k], &tiles[b][k][4 * n]);
      memcpy(&tiles[sums][m][4 * n], &sum, 4);
    }
}

inline void dot_signed_unsigned(int sums, int a, int b) {
  multiply<int32_t>(sums, a, b, [](const uint8_t* x, const uint8_t* y) {
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) sum += static_cast<int8_t>(x[i]) * y[i];
    return sum;
  });
}

inline float bfloat16_at(const uint8_t* p) {
  const uint32_t bits = (p[0] | static_cast<uint32_t>(p[1]) << 8) << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

inline void dot_bfloat16(int sums, int a, int b) {
  multiply<float>(sums, a, b, [](const uint8_t* x, const uint8_t* y) {
    return bfloat16_at(x) * bfloat16_at(y) + bfloat16_at(x + 2) * bfloat16_at(y + 2);
  });
}

}  // namespace amx_emulated

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_loadconfig(from) amx_emulated::load_config(from)
#define _tile_loadd(tile, from, stride) amx_emulated::load(tile, from, stride)
#define _tile_stored(tile, to, stride) amx_emulated::store(tile, to, stride)
#define _tile_zero(tile) amx_emulated::zero(tile)
#define _tile_dpbsud(sums, a, b) amx_emulated::dot_signed_unsigned(sums, a, b)
#define _tile_dpbf16ps(sums, a, b) amx_emulated::dot_bfloat16(sums, a, b)
#define _tile_release() static_cast<void>(0)
#endif

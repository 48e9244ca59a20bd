// Sixteen lanes with the compiler's own vectors: any processor GCC or Clang know, at that processor's width.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace tgi {

constexpr int kMaxRows = 2;

typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(64)));
using Weights4 = Bytes;
using Activations4 = int32_t;

static inline F zero() { return F{}; }
static inline F set(float x) { return F{} + x; }
static inline F load(const float* p) { F x; __builtin_memcpy(&x, p, 64); return x; }
static inline void store(float* p, F x) { __builtin_memcpy(p, &x, 64); }
static inline F load_part(const float* p, int n) { F x{}; if (n > 0) __builtin_memcpy(&x, p, 4 * n); return x; }
static inline void store_part(float* p, F x, int n) { if (n > 0) __builtin_memcpy(p, &x, 4 * n); }
static inline F add(F a, F b) { return a + b; }
static inline F sub(F a, F b) { return a - b; }
static inline F mul(F a, F b) { return a * b; }
static inline F div(F a, F b) { return a / b; }
static inline F fma(F a, F b, F c) { return a * b + c; }  // built with -ffp-contract=off: the same bits everywhere
static inline F choose(I mask, F yes, F no) { return (F)(((I)yes & mask) | ((I)no & ~mask)); }
static inline F max(F a, F b) { return choose(a > b, a, b); }
static inline F min(F a, F b) { return choose(a < b, a, b); }
static inline F abs(F a) { return (F)((I)a & 0x7fffffff); }
static inline F round(F a) { F r; for (int i = 0; i < 16; i++) r[i] = nearbyintf(a[i]); return r; }
static inline F pow2(F n) { return (F)((__builtin_convertvector(n, I) + 127) << 23); }
static inline F if_less(F a, F b, F yes, F no) { return choose(a < b, yes, no); }
static inline float sum(F a) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) a[i] += a[i + width];
  return a[0];
}
static inline float largest(F a) {
  float r = a[0];
  for (int i = 1; i < 16; i++) r = a[i] > r ? a[i] : r;
  return r;
}

template <int S>
static inline F swap_lanes(F a) { F r; for (int i = 0; i < 16; i++) r[i] = a[i ^ S]; return r; }

static inline I iset(int x) { return I{} + x; }
static inline I imul(I a, I b) { return a * b; }
static inline I iadd(I a, I b) { return a + b; }
static inline I imax(I a, I b) { const I more = a > b; return (a & more) | (b & ~more); }
static inline I imin(I a, I b) { const I more = a > b; return (b & more) | (a & ~more); }
static inline int isum(I a) { int r = 0; for (int i = 0; i < 16; i++) r += a[i]; return r; }
static inline int ilargest(I a) { int r = a[0]; for (int i = 1; i < 16; i++) r = a[i] > r ? a[i] : r; return r; }
template <int N>
static inline I shift_right(I a) { return a >> N; }
static inline I shift_right_by(I a, int n) { return a >> n; }
static inline I ixor(I a, I b) { return a ^ b; }
static inline F to_float(I a) { return __builtin_convertvector(a, F); }
static inline I to_int(F a) { I r; for (int i = 0; i < 16; i++) r[i] = a[i] == a[i] ? (int)nearbyintf(a[i]) : 0; return r; }
static inline F bits_as_float(I a) { return (F)a; }
static inline I float_bits(F a) { return (I)a; }
static inline I iand(I a, int mask) { return a & mask; }
static inline I load_int(const void* p) { I x; __builtin_memcpy(&x, p, 64); return x; }

static inline I load_s8(const void* p) {
  I x;
  for (int i = 0; i < 16; i++) x[i] = static_cast<const int8_t*>(p)[i];
  return x;
}
static inline Bytes load_bytes(const void* p) { Bytes x; __builtin_memcpy(&x, p, 64); return x; }
static inline F even_bf16(Bytes b) { return (F)((I)b << 16); }
static inline F odd_bf16(Bytes b) { return (F)((I)b & (int32_t)0xffff0000); }
static inline float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
static inline F load_f16(const void* p) {
  F x;
  for (int i = 0; i < 16; i++) x[i] = half_to_float(((const uint16_t*)p)[i]);
  return x;
}
static inline F load_e5m2(const void* p) {
  F x;
  for (int i = 0; i < 16; i++) x[i] = half_to_float((uint16_t)(((const uint8_t*)p)[i] << 8));
  return x;
}
static inline F load_e4m3(const void* p) {
  F x;
  for (int i = 0; i < 16; i++) {
    const int moved = (int)((const int8_t*)p)[i] * 128;
    const bool none = (moved & kE4m3Highest) == kE4m3Highest;
    x[i] = half_to_float((uint16_t)((moved & kE4m3Bits) | (none ? kNoF16 : 0))) * kE4m3Unit;
  }
  return x;
}
static inline Bytes low_nibbles(Bytes b) { return b & 15; }
static inline Bytes high_nibbles(Bytes b) { return b >> 4; }
static inline Bytes raised_nibbles(Bytes b) { return b << 4; }
static inline bool any_without(Bytes b, int bits) {
  for (int i = 0; i < 64; i++)
    if (!(b[i] & bits)) return true;
  return false;
}
static inline Bytes bits_and(Bytes a, Bytes b) { return a & b; }
static inline Bytes bits_xor(Bytes a, Bytes b) { return a ^ b; }
template <int Left, int Mask>
static inline Bytes moved_bits(Bytes b) {
  const Bytes moved = Left > 0 ? b << (Left > 0 ? Left : 0) : b >> (Left > 0 ? 0 : -Left);
  return moved & (uint8_t)Mask;
}
static inline Bytes load_spread(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  I words;
  for (int i = 0; i < 16; i++) words[i] = bytes[2 * i] | bytes[2 * i + 1] << 8;
  return (Bytes)(words | words << 18);
}

using Table = const uint8_t*;
static inline Table load_table(const void* p) { return static_cast<const uint8_t*>(p); }
static inline Bytes look_up(Table table, Bytes b) {
  for (int i = 0; i < 64; i++) b[i] = table[b[i]];
  return b;
}
static inline Bytes zip_from(Bytes a, Bytes b, int begin) {
  Bytes zipped;
  for (int i = 0; i < 32; i++) {
    zipped[2 * i] = a[i / 8 * 16 + begin + i % 8];
    zipped[2 * i + 1] = b[i / 8 * 16 + begin + i % 8];
  }
  return zipped;
}
static inline Bytes zip_first(Bytes a, Bytes b) { return zip_from(a, b, 0); }
static inline Bytes zip_second(Bytes a, Bytes b) { return zip_from(a, b, 8); }
static inline void store_bytes(void* p, Bytes b) { __builtin_memcpy(p, &b, 64); }

static inline void interleave_rows(const uint8_t* from, size_t stride, uint8_t* to) {
  for (int word = 0; word < 4; word++)
    for (int r = 0; r < kMaxRows; r++) memcpy(to + 4 * (word * kMaxRows + r), from + r * stride + 4 * word, 4);
}

template <int J>
static inline F byte_of(Bytes b) { return to_float((I)b >> (8 * J) & 255); }

static inline Weights4 split(Bytes b) { return b; }
static inline Activations4 broadcast4(const void* p) { int32_t word; __builtin_memcpy(&word, p, 4); return word; }
static inline I dot4(I sum, Weights4 w, Activations4 a) {
  int8_t parts[4];
  __builtin_memcpy(parts, &a, 4);
  for (int i = 0; i < 4; i++) sum += (((I)w >> (8 * i)) & 255) * (int32_t)parts[i];
  return sum;
}

static inline void store_s8(void* p, I x) {
  for (int i = 0; i < 16; i++) ((int8_t*)p)[i] = (int8_t)x[i];
}

}  // namespace tgi

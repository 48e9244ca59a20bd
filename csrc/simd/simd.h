// Vectors of sixteen lanes, whatever the registers of the machine: the only place where kernels meet intrinsics.
//
// Every instruction-set level compiles all sources anew with its own flags into its own library; this file
// picks the vocabulary for the flags. The vocabulary:
//
//   F, I, Bytes            16 floats, 16 int32, 64 bytes
//   load_part, store_part  the first n lanes only (0 <= n <= 16); the others read as 0
//   even_bf16, odd_bf16    the lower and upper bfloat16 of each 32-bit lane
//   load_f16               16 float16, widened
//   load_e4m3, load_e5m2   16 floats of 8 bits, widened
//   byte_of<J>             byte J of each 32-bit lane as a float, unsigned
//   moved_bits<L, M>       of each byte the bits that are in mask M after a shift by L to the left, or -L to the right
//   load_spread            16 words of two bytes, spread: bits 2, 3, 6 and 7 of bytes 0 and 1 of a lane are those of its word,
//                          and of bytes 2 and 3 the word's bits 0, 1, 4 and 5; the other bits are anything
//   swap_lanes<S>          lane i gets lane i ^ S, S a power of two
//   look_up                for each of 64 bytes below 16 the byte of a table that it names
//   raised_nibbles         the lower four bits of each byte, in place of the upper ones
//   bits_and, bits_xor     of bytes
//   any_without            whether any byte has none of some bits
//   zip_first, zip_second  within each 16 bytes the first or the second eight of a, each followed by its byte of b
//   interleave_rows        kMaxRows rows of four words, `stride` bytes apart, to four times kMaxRows words
//   split, broadcast4      operands of dot4 in the form the machine wants them in
//   in_register            an operand of dot4 that several of them share
//   dot4                   for each lane: sum += four unsigned weight bytes times four signed activation bytes
//   if_less(a, b, x, y)    a < b ? x : y
//   sum, largest           over the lanes, in an order that is the same in every call
//   isum, ilargest         the same of integers; shift_right of those that are not negative, and
//                          shift_right_by a number that only running tells, of bits below the sign
//   to_int                 the nearest integer, ties to even; any integer for NaN
//   load_s8, store_s8      16 integers from -128 to 127
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace tgi {
// Of e4m3 as float16: a sign, 4 bits of exponent, 3 of mantissa, 7 zeros make a number that is 256 times too small, since the
// two count exponents from 7 and from 15. The exponent and mantissa that mean not-a-number, and those of float16.
constexpr uint16_t kE4m3Bits = 0xbf80;
constexpr int16_t kE4m3Highest = 0x3f80, kNoF16 = 0x7e00;
constexpr float kE4m3Unit = 256.0f;
}  // namespace tgi

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "simd/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd/simd_avx2.h"
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(TGI_PORTABLE)
#include "simd/simd_neon.h"
#else
#include "simd/simd_portable.h"
#endif

// Where one operation multiplies pairs of bfloat16, activations of bfloat16 layers and what attention multiplies with a
// bfloat16 cache are rounded to it: in tiles of AMX, or by dot2.
#if defined(__AMX_BF16__) || defined(__AVX512BF16__)
#define TGI_HALVES 1
#endif

namespace tgi {

constexpr int kLanes = 16;

#if !defined(__AVX512VNNI__)
static inline Activations4 in_register(Activations4 a) { return a; }
#endif

// Into the first-level cache, and into the second: more reads can be on their way to that one.
static inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
static inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

// The bits of |x|. They compare as numbers do, and NaN is larger than infinity, so that none is lost on the
// way to the largest.
static inline I magnitude(F x) { return iand(float_bits(x), 0x7fffffff); }
static inline float as_float(int bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// The step between codes when `peak` gets the code `most`, and what numbers are multiplied with for their codes. The step
// is NaN where a value is not finite, so that the row shows it; very small values count as zero.
static inline float step(float peak, float most) { return peak / most + peak * 0.0f; }
static inline float inverse_step(float peak, float most) { return peak > 1e-30f && peak < INFINITY ? most / peak : 0.0f; }

// What a dot product of codes, whose sum this is, begins with where all weights have this zero point.
static inline int32_t offset_of(int sum, int zero_point) { return (int32_t)(0u - (uint32_t)sum * (uint32_t)zero_point); }

// e^x with a relative error of about 2e-7; 0 below -87, so that masked scores vanish exactly.
static inline F exp(F x) {
  const F clamped = min(max(x, set(-87.0f)), set(88.0f));
  const F n = round(mul(clamped, set(1.44269504f)));
  F r = fma(n, set(-0.693359375f), clamped);
  r = fma(n, set(2.12194440e-4f), r);
  F p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), set(1.0f));
  return if_less(x, set(-87.0f), zero(), mul(p, pow2(n)));
}

static inline F sigmoid(F x) { return div(set(1.0f), add(set(1.0f), exp(sub(zero(), x)))); }

// Absolute error about 1e-7.
static inline F tanh(F x) { return sub(set(1.0f), div(set(2.0f), add(exp(add(x, x)), set(1.0f)))); }

// Abramowitz and Stegun 7.1.26, absolute error below 2e-7.
static inline F erf(F x) {
  const F a = abs(x);
  const F t = div(set(1.0f), fma(set(0.3275911f), a, set(1.0f)));
  F p = set(1.061405429f);
  p = fma(p, t, set(-1.453152027f));
  p = fma(p, t, set(1.421413741f));
  p = fma(p, t, set(-0.284496736f));
  p = fma(p, t, set(0.254829592f));
  const F y = sub(set(1.0f), mul(mul(p, t), exp(sub(zero(), mul(a, a)))));
  return if_less(x, zero(), sub(zero(), y), y);
}

}  // namespace tgi

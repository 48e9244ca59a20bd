// Element types other than float32: reading and writing single values.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tgi.h"

namespace tgi {

static inline float bfloat16_to_float(uint16_t h) {
  const uint32_t bits = (uint32_t)h << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// To nearest, ties to even; not-a-number stays one.
static inline uint16_t float_to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float float16_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 0) return (sign ? -0x1p-24f : 0x1p-24f) * (float)mantissa;
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// To nearest, ties to even; from 65520 on infinite.
static inline uint16_t float_to_float16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)nearbyintf(fabsf(x) * 0x1p24f));  // subnormal
  return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

// To nearest, ties to even, of a float with `Mantissa` bits of mantissa whose exponents begin at 1 - Bias; what is larger than
// the `Largest` code becomes that, not-a-number the code of all ones.
template <int Mantissa, int Bias, int Largest>
static inline uint8_t float_to_byte(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 24 & 128, magnitude = bits & 0x7fffffff;
  constexpr int kShift = 23 - Mantissa;
  constexpr uint32_t kLeast = (uint32_t)(128 - Bias) << 23, kMost = kLeast + ((uint32_t)(Largest - (1 << Mantissa)) << kShift);
  if (magnitude > 0x7f800000) return (uint8_t)(sign | 127);
  if (magnitude >= kMost) return (uint8_t)(sign | Largest);
  if (magnitude < kLeast) return (uint8_t)(sign | (uint32_t)nearbyintf(ldexpf(fabsf(x), Bias - 1 + Mantissa)));  // subnormal
  const uint32_t above = magnitude - kLeast, half = (1u << (kShift - 1)) - 1 + (above >> kShift & 1);
  return (uint8_t)(sign | ((1u << Mantissa) + ((above + half) >> kShift)));
}
static inline uint8_t float_to_e4m3(float x) { return float_to_byte<3, 7, 0x7e>(x); }
static inline uint8_t float_to_e5m2(float x) { return float_to_byte<2, 15, 0x7b>(x); }

static inline float read_element(const void* p, int type, int64_t index) {
  if (type == TGI_FLOAT32) return static_cast<const float*>(p)[index];
  const uint16_t half = static_cast<const uint16_t*>(p)[index];
  return type == TGI_BFLOAT16 ? bfloat16_to_float(half) : float16_to_float(half);
}

}  // namespace tgi

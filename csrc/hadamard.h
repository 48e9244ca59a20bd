// The rotation of a row: an orthonormal Walsh-Hadamard transform of each block of 128 columns.
//
// It spreads the few large channels of a model over their block, so that neither their neighbours in a group of codes nor
// they themselves round badly. Weights are rotated while they are packed and activations before they are rounded; the
// product stays the same. What follows the last whole block is cut into powers of two, largest first, each of which is
// transformed alone. The transform is its own inverse, and a row's result depends on nothing but that row.
#pragma once
#include "simd/simd.h"

namespace tgi {

constexpr int kRotation = 128;

// 1 / sqrt(length) of a power of two up to 128.
constexpr float rotation_factor(int length) {
  float factor = 1.0f;
  for (; length >= 4; length /= 4) factor *= 0.5f;
  return length == 2 ? factor * 0.70710678118654752f : factor;
}

alignas(64) constexpr float kRotationSigns[4][kLanes] = {{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
                                                         {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
                                                         {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
                                                         {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};

// One stage over vectors that are a power of two apart.
template <int N>
static inline void rotate_across(F (&x)[N]) {
#pragma GCC unroll 3
  for (int apart = 1; apart < N; apart *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      if (i & apart) continue;
      const F a = x[i], b = x[i + apart];
      x[i] = add(a, b);
      x[i + apart] = sub(a, b);
    }
  }
}

// 16 N values.
template <int N>
static inline void load_rotated(const float* x, F (&v)[N]) {
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    F lanes = load(x + i * kLanes);
    lanes = fma(lanes, load(kRotationSigns[0]), swap_lanes<1>(lanes));
    lanes = fma(lanes, load(kRotationSigns[1]), swap_lanes<2>(lanes));
    lanes = fma(lanes, load(kRotationSigns[2]), swap_lanes<4>(lanes));
    v[i] = fma(lanes, load(kRotationSigns[3]), swap_lanes<8>(lanes));
  }
  rotate_across(v);
  constexpr float kFactor = rotation_factor(kLanes * N);
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) v[i] = mul(v[i], set(kFactor));
}

// The same in place.
template <int N>
static inline void rotate_vectors(float* x) {
  F v[N];
  load_rotated(x, v);
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) store(x + i * kLanes, v[i]);
}

// The largest power of two of at most `count` values, up to a whole block.
static inline int rotation_length(int count) {
  int length = kRotation;
  while (length > count) length /= 2;
  return length;
}

static inline void rotate_few(float* x, int length) {
  for (int apart = 1; apart < length; apart *= 2)
    for (int i = 0; i < length; i++)
      if (!(i & apart)) {
        const float a = x[i], b = x[i + apart];
        x[i] = a + b;
        x[i + apart] = a - b;
      }
  for (int i = 0; i < length; i++) x[i] *= rotation_factor(length);
}

// x [count] in place.
static inline void rotate_row(float* x, int count) {
  for (int length; count > 0; x += length, count -= length) {
    length = rotation_length(count);
    switch (length) {
      case 128: rotate_vectors<8>(x); break;
      case 64: rotate_vectors<4>(x); break;
      case 32: rotate_vectors<2>(x); break;
      case 16: rotate_vectors<1>(x); break;
      default: rotate_few(x, length);
    }
  }
}

// The same of 16 rows at once, x [count][16].
static inline void rotate_lanes(float* x, int count) {
  for (int length; count > 0; x += length * kLanes, count -= length) {
    length = rotation_length(count);
    for (int apart = 1; apart < length; apart *= 2)
      for (int i = 0; i < length; i++) {
        if (i & apart) continue;
        float *first = x + i * kLanes, *second = first + apart * kLanes;
        const F a = load(first), b = load(second);
        store(first, add(a, b));
        store(second, sub(a, b));
      }
    const F factor = set(rotation_factor(length));
    for (int i = 0; i < length; i++) store(x + i * kLanes, mul(load(x + i * kLanes), factor));
  }
}

}  // namespace tgi

// Activations as codes of 8 bits: the steps that every way of rounding them shares.
#pragma once
#include <algorithm>

#include "simd/simd.h"

namespace tgi {

// Values k to k + 15 of x [count], zeros past its end.
static inline F values_at(const float* x, int k, int count) {
  const int left = count - k;
  return left >= kLanes ? load(x + k) : left > 0 ? load_part(x + k, left) : zero();
}

// Rounds values [begin, end) of x [count] to codes; their sum.
static inline int round_to_codes(const float* x, int count, int begin, int end, F inverse, uint8_t* codes) {
  I sum = iset(0);
  for (int k = begin; k < end; k += kLanes) {
    const I code = to_int(mul(values_at(x, k, count), inverse));
    sum = iadd(sum, code);
    store_s8(codes + k, code);
  }
  return isum(sum);
}

}  // namespace tgi

// Sixteen lanes on AVX-512 (F, BW, DQ, VL, VNNI): one register each. See simd.h for the meaning of the names.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace tgi {

constexpr int kMaxRows = 16;  // rows of an activation tile: 16 accumulators leave 16 registers for the rest

using F = __m512;
using I = __m512i;
using Bytes = __m512i;
using Weights4 = __m512i;
using Activations4 = const int32_t*;  // the instruction broadcasts from memory

static inline F zero() { return _mm512_setzero_ps(); }
static inline F set(float x) { return _mm512_set1_ps(x); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void store_part(float* p, F x, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F abs(F a) { return _mm512_abs_ps(a); }
static inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F pow2(F n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }
static inline F if_less(F a, F b, F yes, F no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
static inline float sum(F a) { return _mm512_reduce_add_ps(a); }
static inline float largest(F a) { return _mm512_reduce_max_ps(a); }

template <int S>
static inline F swap_lanes(F a) {
  if constexpr (S == 1) return _mm512_permute_ps(a, 0xb1);
  if constexpr (S == 2) return _mm512_permute_ps(a, 0x4e);
  if constexpr (S == 4) return _mm512_shuffle_f32x4(a, a, 0xb1);
  return _mm512_shuffle_f32x4(a, a, 0x4e);
}

static inline I iset(int x) { return _mm512_set1_epi32(x); }
static inline I imul(I a, I b) { return _mm512_mullo_epi32(a, b); }
static inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I imax(I a, I b) { return _mm512_max_epi32(a, b); }
static inline I imin(I a, I b) { return _mm512_min_epi32(a, b); }
static inline int isum(I a) { return _mm512_reduce_add_epi32(a); }
static inline int ilargest(I a) { return _mm512_reduce_max_epi32(a); }
template <int N>
static inline I shift_right(I a) { return _mm512_srli_epi32(a, N); }
static inline I shift_right_by(I a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
static inline I ixor(I a, I b) { return _mm512_xor_si512(a, b); }
static inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
static inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
static inline F bits_as_float(I a) { return _mm512_castsi512_ps(a); }
static inline I float_bits(F a) { return _mm512_castps_si512(a); }
static inline I iand(I a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
static inline I load_int(const void* p) { return _mm512_loadu_si512(p); }

static inline I load_s8(const void* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }

static inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
static inline F even_bf16(Bytes b) { return _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)); }
static inline F odd_bf16(Bytes b) { return _mm512_castsi512_ps(_mm512_and_si512(b, _mm512_set1_epi32(0xffff0000))); }
static inline F load_f16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline F load_e5m2(const void* p) {
  return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)), 8));
}
static inline F load_e4m3(const void* p) {
  const __m256i moved = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)), 7);
  const __m256i highest = _mm256_set1_epi16(kE4m3Highest);
  const __m256i none = _mm256_cmpeq_epi16(_mm256_and_si256(moved, highest), highest);
  const __m256i halves = _mm256_and_si256(moved, _mm256_set1_epi16((short)kE4m3Bits));
  const F small = _mm512_cvtph_ps(_mm256_or_si256(halves, _mm256_and_si256(none, _mm256_set1_epi16(kNoF16))));
  return mul(small, set(kE4m3Unit));
}
static inline Bytes low_nibbles(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
static inline Bytes high_nibbles(Bytes b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }
static inline Bytes raised_nibbles(Bytes b) { return _mm512_and_si512(_mm512_slli_epi16(b, 4), _mm512_set1_epi8((char)0xf0)); }
static inline bool any_without(Bytes b, int bits) { return _mm512_testn_epi8_mask(b, _mm512_set1_epi8((char)bits)) != 0; }
static inline Bytes bits_and(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
static inline Bytes bits_xor(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
template <int Left, int Mask>
static inline Bytes moved_bits(Bytes b) {
  const Bytes moved = Left > 0 ? _mm512_slli_epi16(b, Left > 0 ? Left : 0) : _mm512_srli_epi16(b, Left > 0 ? 0 : -Left);
  return _mm512_and_si512(moved, _mm512_set1_epi8(Mask));
}
static inline Bytes load_spread(const void* p) {
  const I words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return _mm512_or_si512(words, _mm512_slli_epi32(words, 18));
}

using Table = __m512i;  // four times the same
static inline Table load_table(const void* p) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)p)); }
static inline Bytes look_up(Table table, Bytes indices) { return _mm512_shuffle_epi8(table, indices); }
static inline Bytes zip_first(Bytes a, Bytes b) { return _mm512_unpacklo_epi8(a, b); }
static inline Bytes zip_second(Bytes a, Bytes b) { return _mm512_unpackhi_epi8(a, b); }
static inline void store_bytes(void* p, Bytes b) { _mm512_storeu_si512(p, b); }

static inline void interleave_rows(const uint8_t* from, size_t stride, uint8_t* to) {
  const auto row = [&](int r) { return _mm_loadu_si128((const __m128i*)(from + r * stride)); };
  const auto rows = [&](int r) {  // r, r + 4, r + 8, r + 12
    const __m512i two = _mm512_inserti32x4(_mm512_castsi128_si512(row(r)), row(r + 4), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, row(r + 8), 2), row(r + 12), 3);
  };
  const __m512i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
  const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
  _mm512_storeu_si512(to, _mm512_unpacklo_epi64(ab_low, cd_low));
  _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi64(ab_low, cd_low));
  _mm512_storeu_si512(to + 128, _mm512_unpacklo_epi64(ab_high, cd_high));
  _mm512_storeu_si512(to + 192, _mm512_unpackhi_epi64(ab_high, cd_high));
}

template <int J>
static inline F byte_of(Bytes b) {
  return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(b, 8 * J), _mm512_set1_epi32(255)));
}

static inline Weights4 split(Bytes b) { return b; }
static inline Activations4 broadcast4(const void* p) { return static_cast<const int32_t*>(p); }
// By hand, since compilers load the broadcast apart and copy the sum around: half the speed.
static inline I dot4(I sum, Weights4 w, Activations4 a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*a));
  return sum;
}
static inline I in_register(Activations4 a) { return _mm512_set1_epi32(*a); }
static inline I dot4(I sum, Weights4 w, I a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
  return sum;
}

static inline void store_s8(void* p, I x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x)); }

// Sixteen numbers to bfloat16, to nearest, ties to even; not-a-number stays one. (Where there is an instruction for it,
// numbers below 2^-126 become 0, as in dot2.)
static inline void store_halves(uint16_t* to, F x) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
#else
  const I bits = _mm512_castps_si512(x);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const I rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const I none = _mm512_or_si512(bits, _mm512_set1_epi32(64 << 16));
  const I chosen = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), rounded, none);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
#endif
}

#if defined(__AVX512BF16__)
// sum += two bfloat16 of each lane times a pair of activations, which is broadcast from memory
static inline F dot2(F sum, Bytes w, const uint16_t* pair) {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*reinterpret_cast<const int32_t*>(pair)));
  return sum;
}
static inline F dot2(F sum, Bytes w, Bytes pairs) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(pairs));
  return sum;
}
#endif

}  // namespace tgi

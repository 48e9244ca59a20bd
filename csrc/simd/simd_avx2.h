// Sixteen lanes on AVX2 + FMA + F16C: two registers each; the dot product with AVX-VNNI where compiled for it.
#pragma once
#include <immintrin.h>

namespace tgi {

constexpr int kMaxRows = 4;  // 4 rows x 16 columns are 8 of the 16 registers

struct F { __m256 lo, hi; };
struct I { __m256i lo, hi; };
using Bytes = I;
#ifdef __AVXVNNI__
using Weights4 = I;
using Activations4 = __m256i;
#else
struct Weights4 { I even, odd; };  // 16-bit numbers: bytes 0 and 2 of each lane, bytes 1 and 3
struct Activations4 { __m256i even, odd; };
#endif

static inline __m256i part_mask(int n) {  // the first n of 8 lanes
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, F x) { _mm256_storeu_ps(p, x.lo), _mm256_storeu_ps(p + 8, x.hi); }
static inline F load_part(const float* p, int n) {
  return {_mm256_maskload_ps(p, part_mask(n)), _mm256_maskload_ps(p + 8, part_mask(n - 8))};
}
static inline void store_part(float* p, F x, int n) {
  _mm256_maskstore_ps(p, part_mask(n), x.lo), _mm256_maskstore_ps(p + 8, part_mask(n - 8), x.hi);
}
static inline F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
static inline F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
static inline F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
static inline F abs(F a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
static inline F round(F a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
static inline __m256 pow2_half(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline F pow2(F n) { return {pow2_half(n.lo), pow2_half(n.hi)}; }
static inline F if_less(F a, F b, F yes, F no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
static inline float sum(F a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
static inline float largest(F a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

template <int S>
static inline __m256 swap_half(__m256 a) {
  return S == 1 ? _mm256_permute_ps(a, 0xb1) : S == 2 ? _mm256_permute_ps(a, 0x4e) : _mm256_permute2f128_ps(a, a, 1);
}
template <int S>
static inline F swap_lanes(F a) {
  if constexpr (S == 8) return {a.hi, a.lo};
  else return {swap_half<S>(a.lo), swap_half<S>(a.hi)};
}

static inline I iset(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline I imul(I a, I b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
static inline I iadd(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
static inline I imax(I a, I b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
static inline I imin(I a, I b) { return {_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)}; }
static inline int isum(I a) {
  const __m256i eight = _mm256_add_epi32(a.lo, a.hi);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
static inline int ilargest(I a) {
  const __m256i eight = _mm256_max_epi32(a.lo, a.hi);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
template <int N>
static inline I shift_right(I a) { return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)}; }
static inline I shift_right_by(I a, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(a.lo, count), _mm256_srl_epi32(a.hi, count)};
}
static inline I ixor(I a, I b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
static inline F to_float(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
static inline I to_int(F a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
static inline I float_bits(F a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
static inline F bits_as_float(I a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
static inline I iand(I a, int mask) {
  const __m256i m = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(a.lo, m), _mm256_and_si256(a.hi, m)};
}
static inline I load_int(const void* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}

static inline I load_s8(const void* p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}

static inline Bytes load_bytes(const void* p) { return load_int(p); }
static inline F even_bf16(Bytes b) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(b.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b.hi, 16))};
}
static inline F odd_bf16(Bytes b) { return bits_as_float(iand(b, (int)0xffff0000)); }
static inline F load_f16(const void* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1))};
}
static inline F widen_f16(__m256i halves) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
static inline F load_e5m2(const void* p) {
  return widen_f16(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)), 8));
}
static inline F load_e4m3(const void* p) {
  const __m256i moved = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)), 7);
  const __m256i highest = _mm256_set1_epi16(kE4m3Highest);
  const __m256i none = _mm256_cmpeq_epi16(_mm256_and_si256(moved, highest), highest);
  const __m256i halves = _mm256_and_si256(moved, _mm256_set1_epi16((short)kE4m3Bits));
  const F small = widen_f16(_mm256_or_si256(halves, _mm256_and_si256(none, _mm256_set1_epi16(kNoF16))));
  return mul(small, set(kE4m3Unit));
}
static inline Bytes low_nibbles(Bytes b) { return iand(b, 0x0f0f0f0f); }
static inline Bytes high_nibbles(Bytes b) {
  return iand({_mm256_srli_epi16(b.lo, 4), _mm256_srli_epi16(b.hi, 4)}, 0x0f0f0f0f);
}
static inline Bytes raised_nibbles(Bytes b) {
  return iand({_mm256_slli_epi16(b.lo, 4), _mm256_slli_epi16(b.hi, 4)}, (int)0xf0f0f0f0);
}
static inline bool any_without(Bytes b, int bits) {
  const auto none = [&](__m256i x) {
    return _mm256_cmpeq_epi8(_mm256_and_si256(x, _mm256_set1_epi8((char)bits)), _mm256_setzero_si256());
  };
  return _mm256_movemask_epi8(_mm256_or_si256(none(b.lo), none(b.hi))) != 0;
}
static inline Bytes bits_and(Bytes a, Bytes b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
static inline Bytes bits_xor(Bytes a, Bytes b) { return ixor(a, b); }
template <int Left, int Mask>
static inline Bytes moved_bits(Bytes b) {
  const auto moved = [](__m256i x) {
    return Left > 0 ? _mm256_slli_epi16(x, Left > 0 ? Left : 0) : _mm256_srli_epi16(x, Left > 0 ? 0 : -Left);
  };
  return iand({moved(b.lo), moved(b.hi)}, Mask * 0x01010101);
}
static inline Bytes load_spread(const void* p) {
  const auto spread = [](__m128i eight) {
    const __m256i words = _mm256_cvtepu16_epi32(eight);
    return _mm256_or_si256(words, _mm256_slli_epi32(words, 18));
  };
  return {spread(_mm_loadu_si128((const __m128i*)p)), spread(_mm_loadu_si128((const __m128i*)p + 1))};
}

using Table = __m256i;  // twice the same
static inline Table load_table(const void* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p)); }
static inline Bytes look_up(Table table, Bytes b) {
  return {_mm256_shuffle_epi8(table, b.lo), _mm256_shuffle_epi8(table, b.hi)};
}
static inline Bytes zip_first(Bytes a, Bytes b) {
  return {_mm256_unpacklo_epi8(a.lo, b.lo), _mm256_unpacklo_epi8(a.hi, b.hi)};
}
static inline Bytes zip_second(Bytes a, Bytes b) {
  return {_mm256_unpackhi_epi8(a.lo, b.lo), _mm256_unpackhi_epi8(a.hi, b.hi)};
}
static inline void store_bytes(void* p, Bytes b) {
  _mm256_storeu_si256((__m256i*)p, b.lo);
  _mm256_storeu_si256((__m256i*)p + 1, b.hi);
}

static inline void interleave_rows(const uint8_t* from, size_t stride, uint8_t* to) {
  const auto row = [&](int r) { return _mm_loadu_si128((const __m128i*)(from + r * stride)); };
  const __m128i ab_low = _mm_unpacklo_epi32(row(0), row(1)), ab_high = _mm_unpackhi_epi32(row(0), row(1));
  const __m128i cd_low = _mm_unpacklo_epi32(row(2), row(3)), cd_high = _mm_unpackhi_epi32(row(2), row(3));
  const auto put = [&](int word, __m128i four) { _mm_storeu_si128((__m128i*)(to + 16 * word), four); };
  put(0, _mm_unpacklo_epi64(ab_low, cd_low)), put(1, _mm_unpackhi_epi64(ab_low, cd_low));
  put(2, _mm_unpacklo_epi64(ab_high, cd_high)), put(3, _mm_unpackhi_epi64(ab_high, cd_high));
}

template <int J>
static inline F byte_of(Bytes b) {
  return to_float(iand({_mm256_srli_epi32(b.lo, 8 * J), _mm256_srli_epi32(b.hi, 8 * J)}, 255));
}

#ifdef __AVXVNNI__
static inline Weights4 split(Bytes b) { return b; }
static inline Activations4 broadcast4(const void* p) {
  int word;
  __builtin_memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}
static inline I dot4(I s, Weights4 w, Activations4 a) {
  return {_mm256_dpbusd_avx_epi32(s.lo, w.lo, a), _mm256_dpbusd_avx_epi32(s.hi, w.hi, a)};
}
#else
// vpmaddubsw would saturate at 16 bits; widening even and odd bytes apart is exact.
static inline Weights4 split(Bytes b) {
  return {iand(b, 0x00ff00ff), {_mm256_srli_epi16(b.lo, 8), _mm256_srli_epi16(b.hi, 8)}};
}
static inline Activations4 broadcast4(const void* p) {
  int word;
  __builtin_memcpy(&word, p, 4);
  const __m256i b = _mm256_set1_epi32(word);
  return {_mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), _mm256_srai_epi16(b, 8)};
}
static inline I dot4(I s, Weights4 w, Activations4 a) {
  const __m256i lo = _mm256_add_epi32(_mm256_madd_epi16(w.even.lo, a.even), _mm256_madd_epi16(w.odd.lo, a.odd));
  const __m256i hi = _mm256_add_epi32(_mm256_madd_epi16(w.even.hi, a.even), _mm256_madd_epi16(w.odd.hi, a.odd));
  return {_mm256_add_epi32(s.lo, lo), _mm256_add_epi32(s.hi, hi)};
}
#endif

static inline void store_s8(void* p, I x) {
  __m256i words = _mm256_packs_epi32(x.lo, x.hi);
  words = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128((__m128i*)p, bytes);
}

}  // namespace tgi

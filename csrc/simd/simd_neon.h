// Sixteen lanes on NEON (AArch64): four registers each; the dot product with FEAT_I8MM or FEAT_DotProd where
// compiled for them. Every operation rounds as the x86 levels with fused multiply-add do, and `sum` adds in the
// same order, so that results have the same bits as theirs.
#pragma once
#include <arm_neon.h>
#include <stdint.h>

namespace tgi {

constexpr int kMaxRows = 4;  // 4 rows x 16 columns are 16 of the 32 registers

struct F { float32x4_t a, b, c, d; };
struct I { int32x4_t a, b, c, d; };
using Bytes = I;

static inline F zero() { const float32x4_t x = vdupq_n_f32(0); return {x, x, x, x}; }
static inline F set(float value) { const float32x4_t x = vdupq_n_f32(value); return {x, x, x, x}; }
static inline F load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
static inline void store(float* p, F x) {
  vst1q_f32(p, x.a), vst1q_f32(p + 4, x.b), vst1q_f32(p + 8, x.c), vst1q_f32(p + 12, x.d);
}
static inline F load_part(const float* p, int n) {
  float lanes[16] = {};
  if (n > 0) __builtin_memcpy(lanes, p, 4 * n);
  return load(lanes);
}
static inline void store_part(float* p, F x, int n) {
  float lanes[16];
  store(lanes, x);
  if (n > 0) __builtin_memcpy(p, lanes, 4 * n);
}
static inline F add(F x, F y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
static inline F sub(F x, F y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
static inline F mul(F x, F y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
static inline F div(F x, F y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
static inline F fma(F x, F y, F z) {  // x * y + z
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
// By comparison, since FMAX and FMIN treat NaN otherwise than the other levels.
static inline float32x4_t max_part(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
static inline float32x4_t min_part(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
static inline F max(F x, F y) {
  return {max_part(x.a, y.a), max_part(x.b, y.b), max_part(x.c, y.c), max_part(x.d, y.d)};
}
static inline F min(F x, F y) {
  return {min_part(x.a, y.a), min_part(x.b, y.b), min_part(x.c, y.c), min_part(x.d, y.d)};
}
static inline F abs(F x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
static inline F round(F x) { return {vrndnq_f32(x.a), vrndnq_f32(x.b), vrndnq_f32(x.c), vrndnq_f32(x.d)}; }
static inline float32x4_t pow2_part(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
static inline F pow2(F n) { return {pow2_part(n.a), pow2_part(n.b), pow2_part(n.c), pow2_part(n.d)}; }
static inline F if_less(F x, F y, F yes, F no) {
  return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
          vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
}
static inline float sum(F x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
static inline float largest(F x) {
  const float32x4_t four = max_part(max_part(x.a, x.c), max_part(x.b, x.d));
  const float first = four[0] > four[2] ? four[0] : four[2], second = four[1] > four[3] ? four[1] : four[3];
  return first > second ? first : second;
}

template <int S>
static inline float32x4_t swap_part(float32x4_t x) {
  return S == 1 ? vrev64q_f32(x) : vextq_f32(x, x, 2);
}
template <int S>
static inline F swap_lanes(F x) {
  if constexpr (S == 8) return {x.c, x.d, x.a, x.b};
  else if constexpr (S == 4) return {x.b, x.a, x.d, x.c};
  else return {swap_part<S>(x.a), swap_part<S>(x.b), swap_part<S>(x.c), swap_part<S>(x.d)};
}

static inline I iset(int value) { const int32x4_t x = vdupq_n_s32(value); return {x, x, x, x}; }
static inline I imul(I x, I y) {
  return {vmulq_s32(x.a, y.a), vmulq_s32(x.b, y.b), vmulq_s32(x.c, y.c), vmulq_s32(x.d, y.d)};
}
static inline I iadd(I x, I y) {
  return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
static inline I imax(I x, I y) {
  return {vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c), vmaxq_s32(x.d, y.d)};
}
static inline I imin(I x, I y) {
  return {vminq_s32(x.a, y.a), vminq_s32(x.b, y.b), vminq_s32(x.c, y.c), vminq_s32(x.d, y.d)};
}
static inline int isum(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.c), vaddq_s32(x.b, x.d))); }
static inline int ilargest(I x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.c), vmaxq_s32(x.b, x.d))); }
static inline I shift_right_by(I x, int n) {
  const int32x4_t by = vdupq_n_s32(-n);
  return {vshlq_s32(x.a, by), vshlq_s32(x.b, by), vshlq_s32(x.c, by), vshlq_s32(x.d, by)};
}
template <int N>
static inline I shift_right(I x) {
  return {vshrq_n_s32(x.a, N), vshrq_n_s32(x.b, N), vshrq_n_s32(x.c, N), vshrq_n_s32(x.d, N)};
}
static inline I ixor(I x, I y) {
  return {veorq_s32(x.a, y.a), veorq_s32(x.b, y.b), veorq_s32(x.c, y.c), veorq_s32(x.d, y.d)};
}
static inline F to_float(I x) {
  return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
}
static inline I to_int(F x) {
  return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
}
static inline I float_bits(F x) {
  return {vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b), vreinterpretq_s32_f32(x.c),
          vreinterpretq_s32_f32(x.d)};
}
static inline F bits_as_float(I x) {
  return {vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b), vreinterpretq_f32_s32(x.c),
          vreinterpretq_f32_s32(x.d)};
}
static inline I iand(I x, int mask) {
  const int32x4_t m = vdupq_n_s32(mask);
  return {vandq_s32(x.a, m), vandq_s32(x.b, m), vandq_s32(x.c, m), vandq_s32(x.d, m)};
}
static inline int32x4_t load_part_int(const void* p, int part) {
  return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p + 16 * part));
}
static inline I load_int(const void* p) {
  return {load_part_int(p, 0), load_part_int(p, 1), load_part_int(p, 2), load_part_int(p, 3)};
}

static inline I load_s8(const void* p) {
  const int8x16_t bytes = vld1q_s8(static_cast<const int8_t*>(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
          vmovl_s16(vget_high_s16(high))};
}
static inline Bytes load_bytes(const void* p) { return load_int(p); }
static inline F even_bf16(Bytes x) {
  return bits_as_float({vshlq_n_s32(x.a, 16), vshlq_n_s32(x.b, 16), vshlq_n_s32(x.c, 16), vshlq_n_s32(x.d, 16)});
}
static inline F odd_bf16(Bytes x) { return bits_as_float(iand(x, (int)0xffff0000)); }
static inline float32x4_t load_part_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline F load_f16(const void* p) {
  const auto* halves = (const uint16_t*)p;
  return {load_part_f16(halves), load_part_f16(halves + 4), load_part_f16(halves + 8), load_part_f16(halves + 12)};
}
static inline F widen_f16(uint16x8_t first, uint16x8_t second) {
  const auto part = [](uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); };
  return {part(vget_low_u16(first)), part(vget_high_u16(first)), part(vget_low_u16(second)), part(vget_high_u16(second))};
}
static inline F load_e5m2(const void* p) {
  const uint8x16_t x = vld1q_u8((const uint8_t*)p);
  return widen_f16(vshlq_n_u16(vmovl_u8(vget_low_u8(x)), 8), vshlq_n_u16(vmovl_u8(vget_high_u8(x)), 8));
}
static inline uint16x8_t e4m3_as_f16(int8x8_t x) {
  const uint16x8_t moved = vreinterpretq_u16_s16(vshlq_n_s16(vmovl_s8(x), 7)), highest = vdupq_n_u16(kE4m3Highest);
  const uint16x8_t none = vceqq_u16(vandq_u16(moved, highest), highest);
  return vorrq_u16(vandq_u16(moved, vdupq_n_u16(kE4m3Bits)), vandq_u16(none, vdupq_n_u16(kNoF16)));
}
static inline F load_e4m3(const void* p) {
  const int8x16_t x = vld1q_s8((const int8_t*)p);
  return mul(widen_f16(e4m3_as_f16(vget_low_s8(x)), e4m3_as_f16(vget_high_s8(x))), set(kE4m3Unit));
}
static inline Bytes low_nibbles(Bytes x) { return iand(x, 0x0f0f0f0f); }
static inline int32x4_t high_part(int32x4_t x) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(x), 4)); }
static inline Bytes high_nibbles(Bytes x) { return {high_part(x.a), high_part(x.b), high_part(x.c), high_part(x.d)}; }
static inline int32x4_t raised_part(int32x4_t x) { return vreinterpretq_s32_u8(vshlq_n_u8(vreinterpretq_u8_s32(x), 4)); }
static inline Bytes raised_nibbles(Bytes x) {
  return {raised_part(x.a), raised_part(x.b), raised_part(x.c), raised_part(x.d)};
}
static inline bool any_without(Bytes x, int bits) {
  const auto some = [&](int32x4_t y) {
    return vtstq_u8(vreinterpretq_u8_s32(y), vdupq_n_u8((uint8_t)bits));
  };
  return vminvq_u8(vandq_u8(vandq_u8(some(x.a), some(x.b)), vandq_u8(some(x.c), some(x.d)))) == 0;
}
static inline Bytes bits_and(Bytes x, Bytes y) {
  return {vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c), vandq_s32(x.d, y.d)};
}
static inline Bytes bits_xor(Bytes x, Bytes y) { return ixor(x, y); }
template <int Left, int Mask>
static inline Bytes moved_bits(Bytes x) {
  const auto moved = [](int32x4_t y) {  // a negative count shifts to the right
    return Left == 0 ? y : vreinterpretq_s32_u8(vshlq_u8(vreinterpretq_u8_s32(y), vdupq_n_s8(Left)));
  };
  return iand({moved(x.a), moved(x.b), moved(x.c), moved(x.d)}, Mask * 0x01010101);
}
static inline Bytes load_spread(const void* p) {
  const auto part = [&](int i) {
    const int32x4_t words = vreinterpretq_s32_u32(vmovl_u16(vld1_u16((const uint16_t*)p + 4 * i)));
    return vorrq_s32(words, vshlq_n_s32(words, 18));
  };
  return {part(0), part(1), part(2), part(3)};
}

using Table = uint8x16_t;
static inline Table load_table(const void* p) { return vld1q_u8((const uint8_t*)p); }
static inline int32x4_t look_up_part(Table table, int32x4_t x) {
  return vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(x)));
}
static inline Bytes look_up(Table table, Bytes x) {
  return {look_up_part(table, x.a), look_up_part(table, x.b), look_up_part(table, x.c), look_up_part(table, x.d)};
}
static inline int32x4_t zip_first(int32x4_t x, int32x4_t y) {
  return vreinterpretq_s32_u8(vzip1q_u8(vreinterpretq_u8_s32(x), vreinterpretq_u8_s32(y)));
}
static inline int32x4_t zip_second(int32x4_t x, int32x4_t y) {
  return vreinterpretq_s32_u8(vzip2q_u8(vreinterpretq_u8_s32(x), vreinterpretq_u8_s32(y)));
}
static inline Bytes zip_first(Bytes x, Bytes y) {
  return {zip_first(x.a, y.a), zip_first(x.b, y.b), zip_first(x.c, y.c), zip_first(x.d, y.d)};
}
static inline Bytes zip_second(Bytes x, Bytes y) {
  return {zip_second(x.a, y.a), zip_second(x.b, y.b), zip_second(x.c, y.c), zip_second(x.d, y.d)};
}
static inline void store_bytes(void* p, Bytes x) {
  auto* to = (int32_t*)p;
  vst1q_s32(to, x.a);
  vst1q_s32(to + 4, x.b);
  vst1q_s32(to + 8, x.c);
  vst1q_s32(to + 12, x.d);
}

static inline void interleave_rows(const uint8_t* from, size_t stride, uint8_t* to) {
  const auto row = [&](int r) { return vld1q_u32((const uint32_t*)(from + r * stride)); };
  vst4q_u32((uint32_t*)to, uint32x4x4_t{{row(0), row(1), row(2), row(3)}});
}

template <int J>
static inline int32x4_t byte_part(int32x4_t x) {
  return vreinterpretq_s32_u32(vshrq_n_u32(vshlq_n_u32(vreinterpretq_u32_s32(x), 24 - 8 * J), 24));
}
template <int J>
static inline F byte_of(Bytes x) {
  return to_float({byte_part<J>(x.a), byte_part<J>(x.b), byte_part<J>(x.c), byte_part<J>(x.d)});
}

static inline int8x16_t broadcast_word(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

#ifdef __ARM_FEATURE_MATMUL_INT8
using Weights4 = Bytes;
using Activations4 = int8x16_t;

static inline Weights4 split(Bytes x) { return x; }
static inline Activations4 broadcast4(const void* p) { return broadcast_word(p); }
static inline I dot4(I s, Weights4 w, Activations4 x) {
  return {vusdotq_s32(s.a, vreinterpretq_u8_s32(w.a), x), vusdotq_s32(s.b, vreinterpretq_u8_s32(w.b), x),
          vusdotq_s32(s.c, vreinterpretq_u8_s32(w.c), x), vusdotq_s32(s.d, vreinterpretq_u8_s32(w.d), x)};
}
#else
// Nothing here multiplies unsigned by signed bytes. Weights less 128 are signed; 128 times the sum of the four
// activations puts that right.
struct Weights4 { int8x16_t a, b, c, d; };
struct Activations4 { int8x16_t codes; int32x4_t correction; };

static inline int8x16_t less_128(int32x4_t x) {
  return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(x), vdupq_n_u8(128)));
}
static inline Weights4 split(Bytes x) { return {less_128(x.a), less_128(x.b), less_128(x.c), less_128(x.d)}; }
static inline Activations4 broadcast4(const void* p) {
  const int8x16_t x = broadcast_word(p);
  return {x, vshlq_n_s32(vpaddlq_s16(vpaddlq_s8(x)), 7)};
}
static inline int32x4_t dot_part(int32x4_t s, int8x16_t w, Activations4 x) {
  s = vaddq_s32(s, x.correction);
#ifdef __ARM_FEATURE_DOTPROD
  return vdotq_s32(s, w, x.codes);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x.codes)), high = vmull_high_s8(w, x.codes);
  return vaddq_s32(s, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
static inline I dot4(I s, Weights4 w, Activations4 x) {
  return {dot_part(s.a, w.a, x), dot_part(s.b, w.b, x), dot_part(s.c, w.c, x), dot_part(s.d, w.d, x)};
}
#endif

static inline void store_s8(void* p, I x) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(x.a), vqmovn_s32(x.b));
  const int16x8_t high = vcombine_s16(vqmovn_s32(x.c), vqmovn_s32(x.d));
  vst1q_s8((int8_t*)p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}

}  // namespace tgi

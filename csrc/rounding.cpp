#include "rounding.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "convert.h"
#include "hadamard.h"

namespace tgi {
namespace {

constexpr int kBlock = kRotation;  // columns within which errors are fed back
constexpr int kAtOnce = 4;         // columns whose errors are passed on to the later ones together; those of a word of codes
constexpr float kTiny = 1e-30f;    // weights up to this are zeros

// The nearest value that a code of the format has, for sixteen weights in units of their scales; with index, its code too.
template <class Panel>
inline F nearest(F x) {
  if constexpr (Panel::kBook == nullptr) {
    return min(max(round(x), set(Panel::kSearch.lowest)), set(Panel::kSearch.highest));
  } else {
    F value = set((float)Panel::kBook[0] - Panel::kZero);
#pragma GCC unroll 15
    for (int i = 1; i < 16; i++) {
      const float lower = Panel::kBook[i - 1], upper = Panel::kBook[i];
      value = add(value, if_less(x, set((lower + upper) / 2 - Panel::kZero), zero(), set(upper - lower)));
    }
    return value;
  }
}

template <class Panel>
inline I code_of(F value) {  // of a value that `nearest` gave
  if constexpr (Panel::kBook == nullptr) {
    return iadd(to_int(value), iset(Panel::kZero));
  } else {
    F index = zero();
#pragma GCC unroll 15
    for (int i = 1; i < 16; i++)
      index = add(index, if_less(value, set((float)Panel::kBook[i] - Panel::kZero), zero(), set(1.0f)));
    return to_int(index);
  }
}

// The scales with the least squared error among some, for values [count][16]: of each candidate that maps the largest value to
// the end of the range or clips it a little, the least-squares fit to the codes that it gives.
template <class Panel>
F best_scales(const float* values, int count) {
  constexpr Search search = Panel::kSearch;
  F above = zero(), below = zero();
  for (int k = 0; k < count; k++) {
    above = max(load(values + k * kLanes), above);
    below = max(sub(zero(), load(values + k * kLanes)), below);
  }
  const F peak = max(above, below);
  // With more codes below zero than above, the sign of a scale is worth choosing: the peak gets the lowest.
  F sign = set(1.0f);
  if (-search.lowest > search.highest) sign = if_less(below, above, set(-1.0f), sign);
  const F unit = mul(sign, peak);
  const F inverse = if_less(set(kTiny), peak, div(sign, peak), zero());
  F best = mul(unit, set(1.0f / -search.lowest)), least = set(INFINITY);
  for (int i = 0; i < search.candidates; i++) {
    const float end = search.first + search.step * (float)i;
    const F factor = mul(inverse, set(end)), back = set(1.0f / end);
    F error = zero(), dot = zero(), square = zero();  // of the errors, of them with the codes, of the codes
    for (int k = 0; k < count; k++) {
      const F x = mul(load(values + k * kLanes), factor), q = nearest<Panel>(x), e = sub(x, q);
      error = fma(e, e, error);
      dot = fma(e, q, dot);
      square = fma(q, q, square);
    }
    const F more = if_less(zero(), square, div(dot, square), zero());  // than the candidate the best scale is
    error = mul(mul(sub(error, mul(dot, more)), back), back);
    best = if_less(error, least, mul(unit, fma(more, back, back)), best);
    least = min(error, least);
  }
  return if_less(set(kTiny), peak, best, zero());
}

// Scales as they will be read back, and their inverses, of a layer's columns.
struct Scales {
  std::vector<float> values, inverses;  // [scale][16]
  int columns;                          // of each
  const float* at(const std::vector<float>& all, int k) const { return all.data() + size_t(k / columns) * kLanes; }
  F value(int k) const { return load(at(values, k)); }
  F inverse(int k) const { return load(at(inverses, k)); }
};

float kept_scale(float scale, bool two) {
  const uint32_t word = two ? (uint32_t)float_to_bfloat16(scale) << 16 : header_word(scale, 0);
  float kept;
  memcpy(&kept, &word, 4);
  return kept;
}

// Chooses the scales of a panel and writes the headers of rows [first, last).
template <class Panel>
Scales choose_scales(const Linear& linear, int panel, int first, int last, const float* values) {
  const int columns = linear.group / linear.scales, count = linear.groups * linear.scales;
  Scales scales{std::vector<float>(size_t(count) * kLanes), std::vector<float>(size_t(count) * kLanes), columns};
  for (int i = 0; i < count && i * columns < linear.in; i++) {
    float* to = scales.values.data() + size_t(i) * kLanes;
    store(to, best_scales<Panel>(values + size_t(i) * columns * kLanes, group_length(columns, linear.in, i * columns)));
    for (int lane = 0; lane < kLanes; lane++) {
      to[lane] = kept_scale(to[lane], Panel::kTwoScales);
      scales.inverses[size_t(i) * kLanes + lane] = to[lane] != 0 ? 1.0f / to[lane] : 0.0f;
    }
  }
  for (int g = 0; g < linear.groups; g++)
    for (int lane = first; lane < last; lane++) {
      const float* of_group = scales.values.data() + size_t(g) * linear.scales * kLanes + lane;
      const uint32_t word = Panel::kTwoScales ? (uint32_t)float_to_bfloat16(of_group[0]) |
                                                    (uint32_t)float_to_bfloat16(of_group[kLanes]) << 16
                                              : header_word(of_group[0], Panel::kZero);
      set_header(linear, panel * kLanes + lane, g, word);
    }
  return scales;
}

// Takes what columns [k, k + kAtOnce) got too much from the later columns of a block.
void pass_on(float* block, int k, int count, const F (&excess)[kAtOnce], const float* factors) {
  for (int j = k + kAtOnce; j < count; j++) {
    F x = load(block + j * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; i++) x = fma(excess[i], set(factors[(k + i) * kBlock + j]), x);
    store(block + j * kLanes, x);
  }
}

// Rounds the `count` columns of a block that begins at column `begin`, in place, and puts four codes of a column and lane into
// each word of codes [count / 4][16].
template <class Panel>
void round_block(float* block, int begin, int count, const Scales& scales, const float* factors, uint32_t* codes) {
  for (int k = 0; k < count; k += kAtOnce, codes += kLanes) {
    F excess[kAtOnce];
    I word = iset(0);
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; i++) {
      F x = load(block + (k + i) * kLanes);
      if (factors)
        for (int before = 0; before < i; before++)
          x = fma(excess[before], set(factors[(k + before) * kBlock + k + i]), x);
      const F value = nearest<Panel>(mul(x, scales.inverse(begin + k)));
      const F kept = mul(value, scales.value(begin + k));
      excess[i] = sub(kept, x);
      store(block + (k + i) * kLanes, kept);
      word = iadd(word, imul(code_of<Panel>(value), iset((int)(1u << 8 * i))));
    }
    if (factors) pass_on(block, k, count, excess, factors);
    memcpy(codes, &word, sizeof(word));
  }
}

// The squared errors of a block's rows [first, last), each column's times its importance before the rotation.
double weighted_error(const Linear& linear, const float* exact, const float* rounded, int count, const float* importance,
                      int known, int first, int last) {
  alignas(64) float errors[kBlock * kLanes];
  for (int i = 0; i < count * kLanes; i++) errors[i] = exact[i] - rounded[i];
  if (linear.rotated) rotate_lanes(errors, known);
  double sum = 0;
  for (int k = 0; k < known; k++) {
    float squares = 0;
    for (int lane = first; lane < last; lane++) squares += errors[k * kLanes + lane] * errors[k * kLanes + lane];
    sum += (double)squares * importance[k];
  }
  return sum;
}

template <class Panel>
void round_rows(const Linear& linear, int panel, int first, int last, float* values, const Feedback* feedback,
                RoundingErrors* errors) {
  const Scales scales = choose_scales<Panel>(linear, panel, first, last, values);
  alignas(64) float exact[kBlock * kLanes], plain[kBlock * kLanes];
  alignas(64) uint32_t codes[kBlock / 4 * kLanes];
  for (int begin = 0; begin < linear.padded_in; begin += kBlock) {
    float* block = values + size_t(begin) * kLanes;
    const int count = std::min(kBlock, linear.padded_in - begin), known = std::min(count, linear.in - begin);
    const float* factors = feedback ? feedback->factors + size_t(begin) * kBlock : nullptr;
    if (feedback) {
      memcpy(exact, block, sizeof(float) * count * kLanes);
      memcpy(plain, block, sizeof(float) * count * kLanes);
      round_block<Panel>(plain, begin, count, scales, nullptr, codes);
    }
    round_block<Panel>(block, begin, count, scales, factors, codes);
    if (feedback) {
      const float* importance = feedback->importance + begin;
      errors->plain += weighted_error(linear, exact, plain, count, importance, known, first, last);
      errors->rounded += weighted_error(linear, exact, block, count, importance, known, first, last);
    }
    for (int k = 0; k < count; k += 4)
      for (int lane = first; lane < last; lane++) {
        uint8_t* group = group_at(linear, panel * kLanes, (begin + k) / linear.group);
        const int of_group = (begin + k) % linear.group;
        Panel::set(record_at<Panel>(group, of_group), lane, of_group, codes[k / 4 * kLanes + lane]);
      }
  }
}

}  // namespace

uint8_t* group_at(const Linear& linear, int row, int g) {
  const size_t bytes = with_format(linear.format, [&](auto panel) { return decltype(panel)::group_bytes(linear.group); });
  return linear.data + size_t(row / kLanes) * linear.panel_bytes + g * bytes;
}

uint32_t header_word(float scale, int zero_point) {
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  return (bits & 0xffffff00u) | (uint32_t)zero_point;
}

void set_header(const Linear& linear, int row, int g, uint32_t word) {
  memcpy(group_at(linear, row, g) + 4 * (row % kLanes), &word, 4);
}

void round_panel(const Linear& linear, int panel, int first, int last, float* values, const Feedback* feedback,
                 RoundingErrors* errors) {
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    if constexpr (Panel::kRounds) round_rows<Panel>(linear, panel, first, last, values, feedback, errors);
  });
}

}  // namespace tgi

// Weights that are codes times activations that are not rounded: a piece of a group at a time becomes an F32Panel, which one
// loop multiplies whatever the format. (One loop for each format and number of rows took half of the time that this library
// needs to compile.)
#pragma once
#include <algorithm>

#include "formats.h"
#include "linear.h"
#include "panel.h"

namespace tgi {

constexpr int kPiece = 64;  // columns widened at once, so that a few panels of them stay in the first-level cache

// Values 4 J and on of a record less the zero points, to [k][16].
template <class Panel, int J = 0>
static inline void widen_record(const uint8_t* record, F zeros, float* to) {
  if constexpr (4 * J < Panel::kStep) {
    const Bytes codes = Panel::template codes<J>(record);
    store(to, sub(byte_of<0>(codes), zeros));
    store(to + kLanes, sub(byte_of<1>(codes), zeros));
    store(to + 2 * kLanes, sub(byte_of<2>(codes), zeros));
    store(to + 3 * kLanes, sub(byte_of<3>(codes), zeros));
    widen_record<Panel, J + 1>(record, zeros, to + 4 * kLanes);
  }
}

// Columns [k, k + length) of a group of one panel, to [length][16]; the scale of these columns.
static inline F widen_codes(const Linear& linear, const uint8_t* group, int k, int length, float* to) {
  F scales = zero();
  with_header(linear.format, linear.zero_points, [&](auto panel, auto header) {
    using Panel = decltype(panel);
    using Header = decltype(header);
    const F zeros = Header::kZeros ? to_float(header_zeros(group)) : set((float)Panel::kZero);
    const uint8_t* record = group + kHeaderBytes + size_t(k / Panel::kStep) * Panel::kBytes;
    for (int done = 0; done < length; done += Panel::kStep, record += Panel::kBytes) {
      for (int line = 0; line < Panel::kBytes; line += 64) FetchStream{}(record + line);
      widen_record<Panel>(record, zeros, to + done * kLanes);
    }
    if constexpr (Header::kScales > 1) scales = k < kHalfGroup ? Header::template scales<0>(group) : Header::template scales<1>(group);
    else scales = Header::template scales<0>(group);
  });
  return scales;
}

// sums += a [k][R] times C panels that lie `stride` bytes apart. What shares a scale is one sum over ascending k, then
// sum = fma(that sum, weight scale, sum).
template <int R, int C>
static void multiply_codes(const Linear& linear, const float* a, const uint8_t* panels, size_t stride, Sums<R, C>& sums) {
  alignas(64) float wide[C][kPiece * kLanes];
  const size_t group_bytes = bytes_of_group(linear.format, linear.group);
  const int shared = linear.group / linear.scales;  // columns of a scale
  for (int begin = 0; begin < linear.padded_in; begin += shared) {
    Sums<R, C> parts(zero());
    F scales[C];
    for (int k = begin, end = std::min(begin + shared, linear.padded_in); k < end; k += kPiece) {
      const int length = std::min(kPiece, end - k);
      const uint8_t* group = panels + k / linear.group * group_bytes;
      for (int c = 0; c < C; c++) scales[c] = widen_codes(linear, group + c * stride, k % linear.group, length, wide[c]);
      multiply<F32Panel, Interleaved<R>>(parts, a + size_t(k) * R, reinterpret_cast<const uint8_t*>(wide), sizeof wide[0],
                                         length, FetchNothing{});
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; c++)
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) sums.at[r][c] = fma(parts.at[r][c], scales[c], sums.at[r][c]);
  }
}

}  // namespace tgi

// Weights that are codes times activations that are not rounded: a piece of a group at a time becomes an F32Panel, which one
// loop multiplies whatever the format. (One loop for each format and number of rows took half of the time that this library
// needs to compile.)
#pragma once
#include <algorithm>

#include "apart.h"
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
  with_header(linear.format, false, [&](auto panel, auto header) {
    using Panel = decltype(panel);
    using Header = decltype(header);
    if constexpr (!Header::kApart) {
      const F zeros = set((float)Panel::kZero);
      const uint8_t* record = group + kHeaderBytes + size_t(k / Panel::kStep) * Panel::kBytes;
      for (int done = 0; done < length; done += Panel::kStep, record += Panel::kBytes) {
        for (int line = 0; line < Panel::kBytes; line += 64) FetchStream{}(record + line);
        widen_record<Panel>(record, zeros, to + done * kLanes);
      }
      if constexpr (Header::kScales > 1)
        scales = k < kHalfGroup ? Header::template scales<0>(group) : Header::template scales<1>(group);
      else scales = Header::template scales<0>(group);
    }
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

// Values 4 J and on of a record whose scales lie apart, to [k][16]: the weights.
template <class Panel, int J = 0>
static inline void widen_record_apart(const uint8_t* record, Table table, F zeros, F scales, F minimums, float* to) {
  if constexpr (4 * J < Panel::kStep) {
    const Bytes codes = Panel::template codes<J>(record, table);
    const auto weight = [&](F value) { return add(mul(sub(value, zeros), scales), minimums); };
    store(to, weight(byte_of<0>(codes)));
    store(to + kLanes, weight(byte_of<1>(codes)));
    store(to + 2 * kLanes, weight(byte_of<2>(codes)));
    store(to + 3 * kLanes, weight(byte_of<3>(codes)));
    widen_record_apart<Panel, J + 1>(record, table, zeros, scales, minimums, to + 4 * kLanes);
  }
}

// Columns [k, k + length) of panel c of some, whole parts or a piece of one, to [length][16].
static inline void widen_apart(const Linear& linear, const Apart& w, int c, int k, int length, float* to) {
  with_header(linear.format, true, [&](auto panel, auto header) {
    using Panel = decltype(panel);
    if constexpr (decltype(header)::kApart) {
      const uint8_t* record = w.codes + c * w.stride + size_t(k / Panel::kStep) * Panel::kBytes;
      for (int end = k + length; k < end; k += Panel::kStep, record += Panel::kBytes, to += Panel::kStep * kLanes) {
        const size_t at = c * w.floats + size_t(k / linear.group) * kLanes;
        for (int line = 0; line < Panel::kBytes; line += 64) FetchStream{}(record + line);
        widen_record_apart<Panel>(record, w.table, w.zeros ? to_float(load_int(w.zeros + at)) : set((float)linear.zero),
                                  load(w.scales + at), w.minimums ? load(w.minimums + at) : zero(), to);
      }
    }
  });
}

// The same as `multiply_codes` of panels panel, panel + apart, ..., whose scales lie apart: one sum over ascending k of
// activations times weights as the checkpoint's reader has them.
template <int R, int C>
static void multiply_apart_widened(const Linear& linear, const float* a, int panel, int apart, Sums<R, C>& sums) {
  alignas(64) float wide[C][kPiece * kLanes];
  const Apart w = unfold(linear, panel, apart, C);
  for (int k = 0; k < linear.padded_in; k += kPiece) {
    const int length = std::min(kPiece, linear.padded_in - k);
    for (int c = 0; c < C; c++) widen_apart(linear, w, c, k, length, wide[c]);
    multiply<F32Panel, Interleaved<R>>(sums, a + size_t(k) * R, reinterpret_cast<const uint8_t*>(wide), sizeof wide[0],
                                       length, FetchNothing{});
  }
}

}  // namespace tgi

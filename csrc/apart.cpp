#include "apart.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "convert.h"
#include "rounding.h"

namespace tgi {
namespace {

size_t number_bytes(const Linear& linear) { return linear.scale_type == TGI_FLOAT32 ? 4 : 2; }

uint8_t* panel_of(const Linear& linear, int row) { return linear.data + size_t(row / kLanes) * linear.panel_bytes; }

void set_number(const Linear& linear, uint8_t* block, size_t index, float value) {
  if (linear.scale_type == TGI_FLOAT32) return (void)memcpy(block + 4 * index, &value, 4);
  const uint16_t half = float_to_float16(value);
  memcpy(block + 2 * index, &half, 2);
}

// Scale group g of a panel, to `to` [16].
void unfold_numbers(const Linear& linear, const uint8_t* block, int g, float* to) {
  if (linear.scale_type == TGI_FLOAT32) memcpy(to, block + size_t(g) * kLanes * 4, kLanes * 4);
  else store(to, load_f16(block + size_t(g) * kLanes * 2));
}

void unfold_panel(const Linear& linear, const uint8_t* panel, float* scales, int32_t* zeros, float* minimums) {
  for (int part = 0; part < linear.groups; part++) {
    const int g = part * linear.group / linear.scale_group;
    const size_t to = size_t(part) * kLanes;
    unfold_numbers(linear, panel, g, scales + to);
    if (minimums) unfold_numbers(linear, panel + linear.minimums_at, g, minimums + to);
    if (zeros)
      for (int lane = 0; lane < kLanes; lane++) zeros[to + lane] = panel[linear.zeros_at + size_t(g) * kLanes + lane];
  }
}

template <class Panel>
uint8_t* record_of(const Linear& linear, int row, int k) {
  return panel_of(linear, row) + linear.codes_at + size_t(k / Panel::kStep) * Panel::kBytes + 4 * (row % kLanes);
}

}  // namespace

Apart unfold(const Linear& linear, int panel, int apart, int count) {
  static thread_local std::vector<float> memory;
  const size_t floats = size_t(linear.groups) * kLanes;
  memory.resize(std::max(memory.size(), 3 * floats * count));
  float *scales = memory.data(), *minimums = linear.minimums ? scales + floats * count : nullptr;
  auto* zeros = linear.zero_points ? reinterpret_cast<int32_t*>(scales + 2 * floats * count) : nullptr;
  const uint8_t* begin = linear.data + size_t(panel) * linear.panel_bytes;
  const size_t stride = apart * linear.panel_bytes;
  for (int c = 0; c < count; c++) {
    const size_t to = c * floats;
    unfold_panel(linear, begin + c * stride, scales + to, zeros ? zeros + to : nullptr, minimums ? minimums + to : nullptr);
  }
  return {begin + linear.codes_at, stride, scales, zeros, minimums, floats, load_table(linear.book)};
}

namespace {

// Where the largest of x [count] in magnitude is, and of equal ones the first in some lane. One that is not a number never is.
int largest_of(const float* x, int count) {
  F best = zero(), place = zero();
  for (int k = 0; k < count; k += kLanes) {
    const F values = abs(count - k >= kLanes ? load(x + k) : load_part(x + k, count - k));
    place = if_less(best, values, set((float)k), place);
    best = if_less(best, values, values, best);
  }
  alignas(64) float tops[kLanes], places[kLanes];
  store(tops, best);
  store(places, place);
  int lane = 0;
  for (int i = 1; i < kLanes; i++)
    if (tops[i] > tops[lane]) lane = i;
  return std::min((int)places[lane] + lane, count - 1);
}

}  // namespace

void round_part(const Linear& linear, float* x, int count, int length, int first, const RoundedPart& to) {
  const int largest = largest_of(x, count);
  const float outlier = x[largest];
  x[largest] = 0;
  const float rest = fabsf(x[largest_of(x, count)]);
  const bool apart = fabsf(outlier) > kOutlier * rest;  // not of what is no number
  *to.outlier = apart ? outlier : 0;
  *to.outlier_column = apart ? first + largest : -1;
  if (!apart) x[largest] = outlier;
  const int zero_point = linear.zero_points ? 1 : linear.zero;
  *to.sum = quantise_group(x, count, length, zero_point, to.codes, to.scale, to.offset) + *to.outlier;
}

void collect_outliers(const Linear& linear, const Packed& packed, int rows, OutlierList& list) {
  list.all.clear();
  list.starts.assign(1, 0);
  for (int row = 0; row < rows; row++) {
    const int first = row / kMaxRows * kMaxRows, height = std::min(rows - first, kMaxRows);
    const size_t tile = size_t(first) * linear.groups + row - first;
    for (int part = 0; part < linear.groups; part++) {
      const size_t at = tile + size_t(part) * height;
      if (packed.outlier_columns[at] >= 0) list.all.push_back({packed.outlier_columns[at], packed.outliers[at]});
    }
    list.starts.push_back((int)list.all.size());
  }
}

void lay_out_apart(Linear& linear) {
  const size_t lanes = size_t(linear.scale_groups) * kLanes;
  linear.zeros_at = lanes * number_bytes(linear);
  linear.minimums_at = linear.zeros_at + (linear.zero_points ? lanes : 0);
  const size_t end = linear.minimums_at + (linear.minimums ? lanes * number_bytes(linear) : 0);
  linear.codes_at = (end + 63) / 64 * 64;
  linear.panel_bytes = linear.codes_at + with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    return size_t(linear.padded_in / Panel::kStep) * Panel::kBytes;
  });
}

void pack_apart(const Linear& linear, const StoredRows& rows, int64_t from, int row) {
  uint8_t* panel = panel_of(linear, row);
  const int64_t groups = linear.scale_groups;
  for (int g = 0; g < linear.scale_groups; g++) {
    const size_t to = size_t(g) * kLanes + row % kLanes;
    set_number(linear, panel, to, rows.scales[from * groups + g]);
    if (linear.zero_points) panel[linear.zeros_at + to] = rows.zeros[from * groups + g];
    if (linear.minimums) set_number(linear, panel + linear.minimums_at, to, rows.minimums[from * groups + g]);
  }
  const uint8_t* codes = rows.codes + from * linear.in;
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    for (int k = 0; k < linear.in; k += 4) {
      uint32_t four = 0;
      memcpy(&four, codes + k, std::min(4, linear.in - k));
      Panel::set(record_of<Panel>(linear, row, k), k % Panel::kStep, four);
    }
  });
}

void read_apart(const Linear& linear, int row, float* out) {
  const uint8_t* panel = panel_of(linear, row);
  const int lane = row % kLanes;
  alignas(64) float scales[kLanes], minimums[kLanes] = {};
  int known = -1;
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    for (int k = 0; k < linear.in; k++) {
      const int g = k / linear.scale_group;
      if (g != known) {
        unfold_numbers(linear, panel, g, scales);
        if (linear.minimums) unfold_numbers(linear, panel + linear.minimums_at, g, minimums);
        known = g;
      }
      const int zero = linear.zero_points ? panel[linear.zeros_at + size_t(g) * kLanes + lane] : linear.zero;
      int code = (int)(Panel::get(record_of<Panel>(linear, row, k), k % Panel::kStep) >> 8 * (k % 4) & 255);
      if constexpr (std::is_same_v<Panel, Int4Panel>) code = linear.book[code];
      const float weight = scales[lane] * (float)(code - zero);
      out[linear.order ? linear.order[k] : k] = linear.minimums ? weight + minimums[lane] : weight;
    }
  });
}

}  // namespace tgi

#include "apart.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "activations.h"
#include "convert.h"
#include "rounding.h"

namespace tgi {
namespace {

constexpr int kStepColumns = 256;  // that share a step of scales which are whole numbers

int step_blocks(const Linear& linear) { return (linear.in + kStepColumns - 1) / kStepColumns; }

// Scales, or minimums, of a panel.
size_t numbers_bytes(const Linear& linear) {
  const size_t lanes = size_t(linear.scale_groups) * kLanes;
  if (linear.scale_type == TGI_INT8) return size_t(step_blocks(linear)) * kLanes * 2 + lanes;
  return lanes * (linear.scale_type == TGI_FLOAT32 ? 4 : 2);
}

uint8_t* panel_of(const Linear& linear, int row) { return linear.data + size_t(row / kLanes) * linear.panel_bytes; }

void set_half(uint8_t* block, size_t index, float value) {
  const uint16_t half = float_to_float16(value);
  memcpy(block + 2 * index, &half, 2);
}

// The scales, or minimums, of one lane. steps: of scales that are whole numbers.
void set_numbers(const Linear& linear, uint8_t* block, int lane, const float* values, const float* steps) {
  const size_t blocks = steps ? step_blocks(linear) : 0;
  for (size_t i = 0; i < blocks; i++) set_half(block, i * kLanes + lane, steps[i]);
  for (int g = 0; g < linear.scale_groups; g++) {
    const size_t to = size_t(g) * kLanes + lane;
    if (linear.scale_type == TGI_FLOAT32) memcpy(block + 4 * to, values + g, 4);
    else if (linear.scale_type == TGI_FLOAT16) set_half(block, to, values[g]);
    else {
      const float step = steps[g * linear.scale_group / kStepColumns];
      const float whole = step != 0 ? nearbyintf(values[g] / step) : 0.0f;
      block[blocks * kLanes * 2 + to] = (uint8_t)(int8_t)std::min(127.0f, std::max(-128.0f, whole));
    }
  }
}

// Calls put(g, numbers) with the scales, or minimums, of 16 rows for each scale group g from `first` on, before `last`.
template <class Put>
void for_each_number(const Linear& linear, const uint8_t* block, int first, int last, const Put& put) {
  if (linear.scale_type == TGI_FLOAT32) {
    for (int g = first; g < last; g++) put(g, load(reinterpret_cast<const float*>(block) + size_t(g) * kLanes));
  } else if (linear.scale_type == TGI_FLOAT16) {
    for (int g = first; g < last; g++) put(g, load_f16(block + size_t(g) * kLanes * 2));
  } else {
    const uint8_t* whole = block + size_t(step_blocks(linear)) * kLanes * 2;
    const int each = kStepColumns / linear.scale_group;  // whole numbers with the same step
    if (first == 0 && last == linear.scale_groups && last % each == 0) {  // nearly always, and often at one row
      for (int g = 0; g < last; block += kLanes * 2) {
        const F step = load_f16(block);
        for (int i = 0; i < each; i++, g++) put(g, mul(step, to_float(load_s8(whole + size_t(g) * kLanes))));
      }
      return;
    }
    for (int g = first; g < last;) {
      const F step = load_f16(block + size_t(g / each) * kLanes * 2);
      for (const int end = std::min(last, (g / each + 1) * each); g < end; g++)
        put(g, mul(step, to_float(load_s8(whole + size_t(g) * kLanes))));
    }
  }
}

// The same for each part of the activations.
void unfold_numbers(const Linear& linear, const uint8_t* block, float* to) {
  const int groups = linear.scale_groups, parts = linear.groups;
  if (groups == parts)
    return for_each_number(linear, block, 0, groups, [&](int g, F numbers) { store(to + size_t(g) * kLanes, numbers); });
  const int each = (linear.scale_group + linear.group - 1) / linear.group;  // a whole row may be less than a part
  for_each_number(linear, block, 0, groups, [&](int g, F numbers) {
    for (int part = g * each; part < std::min((g + 1) * each, parts); part++) store(to + size_t(part) * kLanes, numbers);
  });
}

void unfold_panel(const Linear& linear, const uint8_t* panel, float* scales, int32_t* zeros, float* minimums) {
  unfold_numbers(linear, panel, scales);
  if (minimums) unfold_numbers(linear, panel + linear.minimums_at, minimums);
  for (int part = 0; zeros && part < linear.groups; part++) {
    const size_t g = size_t(part) * linear.group / linear.scale_group;
    const I bytes = iand(load_s8(panel + linear.zeros_at + g * kLanes), 255);
    memcpy(zeros + size_t(part) * kLanes, &bytes, sizeof bytes);
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

// The magnitudes of the largest value of some and of the next one, as bits. Of several that are equally large in different lanes
// the next one may be too small: `set_apart` looks again.
struct Largest {
  int first, second;
};

Largest largest_of(const float* x, int count) {
  I first = iset(0), second = iset(0);  // of each lane
  for (int k = 0; k < count; k += kLanes) {
    const I values = magnitude(values_at(x, k, count));
    second = imax(second, imin(first, values));
    first = imax(first, values);
  }
  const int most = ilargest(first);
  const F others = if_less(bits_as_float(first), set(as_float(most)), bits_as_float(first), bits_as_float(second));
  return {most, ilargest(float_bits(others))};
}

// Takes the only value of magnitude `most` out of x; the column where it was, or -1 if there are several.
int set_apart(float* x, int count, float most, float* value) {
  int found = -1;
  for (int k = 0; k < count; k++) {
    if (fabsf(x[k]) != most) continue;
    if (found >= 0) return -1;
    found = k;
  }
  *value = x[found];
  x[found] = 0;
  return found;
}

}  // namespace

void round_parts(const Linear& linear, float* x, int count, int length, int first, const RoundedParts& to) {
  const Largest largest = largest_of(x, count);
  float peak = as_float(largest.first), outlier = 0;
  int column = -1;
  if (peak > kOutlier * as_float(largest.second)) {  // not of what is no number
    column = set_apart(x, count, peak, &outlier);
    if (column >= 0) peak = as_float(largest.second);
  }
  const float scale = step(peak, 127.0f);
  const F inverse = set(inverse_step(peak, 127.0f));
  int at = 0;
  for (int begin = 0; begin < length; begin += linear.group, at += to.apart) {
    const int end = std::min(begin + linear.group, length);
    const int total = round_to_codes(x, count, begin, end, inverse, to.codes);
    const bool has_outlier = begin <= column && column < end;
    to.scales[at] = scale;
    to.offsets[at] = offset_of(total, linear.zero_points ? 1 : linear.zero);
    to.outliers[at] = has_outlier ? outlier : 0;
    to.outlier_columns[at] = has_outlier ? first + column : -1;
    to.sums[at] = scale * (float)total + to.outliers[at];
  }
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
  linear.zeros_at = numbers_bytes(linear);
  linear.minimums_at = linear.zeros_at + (linear.zero_points ? size_t(linear.scale_groups) * kLanes : 0);
  const size_t end = linear.minimums_at + (linear.minimums ? numbers_bytes(linear) : 0);
  linear.codes_at = (end + 63) / 64 * 64;
  linear.panel_bytes = linear.codes_at + with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    return size_t(linear.padded_in / Panel::kStep) * Panel::kBytes;
  });
}

void pack_apart(const Linear& linear, const StoredRows& rows, int64_t from, int row) {
  uint8_t* panel = panel_of(linear, row);
  const int64_t groups = linear.scale_groups, blocks = step_blocks(linear);
  const auto steps_of = [&](const float* steps) { return steps ? steps + from * blocks : nullptr; };
  const int lane = row % kLanes;
  set_numbers(linear, panel, lane, rows.scales + from * groups, steps_of(rows.steps));
  if (linear.minimums)
    set_numbers(linear, panel + linear.minimums_at, lane, rows.minimums + from * groups, steps_of(rows.minimum_steps));
  if (linear.zero_points)
    for (int64_t g = 0; g < groups; g++) panel[linear.zeros_at + g * kLanes + lane] = rows.zeros[from * groups + g];
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
        for_each_number(linear, panel, g, g + 1, [&](int, F numbers) { store(scales, numbers); });
        if (linear.minimums)
          for_each_number(linear, panel + linear.minimums_at, g, g + 1, [&](int, F numbers) { store(minimums, numbers); });
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

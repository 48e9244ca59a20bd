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

// Steps of a panel's scales, or minimums, that are whole numbers.
size_t steps_bytes(const Linear& linear) { return size_t(step_blocks(linear)) * kLanes * 2; }

// Scales, or minimums, of a panel.
size_t numbers_bytes(const Linear& linear, bool minimums) {
  const size_t lanes = size_t(linear.scale_groups) * kLanes;
  if (linear.scale_type == TGI_NIBBLES) return steps_bytes(linear) + (minimums ? 0 : lanes);
  if (linear.scale_type == TGI_INT8) return steps_bytes(linear) + lanes;
  return lanes * (linear.scale_type == TGI_FLOAT32 ? 4 : 2);
}

// Where the scales, or minimums, of a panel lie.
template <class Byte>
struct Numbers {
  Byte* block;  // floats, or the steps of
  Byte* whole;  // whole numbers
  bool minimums;
};

template <class Byte>
Numbers<Byte> scale_numbers(const Linear& linear, Byte* panel) {
  return {panel, panel + steps_bytes(linear), false};
}

template <class Byte>
Numbers<Byte> minimum_numbers(const Linear& linear, Byte* panel) {
  Byte* block = panel + linear.minimums_at;
  return {block, (linear.scale_type == TGI_NIBBLES ? panel : block) + steps_bytes(linear), true};
}

uint8_t* panel_of(const Linear& linear, int row) { return linear.data + size_t(row / kLanes) * linear.panel_bytes; }

void set_half(uint8_t* block, size_t index, float value) {
  const uint16_t half = float_to_float16(value);
  memcpy(block + 2 * index, &half, 2);
}

// The scales, or minimums, of one lane. steps: of scales that are whole numbers.
void set_numbers(const Linear& linear, const Numbers<uint8_t>& numbers, int lane, const float* values, const float* steps) {
  const int blocks = steps ? step_blocks(linear) : 0;
  for (int i = 0; i < blocks; i++) set_half(numbers.block, size_t(i) * kLanes + lane, steps[i]);
  for (int g = 0; g < linear.scale_groups; g++) {
    const size_t to = size_t(g) * kLanes + lane;
    if (linear.scale_type == TGI_FLOAT32) memcpy(numbers.block + 4 * to, values + g, 4);
    else if (linear.scale_type == TGI_FLOAT16) set_half(numbers.block, to, values[g]);
    else {
      const float step = steps[g * linear.scale_group / kStepColumns];
      const float whole = step != 0 ? nearbyintf(values[g] / step) : 0.0f;
      uint8_t& byte = numbers.whole[to];
      if (linear.scale_type == TGI_INT8) {
        byte = (uint8_t)(int8_t)std::min(127.0f, std::max(-128.0f, whole));
      } else {
        const auto nibble = (uint8_t)std::min(15.0f, std::max(0.0f, numbers.minimums ? -whole : whole));
        byte = (uint8_t)(numbers.minimums ? (byte & 15) | nibble << 4 : (byte & 0xf0) | nibble);
      }
    }
  }
}

// Calls put(g, numbers) with the scales, or minimums, of 16 rows for each scale group g from `first` on, before `last`.
template <class Put>
void for_each_number(const Linear& linear, const Numbers<const uint8_t>& numbers, int first, int last, const Put& put) {
  const uint8_t* block = numbers.block;
  const auto for_each_whole = [&](float sign, const auto& of_bytes) {
    const int each = kStepColumns / linear.scale_group;  // whole numbers with the same step
    const auto number = [&, whole = numbers.whole](F step, int g) {
      return mul(step, to_float(of_bytes(load_s8(whole + size_t(g) * kLanes))));
    };
    const auto step_at = [&](const uint8_t* at) { return mul(set(sign), load_f16(at)); };
    if (first == 0 && last == linear.scale_groups && last % each == 0) {  // nearly always, and often at one row
      for (int g = 0; g < last; block += kLanes * 2) {
        const F step = step_at(block);
        for (int i = 0; i < each; i++, g++) put(g, number(step, g));
      }
      return;
    }
    for (int g = first; g < last;) {
      const F step = step_at(block + size_t(g / each) * kLanes * 2);
      for (const int end = std::min(last, (g / each + 1) * each); g < end; g++) put(g, number(step, g));
    }
  };
  if (linear.scale_type == TGI_FLOAT32) {
    for (int g = first; g < last; g++) put(g, load(reinterpret_cast<const float*>(block) + size_t(g) * kLanes));
  } else if (linear.scale_type == TGI_FLOAT16) {
    for (int g = first; g < last; g++) put(g, load_f16(block + size_t(g) * kLanes * 2));
  } else if (linear.scale_type == TGI_INT8) {
    for_each_whole(1, [](I bytes) { return bytes; });
  } else if (numbers.minimums) {
    for_each_whole(-1, [](I bytes) { return shift_right<4>(iand(bytes, 0xf0)); });
  } else {
    for_each_whole(1, [](I bytes) { return iand(bytes, 15); });
  }
}

// The same for each part of the activations.
void unfold_numbers(const Linear& linear, const Numbers<const uint8_t>& from, float* to) {
  const int groups = linear.scale_groups, parts = linear.groups;
  if (groups == parts)
    return for_each_number(linear, from, 0, groups, [&](int g, F numbers) { store(to + size_t(g) * kLanes, numbers); });
  const int each = (linear.scale_group + linear.group - 1) / linear.group;  // a whole row may be less than a part
  for_each_number(linear, from, 0, groups, [&](int g, F numbers) {
    for (int part = g * each; part < std::min((g + 1) * each, parts); part++) store(to + size_t(part) * kLanes, numbers);
  });
}

// Zero points of group g, one after the other [16] in a byte, or two groups in the halves of each.
I zeros_at(const Linear& linear, const uint8_t* panel, int g) {
  if (linear.zero_bits == 8) return iand(load_s8(panel + linear.zeros_at + size_t(g) * kLanes), 255);
  return iand(shift_right_by(iand(load_s8(panel + linear.zeros_at + size_t(g / 2) * kLanes), 255), g % 2 * 4), 15);
}

void set_zero(const Linear& linear, uint8_t* panel, int lane, int g, uint8_t zero) {
  if (linear.zero_bits == 8) return (void)(panel[linear.zeros_at + size_t(g) * kLanes + lane] = zero);
  uint8_t& byte = panel[linear.zeros_at + size_t(g / 2) * kLanes + lane];
  byte = (uint8_t)((byte & (g % 2 ? 15 : 0xf0)) | zero << g % 2 * 4);
}

void unfold_panel(const Linear& linear, const uint8_t* panel, float* scales, int32_t* zeros, float* minimums) {
  unfold_numbers(linear, scale_numbers(linear, panel), scales);
  if (minimums) unfold_numbers(linear, minimum_numbers(linear, panel), minimums);
  for (int part = 0; zeros && part < linear.groups; part++) {
    const int g = (int)(size_t(part) * linear.group / linear.scale_group);
    const I of_group = zeros_at(linear, panel, g);
    memcpy(zeros + size_t(part) * kLanes, &of_group, sizeof of_group);
  }
}

template <class Panel>
uint8_t* record_of(const Linear& linear, int row, int k) {
  return panel_of(linear, row) + linear.codes_at + size_t(k / Panel::kStep) * Panel::kBytes;
}

}  // namespace

Apart unfold(const Linear& linear, int panel, int apart, int count) {
  static thread_local std::vector<float> memory;
  const size_t floats = size_t(linear.groups) * kLanes;
  memory.resize(std::max(memory.size(), 3 * floats * count));
  float *scales = memory.data(), *minimums = linear.minimums ? scales + floats * count : nullptr;
  auto* zeros = linear.zero_bits ? reinterpret_cast<int32_t*>(scales + 2 * floats * count) : nullptr;
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
    to.offsets[at] = offset_of(total, linear.zero_bits ? 1 : linear.zero);
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
  linear.zeros_at = numbers_bytes(linear, false);
  linear.minimums_at = linear.zeros_at + size_t(linear.scale_groups * linear.zero_bits + 7) / 8 * kLanes;
  const size_t end = linear.minimums_at + (linear.minimums ? numbers_bytes(linear, true) : 0);
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
  set_numbers(linear, scale_numbers(linear, panel), lane, rows.scales + from * groups, steps_of(rows.steps));
  if (linear.minimums)
    set_numbers(linear, minimum_numbers(linear, panel), lane, rows.minimums + from * groups, steps_of(rows.minimum_steps));
  if (linear.zero_bits)
    for (int g = 0; g < groups; g++) set_zero(linear, panel, lane, g, rows.zeros[from * groups + g]);
  const uint8_t* codes = rows.codes + from * linear.in;
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    for (int k = 0; k < linear.in; k += 4) {
      uint32_t four = 0;
      memcpy(&four, codes + k, std::min(4, linear.in - k));
      Panel::set(record_of<Panel>(linear, row, k), lane, k % Panel::kStep, four);
    }
  });
}

void read_apart(const Linear& linear, int row, float* out) {
  const uint8_t* panel = panel_of(linear, row);
  const Numbers<const uint8_t> of_scales = scale_numbers(linear, panel), of_minimums = minimum_numbers(linear, panel);
  const int lane = row % kLanes;
  alignas(64) float scales[kLanes], minimums[kLanes] = {}, zeros[kLanes];
  store(zeros, set((float)linear.zero));
  int known = -1;
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    for (int k = 0; k < linear.in; k++) {
      const int g = k / linear.scale_group;
      if (g != known) {
        for_each_number(linear, of_scales, g, g + 1, [&](int, F numbers) { store(scales, numbers); });
        if (linear.minimums)
          for_each_number(linear, of_minimums, g, g + 1, [&](int, F numbers) { store(minimums, numbers); });
        if (linear.zero_bits) store(zeros, to_float(zeros_at(linear, panel, g)));
        known = g;
      }
      int code = (int)(Panel::get(record_of<Panel>(linear, row, k), lane, k % Panel::kStep) >> 8 * (k % 4) & 255);
      if constexpr (std::is_same_v<Panel, Int4Panel>) code = linear.book[code];
      const float weight = scales[lane] * ((float)code - zeros[lane]);
      out[linear.order ? linear.order[k] : k] = linear.minimums ? weight + minimums[lane] : weight;
    }
  });
}

}  // namespace tgi

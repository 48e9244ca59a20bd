// Creating linear layers and filling them: done once while loading, row by row, on all threads.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <vector>

#include "simd/amx.h"
#include "convert.h"
#include "handles.h"
#include "linear.h"
#include "narrow.h"
#include "panel.h"

namespace tgi {
namespace {

int panel_step(int format) {
#if defined(__AMX_BF16__)
  if (format == TGI_BFLOAT16) return kAmxHalves;
#endif
  return format == TGI_BFLOAT16 ? Bf16Panel::kStep : 1;
}

// A group of `length` columns of one panel.
size_t group_bytes(const Linear& linear, int length) {
  return with_format(linear.format, [&](auto panel) { return decltype(panel)::group_bytes(length); });
}

uint8_t* group_at(const Linear& linear, int row, int g) {
  return linear.data + size_t(row / kLanes) * linear.panel_bytes + g * group_bytes(linear, linear.group);
}

float* float32_at(const Linear& linear, int row, int k) {
  return reinterpret_cast<float*>(linear.data + size_t(row / kLanes) * linear.panel_bytes) + size_t(k) * kLanes +
         row % kLanes;
}

uint16_t* half_at(const Linear& linear, int row, int k) {
  auto* panel = reinterpret_cast<uint16_t*>(linear.data + size_t(row / kLanes) * linear.panel_bytes);
  const int lane = row % kLanes;
  return panel + (linear.format == TGI_BFLOAT16 ? size_t(k / 2) * 2 * kLanes + 2 * lane + k % 2
                                                : size_t(k) * kLanes + lane);
}

uint32_t header_word(float scale, int zero_point) {
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  return (bits & 0xffffff00u) | (uint32_t)zero_point;
}

void set_header(const Linear& linear, int row, int g, float scale, int zero_point) {
  const uint32_t word = header_word(scale, zero_point);
  memcpy(group_at(linear, row, g) + 4 * (row % kLanes), &word, 4);
}

// The part of the record of column k of a group that belongs to one row.
template <class Panel>
uint8_t* record_at(uint8_t* group, int lane, int k) {
  return group + kHeaderBytes + k / Panel::kStep * Panel::kBytes + 4 * lane;
}

// Four codes of one row from column k on, a multiple of 4, a byte each.
uint32_t get_word(int format, uint8_t* group, int lane, int k) {
  return with_format(format, [&](auto panel) {
    using Panel = decltype(panel);
    return Panel::get(record_at<Panel>(group, lane, k), k);
  });
}

void set_word(int format, uint8_t* group, int lane, int k, uint32_t codes) {
  with_format(format, [&](auto panel) {
    using Panel = decltype(panel);
    Panel::set(record_at<Panel>(group, lane, k), k, codes);
  });
}

// Squared error of rounding x to multiples of `scale`, and in *better the scale that fits those multiples best.
float rounding_error(const float* x, int count, float scale, float lowest, float highest, float* better) {
  const F inverse = set(1.0f / scale), s = set(scale);
  F error = zero(), dot = zero(), square = zero();
  for (int k = 0; k < count; k += kLanes) {
    const F v = load(x + k);
    const F q = min(max(round(mul(v, inverse)), set(lowest)), set(highest));
    const F e = sub(v, mul(q, s));
    error = fma(e, e, error);
    dot = fma(v, q, dot);
    square = fma(q, q, square);
  }
  const float squares = sum(square);
  *better = squares > 0 ? sum(dot) / squares : scale;
  return sum(error);
}

Search search_of(int format) {
  return with_format(format, [](auto panel) { return decltype(panel)::kSearch; });
}

// The scale with the least squared error among some: those that map the largest value to the end of the
// range or clip it a little, and the least-squares refit of each.
float best_scale(const float* x, int count, int format) {
  F above = zero(), below = zero();
  for (int k = 0; k < count; k += kLanes) {
    above = max(load(x + k), above);
    below = max(sub(zero(), load(x + k)), below);
  }
  const float high = largest(above), low = -largest(below);
  const float peak = high > -low ? high : -low;
  if (!(peak > 1e-30f)) return 0;
  const Search search = search_of(format);
  // With one more code below zero than above, the sign of a scale of few codes is worth choosing: the peak gets the lowest.
  const float lowest = search.lowest, highest = search.highest;
  const float sign = -lowest > highest && high > -low ? -1.0f : 1.0f;
  float best = sign * peak / -lowest, refit, least = INFINITY;
  for (int i = 0; i < search.candidates; i++) {
    float scale = sign * peak / (search.first + search.step * (float)i);
    for (int pass = 0; pass < 2; pass++) {
      const float error = rounding_error(x, count, scale, lowest, highest, &refit);
      if (error < least) least = error, best = scale;
      if (fabsf(refit) < 1e-30f) break;
      scale = refit;
    }
  }
  return best;
}

void quantise_row(const Linear& linear, const float* x, int row) {
  const int lane = row % kLanes, zero_point = zero_of(linear.format);
  const Search search = search_of(linear.format);
  for (int g = 0; g < linear.groups; g++) {
    const float* values = x + g * linear.group;
    const int length = group_length(linear.group, linear.padded_in, g * linear.group);
    const uint32_t word = header_word(best_scale(values, length, linear.format), 0);
    float scale;  // as it will be read back: rounded to 24 bits
    memcpy(&scale, &word, 4);
    set_header(linear, row, g, scale, zero_point);
    uint8_t* group = group_at(linear, row, g);
    const F inverse = set(scale != 0 ? 1.0f / scale : 0.0f);
    for (int k = 0; k < length; k += kLanes) {
      uint8_t codes[kLanes];
      store_s8(codes, to_int(min(max(mul(load(values + k), inverse), set(search.lowest)), set(search.highest))));
      for (uint8_t& code : codes) code = (uint8_t)(code + zero_point);
      for (int i = 0; i < kLanes; i += 4) {
        uint32_t four;
        memcpy(&four, codes + i, 4);
        set_word(linear.format, group, lane, k + i, four);
      }
    }
  }
}

void pack_row(const Linear& linear, const float* x, int row) {
  if (linear.group) return quantise_row(linear, x, row);
  for (int k = 0; k < linear.in; k++) {
    if (linear.format == TGI_FLOAT32) *float32_at(linear, row, k) = x[k];
    else if (linear.format == TGI_BFLOAT16) *half_at(linear, row, k) = float_to_bfloat16(x[k]);
  }
}

// Row `row` of a matrix as float32. Rows that lie together are what start-up time goes to.
void widen_row(const void* weights, int type, int64_t start, int64_t column_stride, int count, float* values) {
  if (column_stride != 1) {
    for (int k = 0; k < count; k++) values[k] = read_element(weights, type, start + k * column_stride);
  } else if (type == TGI_FLOAT32) {
    memcpy(values, static_cast<const float*>(weights) + start, 4 * size_t(count));
  } else if (type == TGI_BFLOAT16) {
    const uint16_t* halves = static_cast<const uint16_t*>(weights) + start;
    for (int k = 0; k < count; k++) values[k] = bfloat16_to_float(halves[k]);
  } else {
    const uint16_t* halves = static_cast<const uint16_t*>(weights) + start;
    int k = 0;
    for (; k + kLanes <= count; k += kLanes) store(values + k, load_f16(halves + k));
    for (; k < count; k++) values[k] = float16_to_float(halves[k]);
  }
}

// Halves that stay as they are. A pair of columns lies together in a bfloat16 panel.
void copy_halves(const Linear& linear, const uint16_t* halves, int64_t column_stride, int row) {
  int k = 0;
  if (linear.format == TGI_BFLOAT16 && column_stride == 1)
    for (; k + 2 <= linear.in; k += 2) memcpy(half_at(linear, row, k), halves + k, 4);
  for (; k < linear.in; k++) *half_at(linear, row, k) = halves[k * column_stride];
}

// Runs body(row) for the rows [first, first + rows), spread over the members by whole panels.
template <class Body>
void for_each_row(Pool& pool, int first, int rows, const Body& make_body) {
  const int first_panel = first / kLanes, panels = (first + rows + kLanes - 1) / kLanes - first_panel;
  auto work = [&](const Member& member) {
    auto body = make_body();
    const int begin = (first_panel + (int)member.begin(panels)) * kLanes;
    const int end = (first_panel + (int)member.end(panels)) * kLanes;
    for (int row = begin < first ? first : begin; row < end && row < first + rows; row++) body(row);
  };
  pool.run(work);
}

}  // namespace

void read_row(const Linear& linear, int64_t id, float* out) {
  if (id < 0 || id >= linear.out) {
    memset(out, 0, sizeof(float) * linear.in);
    return;
  }
  const int row = (int)id;
  if (linear.narrow) {
    for (int k = 0; k < linear.in; k++) out[k] = bfloat16_to_float(narrow_at(linear, row, k));
    for (const uint32_t* next = exceptions_of(linear, row / kLanes); *next != kNoException; next++) {
      const int k = exception_k(*next);
      if (exception_lane(*next) == row % kLanes && k < linear.in)
        out[k] = bfloat16_to_float((uint16_t)((narrow_at(linear, row, k) & 255) | (*next & 255) << 8));
    }
    return;
  }
  if (!linear.group) {
    for (int k = 0; k < linear.in; k++)
      out[k] = linear.format == TGI_FLOAT32    ? *float32_at(linear, row, k)
               : linear.format == TGI_BFLOAT16 ? bfloat16_to_float(*half_at(linear, row, k))
                                               : float16_to_float(*half_at(linear, row, k));
    return;
  }
  for (int g = 0; g < linear.groups; g++) {
    uint8_t* group = group_at(linear, row, g);
    uint32_t word;
    memcpy(&word, group + 4 * (row % kLanes), 4);
    const uint32_t scale_bits = word & 0xffffff00u;
    float scale;
    memcpy(&scale, &scale_bits, 4);
    float* to = out + g * linear.group;
    const int length = group_length(linear.group, linear.in, g * linear.group), zero_point = (int)(word & 255);
    for (int k = 0; k < length; k += 4) {
      const uint32_t four = get_word(linear.format, group, row % kLanes, k);
      for (int i = 0; i < 4 && k + i < length; i++) to[k + i] = scale * (float)((int)(four >> 8 * i & 255) - zero_point);
    }
  }
}

}  // namespace tgi

using namespace tgi;

namespace {

template <class... Panels>
int number_of(PanelList<Panels...>, const char* name) {
  int number = TGI_INT8;
  const bool found = (... || (strcmp(name, Panels::kName) == 0 || (number++, false)));
  return found ? number : -1;
}

}  // namespace

int tgi_format(const char* name) {
  constexpr const char* kFloats[] = {"float32", "bfloat16", "float16"};
  for (int type = 0; type < TGI_INT8; type++)
    if (strcmp(name, kFloats[type]) == 0) return type;
  return number_of(CodePanels{}, name);
}

tgi_linear* tgi_linear_create(tgi_arena* arena, int format, int in, int out, int group, int zero_points, int bias,
                              int activations) {
  const bool quantised = has_codes(format);
  const int unit = !quantised ? panel_step(format) : 16;
  Linear linear{};
  linear.format = format;
  linear.in = in;
  linear.out = out;
  linear.padded_in = (in + unit - 1) / unit * unit;
  linear.group = !quantised ? 0 : group ? group : linear.padded_in;
  linear.groups = quantised ? (linear.padded_in + linear.group - 1) / linear.group : 0;
  linear.panels = (out + kLanes - 1) / kLanes;
  linear.zero_points = zero_points != 0;
  linear.rounds = quantised && activations == TGI_INT8;
  if (quantised) {
    const int whole = linear.groups - 1, last = linear.padded_in - whole * linear.group;
    linear.panel_bytes = whole * group_bytes(linear, linear.group) + group_bytes(linear, last);
  } else linear.panel_bytes = size_t(linear.padded_in) * kLanes * (format == TGI_FLOAT32 ? 4 : 2);
  // The rows that pad the last panel stay zeros: scale 0 times anything is 0.
  Arena* home = &arena->arena;
  if (format == TGI_BFLOAT16) linear.staging = home = arena->staging.emplace_back(new Arena).get();
  linear.data = static_cast<uint8_t*>(home->allocate(linear.panels * linear.panel_bytes));
  if (bias) linear.bias = static_cast<float*>(arena->arena.allocate(size_t(linear.panels) * kLanes * 4));
  void* self = arena->arena.allocate(sizeof(Linear));
  if (!linear.data || !self || (bias && !linear.bias)) return nullptr;
  return new (self) Linear(linear);
}

size_t tgi_linear_bytes(const tgi_linear* linear) { return linear->panels * linear->panel_bytes; }

int tgi_linear_finish(tgi_pool* pool, tgi_arena* arena, tgi_linear* linear) {
  if (!linear->staging) return 1;
  if (!narrow_layer(pool->pool, arena->arena, *linear)) return 0;
  if (!linear->narrow) return 1;
  auto& staging = arena->staging;
  staging.erase(std::find_if(staging.begin(), staging.end(),
                             [&](const auto& one) { return one.get() == linear->staging; }));
  linear->staging = nullptr;
  return 1;
}

void tgi_linear_pack(tgi_pool* pool, tgi_linear* linear, const void* weights, int type, int64_t row_stride,
                     int64_t column_stride, int first, int rows) {
  for_each_row(pool->pool, first, rows, [&] {
    return [&, values = std::vector<float>(linear->padded_in)](int row) mutable {
      const int64_t start = (row - first) * row_stride;
      if (linear->format == type && type != TGI_FLOAT32)  // nothing narrows to float16 here
        return copy_halves(*linear, static_cast<const uint16_t*>(weights) + start, column_stride, row);
      widen_row(weights, type, start, column_stride, linear->in, values.data());
      pack_row(*linear, values.data(), row);
    };
  });
}

void tgi_linear_pack_codes(tgi_pool* pool, tgi_linear* linear, const uint8_t* codes, const float* scales,
                           const uint8_t* zeros, int first, int rows) {
  const int symmetric = zero_of(linear->format);
  for_each_row(pool->pool, first, rows, [&] {
    return [&](int row) {
      const size_t from = row - first;
      for (int g = 0; g < linear->groups; g++) {
        const size_t at = from * linear->groups + g;
        set_header(*linear, row, g, scales[at], zeros ? zeros[at] : symmetric);
        uint8_t* group = group_at(*linear, row, g);
        const uint8_t* of_group = codes + from * linear->in + g * linear->group;
        const int length = group_length(linear->group, linear->in, g * linear->group);
        for (int k = 0; k < length; k += 4) {
          uint32_t four = 0;
          memcpy(&four, of_group + k, std::min(4, length - k));
          set_word(linear->format, group, row % kLanes, k, four);
        }
      }
    };
  });
}

void tgi_linear_set_bias(tgi_linear* linear, const float* bias, int first, int count) {
  memcpy(linear->bias + first, bias, 4 * size_t(count));
}

void tgi_linear_rows(tgi_pool* pool, const tgi_linear* linear, const int64_t* rows, int count, float* out) {
  auto work = [&](const Member& member) {
    for (int64_t i = member.begin(count); i < member.end(count); i++)
      read_row(*linear, rows[i], out + i * linear->in);
  };
  pool->pool.run(work);
}

void tgi_linear_run(tgi_pool* pool, const tgi_linear* linear, const float* x, int rows, float* y, int accumulate) {
  std::vector<uint8_t> memory(packed_bytes(*linear, rows) + 64);
  void* aligned = reinterpret_cast<void*>((reinterpret_cast<size_t>(memory.data()) + 63) / 64 * 64);
  const Packed packed = packed_in(*linear, rows, aligned);
  auto work = [&](const Member& member) {
    const int units = pack_units(*linear);
    const Share share{0, rows, (int)member.begin(units), (int)member.end(units)};
    pack_activations(*linear, x, linear->in, rows, share, packed);
    member.barrier();
    multiply_panels(*linear, packed, rows, (int)member.begin(linear->panels), (int)member.end(linear->panels), y,
                    linear->out, accumulate != 0);
  };
  pool->pool.run(work);
}

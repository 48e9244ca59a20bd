// Creating linear layers and filling them: done once while loading, row by row, on all threads.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include "simd/amx.h"
#include "apart.h"
#include "convert.h"
#include "eight.h"
#include "hadamard.h"
#include "handles.h"
#include "linear.h"
#include "narrow.h"
#include "panel.h"
#include "rounding.h"

namespace tgi {
namespace {

int panel_step(int format) {
#if defined(__AMX_BF16__)
  if (format == TGI_BFLOAT16) return kAmxHalves;
#endif
  return format == TGI_BFLOAT16 ? Bf16Panel::kStep : 1;
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

// Four codes of one row from column k on, a multiple of 4, a byte each.
void set_word(int format, uint8_t* group, int lane, int k, uint32_t codes) {
  with_format(format, [&](auto panel) {
    using Panel = decltype(panel);
    Panel::set(record_at<Panel>(group, k), lane, k, codes);
  });
}

void pack_row(const Linear& linear, const float* x, int row) {
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

// Runs body(panel, first, last, member) for the rows [first, first + rows), which are split over the members by whole panels:
// lanes [first, last) of each panel.
template <class Body>
void for_each_panel(Pool& pool, int first, int rows, const Body& make_body) {
  const int first_panel = first / kLanes, panels = (first + rows + kLanes - 1) / kLanes - first_panel;
  auto work = [&](const Member& member) {
    auto body = make_body();
    for (int64_t i = member.begin(panels); i < member.end(panels); i++) {
      const int panel = first_panel + (int)i, row = panel * kLanes;
      body(panel, std::max(first - row, 0), std::min(first + rows - row, kLanes));
    }
  };
  pool.run(work);
}

// Runs body(row) for the rows [first, first + rows).
template <class Body>
void for_each_row(Pool& pool, int first, int rows, const Body& make_body) {
  for_each_panel(pool, first, rows, [&] {
    return [body = make_body()](int panel, int begin, int end) mutable {
      for (int lane = begin; lane < end; lane++) body(panel * kLanes + lane);
    };
  });
}

// The matrix that rows are packed from; `first` is the layer's row that its first one is.
struct Source {
  const void* weights;
  int type;
  int64_t row_stride, column_stride;
  int first;
};

void pack_floats(Pool& pool, const Linear& linear, const Source& source, int rows) {
  for_each_row(pool, source.first, rows, [&] {
    return [&, values = std::vector<float>(linear.padded_in)](int row) mutable {
      const int64_t start = (row - source.first) * source.row_stride;
      if (linear.format == source.type && source.type != TGI_FLOAT32)  // nothing narrows to float16 here
        return copy_halves(linear, static_cast<const uint16_t*>(source.weights) + start, source.column_stride, row);
      widen_row(source.weights, source.type, start, source.column_stride, linear.in, values.data());
      pack_row(linear, values.data(), row);
    };
  });
}

void pack_rounded(Pool& pool, const Linear& linear, const Source& source, int rows, const Feedback* feedback,
                  RoundingErrors* errors) {
  std::mutex adding;
  for_each_panel(pool, source.first, rows, [&] {
    return [&, row_values = std::vector<float>(linear.padded_in),
            values = std::vector<float>(size_t(linear.padded_in) * kLanes)](int panel, int begin, int end) mutable {
      std::fill(values.begin(), values.end(), 0.0f);
      for (int lane = begin; lane < end; lane++) {
        const int64_t start = (panel * kLanes + lane - source.first) * source.row_stride;
        widen_row(source.weights, source.type, start, source.column_stride, linear.in, row_values.data());
        if (linear.rotated) rotate_row(row_values.data(), linear.in);
        for (int k = 0; k < linear.in; k++) values[size_t(k) * kLanes + lane] = row_values[k];
      }
      RoundingErrors of_panel;
      round_panel(linear, panel, begin, end, values.data(), feedback, &of_panel);
      if (!feedback) return;
      const std::lock_guard<std::mutex> lock(adding);
      errors->rounded += of_panel.rounded;
      errors->plain += of_panel.plain;
    };
  });
}

// Four columns of a row as they are kept: codes, a byte each, and what they share.
struct Four {
  uint32_t codes;
  float scale;
  int zero_point;
};

// Calls body(panel, k, four) for every fourth column k of row `row` of a layer of codes.
template <class Body>
void for_each_four(const Linear& linear, int row, const Body& body) {
  const int part = linear.group / linear.scales, lane = row % kLanes;
  with_format(linear.format, [&](auto type) {
    using Panel = decltype(type);
    for (int k = 0; k < linear.in; k += 4) {
      const int of_group = k % linear.group;
      uint8_t* group = group_at(linear, row, k / linear.group);
      uint32_t word;
      memcpy(&word, group + 4 * lane, 4);
      const uint32_t bits = !Panel::kTwoScales ? word & 0xffffff00u : of_group / part ? word & 0xffff0000u : word << 16;
      Four four;
      memcpy(&four.scale, &bits, 4);
      four.zero_point = Panel::kZero;
      four.codes = Panel::get(record_at<Panel>(group, of_group), lane, of_group);
      body(type, k, four);
    }
  });
}

// Row `row` of a layer of codes, as it is kept: rotated, if the layer is.
void read_codes(const Linear& linear, int row, float* out) {
  for_each_four(linear, row, [&](auto type, int k, const Four& four) {
    using Panel = decltype(type);
    for (int i = 0; i < 4 && k + i < linear.in; i++) {
      int code = (int)(four.codes >> 8 * i & 255);
      if constexpr (Panel::kBook != nullptr) code = Panel::kBook[code];
      out[k + i] = four.scale * (float)(code - four.zero_point);
    }
  });
}

}  // namespace

void read_row(const Linear& linear, int64_t id, float* out) {
  if (id < 0 || id >= linear.out) {
    memset(out, 0, sizeof(float) * linear.in);
    return;
  }
  const int row = (int)id;
  if (linear.eight) return read_eight(linear, row, out);
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
  if (linear.apart) return read_apart(linear, row, out);
  read_codes(linear, row, out);
  if (linear.rotated) rotate_row(out, linear.in);
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
  if (strcmp(name, "e4m3") == 0) return TGI_E4M3;
  return number_of(CodePanels{}, name);
}

// Sizes and tables of a layer whose scales lie apart. False: no memory.
static bool set_apart(tgi_arena* arena, Linear& linear, const tgi_linear_apart& shape) {
  linear.apart = true;
  linear.scale_group = shape.scale_group ? shape.scale_group : linear.padded_in;
  linear.scale_groups = (linear.in + linear.scale_group - 1) / linear.scale_group;
  linear.scale_type = shape.scale_type;
  linear.zero_bits = shape.zero_bits;
  linear.minimums = shape.minimums != 0;
  linear.zero = shape.zero;
  linear.scales = 1;
  for (int code = 0; code < 16; code++) linear.book[code] = shape.book ? shape.book[code] : (uint8_t)code;
  if (shape.order) {
    auto* order = static_cast<int32_t*>(arena->arena.allocate(sizeof(int32_t) * linear.in));
    if (!order) return false;
    memcpy(order, shape.order, sizeof(int32_t) * linear.in);
    linear.order = order;
  }
  lay_out_apart(linear);
  return true;
}

// Sizes of a layer of floats of 8 bits, whose other sizes are known. False: no memory.
static bool set_eight(tgi_arena* arena, Linear& linear, int group) {
  linear.eight = true;
  linear.padded_in = (linear.padded_in + kEightStep - 1) / kEightStep * kEightStep;
  linear.factor_group = group ? group : linear.padded_in;
  linear.factor_groups = (linear.in + linear.factor_group - 1) / linear.factor_group;
  linear.panel_bytes = size_t(linear.padded_in) * kLanes;
  const size_t factors = size_t(linear.panels) * linear.factor_groups * kLanes;
  linear.factors = static_cast<float*>(arena->arena.allocate(factors * sizeof(float)));
  return linear.factors != nullptr;
}

tgi_linear* tgi_linear_create(tgi_arena* arena, const tgi_linear_shape* shape) {
  const bool eight = shape->format == TGI_E4M3;
  const int format = eight ? TGI_BFLOAT16 : shape->format, in = shape->in, out = shape->out, bias = shape->bias;
  const bool quantised = has_codes(format);
  if (quantised && !shape->apart && !rounds_to(format)) return nullptr;
  const int unit = !quantised ? panel_step(format) : std::max(16, with_format(format, [](auto panel) {
    return decltype(panel)::kStep;
  }));
  Linear linear{};
  linear.format = format;
  linear.in = in;
  linear.out = out;
  linear.padded_in = (in + unit - 1) / unit * unit;
  linear.group = !quantised ? 0 : shape->group ? shape->group : linear.padded_in;
  linear.groups = quantised ? (linear.padded_in + linear.group - 1) / linear.group : 0;
  linear.scales = quantised ? scales_of(format) : 1;
  linear.panels = (out + kLanes - 1) / kLanes;
  linear.zero = quantised ? zero_of(format) : 0;
  linear.rotated = shape->rotated != 0;
  linear.rounds = quantised && shape->activations == TGI_INT8;
  if (eight) {
    if (!set_eight(arena, linear, shape->group)) return nullptr;
  } else if (shape->apart && quantised) {
    if (!set_apart(arena, linear, *shape->apart)) return nullptr;
  } else if (quantised) {
    const int whole = linear.groups - 1, last = linear.padded_in - whole * linear.group;
    linear.panel_bytes = whole * bytes_of_group(linear.format, linear.group) + bytes_of_group(linear.format, last);
  } else linear.panel_bytes = size_t(linear.padded_in) * kLanes * (format == TGI_FLOAT32 ? 4 : 2);
  // The rows that pad the last panel stay zeros: scale 0 times anything is 0.
  Arena* home = &arena->arena;
  if (format == TGI_BFLOAT16 && !eight) linear.staging = home = arena->staging.emplace_back(new Arena).get();
  linear.data = static_cast<uint8_t*>(home->allocate(linear.panels * linear.panel_bytes));
  if (bias) linear.bias = static_cast<float*>(arena->arena.allocate(size_t(linear.panels) * kLanes * 4));
  void* self = arena->arena.allocate(sizeof(Linear));
  if (!linear.data || !self || (bias && !linear.bias)) return nullptr;
  return new (self) Linear(linear);
}

size_t tgi_linear_bytes(const tgi_linear* linear) {
  return linear->panels * (linear->panel_bytes + sizeof(float) * linear->factor_groups * kLanes);
}

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
                     int64_t column_stride, int first, int rows, tgi_feedback* feedback) {
  const Source source{weights, type, row_stride, column_stride, first};
  if (!linear->group) return pack_floats(pool->pool, *linear, source, rows);
  if (!feedback) return pack_rounded(pool->pool, *linear, source, rows, nullptr, nullptr);
  const Feedback inputs{feedback->factors, feedback->importance};
  RoundingErrors errors;
  pack_rounded(pool->pool, *linear, source, rows, &inputs, &errors);
  feedback->rounded_error += errors.rounded;
  feedback->plain_error += errors.plain;
}

void tgi_linear_pack_codes(tgi_pool* pool, tgi_linear* linear, const uint8_t* codes, const float* scales,
                           const uint8_t* zeros, const float* minimums, const float* steps, const float* minimum_steps,
                           int first, int rows) {
  if (linear->eight)
    return for_each_row(pool->pool, first, rows, [&] {
      return [&](int row) {
        const size_t from = row - first;
        pack_eight(*linear, codes + from * linear->in, scales + from * linear->factor_groups, row);
      };
    });
  if (linear->apart) {
    const StoredRows stored{codes, scales, zeros, minimums, steps, minimum_steps};
    return for_each_row(pool->pool, first, rows, [&] {
      return [&](int row) { pack_apart(*linear, stored, row - first, row); };
    });
  }
  const int part = linear->group / linear->scales;
  const int parts = (linear->in + part - 1) / part;
  for_each_row(pool->pool, first, rows, [&] {
    return [&](int row) {
      const size_t from = row - first;
      const float* of_row = scales + from * parts;
      for (int g = 0; g < linear->groups; g++) {
        if (linear->scales == 1) {
          set_header(*linear, row, g, header_word(of_row[g], linear->zero));
        } else {
          const uint32_t upper = 2 * g + 1 < parts ? float_to_bfloat16(of_row[2 * g + 1]) : 0;
          set_header(*linear, row, g, upper << 16 | float_to_bfloat16(of_row[2 * g]));
        }
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

void tgi_linear_codes(tgi_pool* pool, const tgi_linear* linear, uint8_t* codes, float* scales, uint8_t* zeros, int first,
                      int rows) {
  const int part = linear->group / linear->scales, parts = (linear->in + part - 1) / part;
  for_each_row(pool->pool, first, rows, [&] {
    return [&](int row) {
      const size_t to = row - first;
      for_each_four(*linear, row, [&](auto, int k, const Four& four) {
        memcpy(codes + to * linear->in + k, &four.codes, std::min(4, linear->in - k));
        scales[to * parts + k / part] = four.scale;
        if (zeros) zeros[to * linear->groups + k / linear->group] = (uint8_t)four.zero_point;
      });
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

#include "recurrent.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "rows.h"
#include "simd/simd.h"

namespace tgi {
namespace {

float softplus(float v) { return v > 20 ? v : log1pf(expf(v)); }

// The state of a head where it is written: a copy of what was read.
float* begin_state(const StateRows& rows, int64_t at, size_t size) {
  float* state = rows.write + at;
  if (!rows.read) memset(state, 0, 4 * size);
  else if (rows.read != rows.write) memcpy(state, rows.read + at, 4 * size);
  return state;
}

// S = S * decay + given * b, whose products with c are summed; numbers [0, width) of a row of the state.
float scan_row(float* state, const float* b, const float* c, float decay, float given, int width) {
  F total = zero();
  for (int n = 0; n < width; n += kLanes) {
    const int lanes = std::min(width - n, kLanes);
    const bool full = lanes == kLanes;
    const F before = full ? load(state + n) : load_part(state + n, lanes);
    const F bs = full ? load(b + n) : load_part(b + n, lanes), cs = full ? load(c + n) : load_part(c + n, lanes);
    const F after = fma(before, set(decay), mul(set(given), bs));
    full ? store(state + n, after) : store_part(state + n, after, lanes);
    total = fma(after, cs, total);
  }
  return sum(total);
}

// x divided by its length, times scale.
void unit(const float* x, int width, float scale, float* y) {
  float total = 0;
  for (int i = 0; i < width; i++) total += x[i] * x[i];
  const float factor = scale / sqrtf(total + 1e-6f);
  for (int i = 0; i < width; i++) y[i] = x[i] * factor;
}

// One row of the delta rule for `lanes` numbers of the values; state [key_dim][stride].
void delta_lanes(float* state, int stride, int key_dim, const float* k, const float* q, const float* v, float decay, float beta,
                 int lanes, float* out) {
  const bool full = lanes == kLanes;
  F known = zero();
  for (int i = 0; i < key_dim; i++) {
    float* at = state + size_t(i) * stride;
    const F s = mul(full ? load(at) : load_part(at, lanes), set(decay));
    full ? store(at, s) : store_part(at, s, lanes);
    known = fma(s, set(k[i]), known);
  }
  const F delta = mul(set(beta), sub(full ? load(v) : load_part(v, lanes), known));
  F total = zero();
  for (int i = 0; i < key_dim; i++) {
    float* at = state + size_t(i) * stride;
    const F s = fma(set(k[i]), delta, full ? load(at) : load_part(at, lanes));
    full ? store(at, s) : store_part(at, s, lanes);
    total = fma(s, set(q[i]), total);
  }
  full ? store(out, total) : store_part(out, total, lanes);
}

}  // namespace

void convolve(const tgi_convolve_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& out,
              int width, const Member& member) {
  const int units = (width + kLanes - 1) / kLanes, before = op.kernel - 1;
  const int first = (int)member.begin(units) * kLanes, past = std::min((int)member.end(units) * kLanes, width);
  const int count = past - first;
  if (count <= 0) return;
  std::vector<float> known(size_t(std::max(before, 1)) * count);  // the rows before, since a state may be written over itself
  for (const StateRows& rows : sequences) {
    for (int j = 0; j < before; j++) {
      float* to = &known[size_t(j) * count];
      if (rows.read) memcpy(to, rows.read + op.at + size_t(j) * width + first, 4 * size_t(count));
      else memset(to, 0, 4 * size_t(count));
    }
    // Row r - before + j of the sequence: one of those before the step, or one of its own.
    const auto row_at = [&](int r) -> const float* {
      return r < 0 ? &known[size_t(r + before) * count] : x.at(rows.begin + r) + op.offset + first;
    };
    const int length = rows.end - rows.begin;
    for (int r = 0; r < length; r++) {
      float* y = out.at(rows.begin + r) + first;
      for (int i = 0; i < count; i++) y[i] = op.bias ? op.bias[first + i] : 0;
      for (int j = 0; j < op.kernel; j++) {
        const float *from = row_at(r - before + j), *weight = op.weight + size_t(j) * width + first;
        for (int i = 0; i < count; i++) y[i] += weight[i] * from[i];
      }
      if (op.function >= 0) activate(op.function, y, count, y);
    }
    for (int j = 0; j < before; j++)
      memcpy(rows.write + op.at + size_t(j) * width + first, row_at(length - before + j), 4 * size_t(count));
  }
}

void scan(const tgi_scan_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& other,
          const RowsOf& out, const Member& member) {
  const int64_t items = int64_t(sequences.size()) * op.heads;
  const int inner = op.heads * op.head_dim, width = op.head_dim * op.state_dim;
  for (int64_t item = member.begin(items); item < member.end(items); item++) {
    const StateRows& rows = sequences[item / op.heads];
    const int head = (int)(item % op.heads), group = head / (op.heads / op.groups);
    float* state = begin_state(rows, op.at + int64_t(head) * width, width);
    const float rate = -expf(op.log_decay[head]);
    for (int r = rows.begin; r < rows.end; r++) {
      const float* values = x.at(r) + head * op.head_dim;
      const float* b = x.at(r) + inner + group * op.state_dim;
      const float* c = b + op.groups * op.state_dim;
      float dt = softplus(other.at(r)[op.offset + head] + op.dt_bias[head]);
      dt = dt < op.least ? op.least : dt > op.most ? op.most : dt;
      const float decay = expf(rate * dt);
      float* y = out.at(r) + head * op.head_dim;
      for (int p = 0; p < op.head_dim; p++)
        y[p] = scan_row(state + p * op.state_dim, b, c, decay, dt * values[p], op.state_dim) + op.skip[head] * values[p];
    }
  }
}

void delta_rule(const tgi_delta_rule_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& other,
                const RowsOf& out, const Member& member) {
  const int64_t items = int64_t(sequences.size()) * op.heads;
  const int keys = op.key_heads * op.key_dim, size = op.key_dim * op.value_dim;
  const float scale = 1 / sqrtf((float)op.key_dim);
  std::vector<float> units(2 * size_t(op.key_dim));
  float *q = units.data(), *k = q + op.key_dim;
  for (int64_t item = member.begin(items); item < member.end(items); item++) {
    const StateRows& rows = sequences[item / op.heads];
    const int head = (int)(item % op.heads), key_head = head / (op.heads / op.key_heads);
    float* state = begin_state(rows, op.at + int64_t(head) * size, size);
    const float rate = -expf(op.log_decay[head]);
    for (int r = rows.begin; r < rows.end; r++) {
      const float *row = x.at(r), *gates = other.at(r) + op.offset;
      unit(row + key_head * op.key_dim, op.key_dim, scale, q);
      unit(row + keys + key_head * op.key_dim, op.key_dim, 1, k);
      const float beta = 1 / (1 + expf(-gates[head]));
      const float decay = expf(rate * softplus(gates[op.heads + head] + op.dt_bias[head]));
      const float* v = row + 2 * keys + head * op.value_dim;
      float* y = out.at(r) + head * op.value_dim;
      for (int d = 0; d < op.value_dim; d += kLanes)
        delta_lanes(state + d, op.value_dim, op.key_dim, k, q, v + d, decay, beta, std::min(op.value_dim - d, kLanes), y + d);
    }
  }
}

}  // namespace tgi

#include "experts.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "rows.h"

namespace tgi {
namespace {

int stride_of(int width) { return ((width + 15) / 16 | 1) * 16; }

// Floats from row to row of what is gathered, of gate and up, of their product, and of what comes down.
struct Strides {
  int x, up = 0, inner = 0, down;

  explicit Strides(const tgi_experts_op& op) : x(stride_of(op.up[0]->in)), down(stride_of(op.down[0]->out)) {
    for (int e = 0; e < op.count; e++) {
      up = std::max(up, stride_of(op.up[e]->out));
      inner = std::max(inner, stride_of(op.down[e]->in));
    }
  }
  size_t sum() const { return size_t(x) + up + inner + down; }
};

// The largest of scores that is not among ids [0, count), -1 if there is none; of equal ones the first. A score that is not a
// number leaves none out: the weights are not numbers either, and the row shows it.
int best_of(const float* scores, int experts, const int* ids, int count) {
  int best = -1;
  for (int e = 0; e < experts; e++)
    if (scores[e] != -INFINITY && std::find(ids, ids + count, e) == ids + count && (best < 0 || scores[e] > scores[best]))
      best = e;
  if (best >= 0) return best;
  for (int e = 0; e < experts; e++)  // all that are left are minus infinity
    if (std::find(ids, ids + count, e) == ids + count) return e;
  return 0;
}

// Scores of experts outside the best groups become minus infinity.
void leave_groups(const tgi_experts_op& op, float* scores, int experts) {
  const int size = experts / op.groups;
  std::vector<float> best(op.groups), own(size);
  std::vector<int> kept(op.top_groups);
  for (int g = 0; g < op.groups; g++) {
    std::copy(scores + g * size, scores + (g + 1) * size, own.begin());
    std::partial_sort(own.begin(), own.begin() + op.group_best, own.end(), [](float a, float b) { return a > b; });
    best[g] = 0;
    for (int i = 0; i < op.group_best; i++) best[g] += own[i];
  }
  for (int i = 0; i < op.top_groups; i++) kept[i] = best_of(best.data(), op.groups, kept.data(), i);
  for (int g = 0; g < op.groups; g++)
    if (std::find(kept.begin(), kept.end(), g) == kept.end()) std::fill_n(scores + g * size, size, -INFINITY);
}

// See `routing` of the reference.
void choose_by_sparsemixer(const tgi_experts_op& op, const float* logits, int experts, int* ids, float* weights) {
  for (int k = 0; k < 2; k++) {
    const int best = best_of(logits, experts, ids, k);
    float total = 0;
    for (int e = 0; e < experts; e++) {
      const bool far = (logits[best] - logits[e]) / std::max(fabsf(logits[e]), logits[best]) > 2 * op.jitter;
      if (!far && (k == 0 || e != ids[0])) total += expf(logits[e] - logits[best]);
    }
    ids[k] = best;
    weights[k] = 1 / total;
  }
}

// The experts of one row and their weights, from the logits of all. scores, corrected: room for as many.
void choose(const tgi_experts_op& op, const float* logits, float* scores, float* corrected, int* ids, float* weights) {
  const int experts = op.count - op.shared;
  if (op.scores == TGI_SPARSEMIXER) return choose_by_sparsemixer(op, logits, experts, ids, weights);
  if (op.scores == TGI_SIGMOID) {
    for (int e = 0; e < experts; e++) scores[e] = 1 / (1 + expf(-logits[e]));
  } else {
    float largest = logits[0], total = 0;
    for (int e = 1; e < experts; e++) largest = std::max(largest, logits[e]);
    for (int e = 0; e < experts; e++) total += scores[e] = expf(logits[e] - largest);
    for (int e = 0; e < experts; e++) scores[e] /= total;
  }
  // Scores too small to differ are told apart by their logits, where nothing is added to them.
  for (int e = 0; e < experts; e++) corrected[e] = op.correction ? scores[e] + op.correction[e] : scores[e];
  if (op.groups > 1) leave_groups(op, corrected, experts);
  else if (!op.correction) std::copy(logits, logits + experts, corrected);
  float chosen = 1e-20f;
  for (int k = 0; k < op.top; k++) {
    ids[k] = best_of(corrected, experts, ids, k);
    chosen += weights[k] = scores[ids[k]];
  }
  for (int k = 0; k < op.top; k++) {
    if (op.normalise) weights[k] /= chosen;
    weights[k] *= op.scales ? op.scale * op.scales[ids[k]] : op.scale;
  }
  if (op.shared) {
    ids[op.top] = experts;
    weights[op.top] = 1.0f / (1.0f + expf(-logits[experts]));
  }
}

// Places by expert, by counting.
void sort_places(int experts, int count, ExpertScratch& scratch) {
  scratch.starts.assign(experts + 1, 0);
  for (int i = 0; i < count; i++) scratch.starts[scratch.ids[i] + 1]++;
  for (int e = 0; e < experts; e++) scratch.starts[e + 1] += scratch.starts[e];
  std::vector<int> next(scratch.starts.begin(), scratch.starts.end() - 1);
  for (int i = 0; i < count; i++) scratch.places[next[scratch.ids[i]]++] = i;
}

}  // namespace

size_t ExpertScratch::floats(const tgi_experts_op& op, int rows) { return Strides(op).sum() * rows; }

void run_experts(const tgi_experts_op& op, const ExpertRows& rows, ExpertScratch& scratch, void* packed_memory,
                 const Member& member, const std::function<void()>& barrier) {
  const Strides strides(op);
  const int slots = op.top + (op.shared ? 1 : 0), width = op.down[0]->out;
  float* gathered = scratch.memory;
  float* up = gathered + size_t(strides.x) * rows.count;
  float* inner = up + size_t(strides.up) * rows.count;
  float* down = inner + size_t(strides.inner) * rows.count;
  if (member.index == 0) {
    const size_t places = size_t(rows.count) * slots;
    scratch.ids.resize(places);
    scratch.weights.resize(places);
    scratch.places.resize(places);
    std::vector<float> scores(2 * size_t(op.count));
    for (int r = 0; r < rows.count; r++)
      choose(op, rows.router + size_t(r) * rows.router_stride, scores.data(), scores.data() + op.count,
             &scratch.ids[size_t(r) * slots], &scratch.weights[size_t(r) * slots]);
    sort_places(op.count, (int)places, scratch);
  }
  for (int64_t r = member.begin(rows.count); r < member.end(rows.count); r++)
    memset(rows.out + r * rows.out_stride, 0, 4 * size_t(width));
  barrier();
  for (int e = 0; e < op.count; e++) {
    const int* places = scratch.places.data() + scratch.starts[e];
    const int count = scratch.starts[e + 1] - scratch.starts[e];
    if (count == 0) continue;
    const Linear &widen = *op.up[e], &narrow = *op.down[e];
    const int begin = (int)member.begin(count), end = (int)member.end(count);
    for (int i = begin; i < end; i++) {
      float* to = gathered + size_t(i) * strides.x;
      memcpy(to, rows.x + size_t(places[i] / slots) * rows.x_stride, 4 * size_t(widen.in));
      if (op.weigh_inputs) scale_by(to, scratch.weights[places[i]], widen.in);
    }
    const Packed x = packed_in(widen, count, packed_memory);
    pack_activations(widen, gathered, strides.x, count, Share{begin, end, 0, pack_units(widen)}, x);
    barrier();
    multiply_panels(widen, x, count, (int)member.begin(widen.panels), (int)member.end(widen.panels), up, strides.up, false);
    barrier();
    for (int i = begin; i < end; i++) {
      float* gate = up + size_t(i) * strides.up;
      if (op.limit != 0) limit_gate(gate, gate + narrow.in, op.limit, narrow.in);
      activate_gated(op.function, gate, gate + narrow.in, narrow.in, inner + size_t(i) * strides.inner);
    }
    const Packed h = packed_in(narrow, count, packed_memory);
    pack_activations(narrow, inner, strides.inner, count, Share{begin, end, 0, pack_units(narrow)}, h);
    barrier();
    multiply_panels(narrow, h, count, (int)member.begin(narrow.panels), (int)member.end(narrow.panels), down, strides.down,
                    false);
    barrier();
    for (int i = begin; i < end; i++) {
      float* y = down + size_t(i) * strides.down;
      if (!op.weigh_inputs) scale_by(y, scratch.weights[places[i]], width);
      add_to(rows.out + size_t(places[i] / slots) * rows.out_stride, y, width);
    }
  }
}

}  // namespace tgi

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

// As many experts in a round as there is memory for, so that few barriers are passed; one at least.
void plan_rounds(const tgi_experts_op& op, ExpertScratch& scratch) {
  scratch.rounds.assign(1, 0);
  scratch.packed.assign(op.count, 0);
  int rows = 0;
  size_t bytes = 0;
  for (int e = 0; e < op.count; e++) {
    const int count = scratch.starts[e + 1] - scratch.starts[e];
    if (count == 0) continue;
    const size_t packed = std::max(packed_bytes(*op.up[e], count), packed_bytes(*op.down[e], count));
    const size_t size = (packed + 63) / 64 * 64;
    if (rows > 0 && (rows + count > scratch.rows || bytes + size > scratch.packed_bytes)) {
      scratch.rounds.push_back(e);
      rows = 0;
      bytes = 0;
    }
    scratch.packed[e] = bytes;
    rows += count;
    bytes += size;
  }
  scratch.rounds.push_back(op.count);
}

}  // namespace

size_t ExpertScratch::floats(const tgi_experts_op& op, int rows) { return Strides(op).sum() * rows; }

void run_experts(const tgi_experts_op& op, const ExpertRows& rows, ExpertScratch& scratch, void* packed_memory,
                 const Member& member, const std::function<void()>& barrier) {
  const Strides strides(op);
  const int slots = op.top + (op.shared ? 1 : 0), width = op.down[0]->out;
  float* gathered = scratch.memory;
  float* up = gathered + size_t(strides.x) * scratch.rows;
  float* inner = up + size_t(strides.up) * scratch.rows;
  float* down = inner + size_t(strides.inner) * scratch.rows;
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
    plan_rounds(op, scratch);
  }
  const int64_t first_row = member.begin(rows.count), past_row = member.end(rows.count);
  for (int64_t r = first_row; r < past_row; r++) memset(rows.out + r * rows.out_stride, 0, 4 * size_t(width));
  barrier();
  for (size_t round = 0; round + 1 < scratch.rounds.size(); round++) {
    const int base = scratch.starts[scratch.rounds[round]], all = scratch.starts[scratch.rounds[round + 1]] - base;
    // Each expert of the round with its rows, of which [begin, end) are the member's; `at`: its first row in the memory.
    const auto each = [&](const auto& run) {
      for (int e = scratch.rounds[round]; e < scratch.rounds[round + 1]; e++) {
        const int at = scratch.starts[e] - base, count = scratch.starts[e + 1] - scratch.starts[e];
        if (count == 0) continue;
        const int begin = std::clamp((int)member.begin(all) - at, 0, count), end = std::clamp((int)member.end(all) - at, 0, count);
        run(e, at, count, begin, end, static_cast<char*>(packed_memory) + scratch.packed[e]);
      }
    };
    const int* places = scratch.places.data() + base;
    each([&](int e, int at, int count, int begin, int end, void* memory) {
      const Linear& widen = *op.up[e];
      for (int i = begin; i < end; i++) {
        float* to = gathered + size_t(at + i) * strides.x;
        memcpy(to, rows.x + size_t(places[at + i] / slots) * rows.x_stride, 4 * size_t(widen.in));
        if (op.weigh_inputs) scale_by(to, scratch.weights[places[at + i]], widen.in);
      }
      pack_activations(widen, gathered + size_t(at) * strides.x, strides.x, count, Share{begin, end, 0, pack_units(widen)},
                       packed_in(widen, count, memory));
    });
    barrier();
    each([&](int e, int at, int count, int, int, void* memory) {
      const Linear& widen = *op.up[e];
      multiply_panels(widen, packed_in(widen, count, memory), count, (int)member.begin(widen.panels),
                      (int)member.end(widen.panels), up + size_t(at) * strides.up, strides.up, false);
    });
    barrier();
    each([&](int e, int at, int count, int begin, int end, void* memory) {
      const Linear& narrow = *op.down[e];
      for (int i = begin; i < end; i++) {
        float* gate = up + size_t(at + i) * strides.up;
        if (op.limit != 0) limit_gate(gate, gate + narrow.in, op.limit, narrow.in);
        activate_gated(op.function, gate, gate + narrow.in, narrow.in, inner + size_t(at + i) * strides.inner);
      }
      pack_activations(narrow, inner + size_t(at) * strides.inner, strides.inner, count,
                       Share{begin, end, 0, pack_units(narrow)}, packed_in(narrow, count, memory));
    });
    barrier();
    each([&](int e, int at, int count, int, int, void* memory) {
      const Linear& narrow = *op.down[e];
      multiply_panels(narrow, packed_in(narrow, count, memory), count, (int)member.begin(narrow.panels),
                      (int)member.end(narrow.panels), down + size_t(at) * strides.down, strides.down, false);
    });
    barrier();
    for (int i = 0; i < all; i++) {  // by expert, then by row: sums of a row are taken in the order of its experts
      const int64_t row = places[i] / slots;
      if (row < first_row || row >= past_row) continue;
      float* y = down + size_t(i) * strides.down;
      if (!op.weigh_inputs) scale_by(y, scratch.weights[places[i]], width);
      add_to(rows.out + row * rows.out_stride, y, width);
    }
  }
}

}  // namespace tgi

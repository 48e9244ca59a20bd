// Mixtures of experts: the rows of a step are gathered by expert, so that each chosen expert is read once and no other.
//
// A row's result is the sum over its experts in the order of their numbers, each computed by itself: it does not depend on
// which other rows chose the same experts, nor on how many experts are computed between two barriers.
#pragma once
#include <functional>
#include <vector>

#include "linear.h"
#include "pool.h"
#include "tgi.h"

namespace tgi {

// What the members of a team share while they run experts. memory: at least `floats` of the widest operation, for `rows`;
// packed_bytes: of the memory for packed activations.
struct ExpertScratch {
  float* memory = nullptr;
  int rows = 0;
  size_t packed_bytes = 0;
  std::vector<int> ids;        // [rows][chosen]
  std::vector<float> weights;  // the same
  std::vector<int> starts;     // of each expert in `places`, [experts + 1]
  std::vector<int> places;     // indices into `ids` by expert, in order of the rows
  std::vector<int> rounds;     // the first expert of each round, and the number of experts: those of a round are computed together
  std::vector<size_t> packed;  // where in its memory the packed activations of each expert are

  static size_t floats(const tgi_experts_op& op, int rows);
};

// The values of an operation: first rows and floats from row to row.
struct ExpertRows {
  const float* x;
  int x_stride;
  const float* router;
  int router_stride;
  float* out;
  int out_stride;
  int count;
};

// All members must call it; `barrier` is the team's, which is passed several times. packed: memory for packed activations.
void run_experts(const tgi_experts_op& op, const ExpertRows& rows, ExpertScratch& scratch, void* packed,
                 const Member& member, const std::function<void()>& barrier);

}  // namespace tgi

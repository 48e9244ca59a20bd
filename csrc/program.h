// The whole step: every member of the pool walks the same list of operations, with barriers where one
// operation reads what another member wrote.
#pragma once
#include <chrono>
#include <memory>
#include <vector>

#include "arena.h"
#include "attention/attention.h"
#include "experts.h"
#include "linear.h"
#include "recurrent.h"

namespace tgi {

// Rows that go through the list at once: bounds scratch memory. The rows of a longer step follow in further
// passes; since no row's arithmetic depends on its neighbours, the cut cannot be seen in the result.
constexpr int kSliceRows = 256;
constexpr int kExpertRows = 64;  // room for gathered rows that programs with experts have at least

class Program {
 public:
  Program(Pool& pool, const tgi_op* ops, int count, const int32_t* widths, int buffers, int cache_type);

  // Whether every token id and position of the step has a row in the tables that are looked up.
  bool within_tables(const tgi_step& step) const;
  void run(const tgi_step& step, int result, float* out);
  size_t bytes() const { return bytes_; }
  // Seconds that member 0 has spent in each code of operation, and last in barriers; counted from the first call on.
  void profile(double* seconds);

 private:
  struct Slice {
    int begin, rows;
    std::vector<int64_t> starts;  // of the sequences in it, counted from its first row
    int first_sequence;
    std::vector<AttentionPlan> plans;  // one for each entry of planned_
    std::vector<std::vector<StateRows>> states;  // of each state, its sequences
  };

  int rows_from(const tgi_step& step, int begin) const;
  static StepRows attention_rows(const tgi_step& step, const Slice& slice, const tgi_attention_op& op);
  void reserve(int rows);
  void plan(const tgi_step& step, int begin, int rows, Slice& slice);
  // Books the time since the last call.
  void book(int entry, const Member& member);
  static bool packs_columns(const Slice& slice, const Member& member);
  void wait(const Member& member, int code);
  void walk(const tgi_step& step, const Slice& slice, const Member& member);
  // Rows [begin, end) of an operation that works on each row by itself.
  void run_rows(const tgi_op& op, const tgi_step& step, const Slice& slice, int begin, int end);
  void run_row(const tgi_op& op, const tgi_step& step, const Slice& slice, int r);
  void store_row(const tgi_store_kv_op& op, const tgi_step& step, const Slice& slice, int r);
  void run_linear(const tgi_linear_op& op, const Slice& slice, const Member& member);
  void run_head_linear(const tgi_head_linear_op& op, const Slice& slice, const Member& member);
  void run_recurrent(const tgi_op& op, const Slice& slice, const Member& member);
  void run_experts(const tgi_experts_op& op, const Slice& slice, const Member& member);
  void run_attention(const tgi_attention_op& op, const tgi_step& step, const Slice& slice, const Member& member);
  const AttentionPlan& plan_for(const tgi_attention_op& op, const Slice& slice) const;
  float* row(int buffer, int64_t row) { return buffers_[buffer] + row * strides_[buffer]; }

  Pool& pool_;
  std::vector<tgi_op> ops_;
  std::vector<int> widths_;   // of the buffers, in floats
  std::vector<int> strides_;  // from row to row of them
  std::vector<tgi_attention_op> planned_;  // the first attention of each window and heads: those share a plan
  bool whole_ = false;  // rows see later ones of their sequence, so that sequences cannot be cut
  int cache_type_;
  int states_ = 0;
  std::unique_ptr<Arena> memory_;
  std::vector<float*> buffers_;
  ExpertScratch experts_;
  void* packed_ = nullptr;
  int reserved_ = 0;  // rows
  size_t bytes_ = 0;
  Slice slice_;
  bool timed_ = false;
  std::chrono::steady_clock::time_point last_;
  double seconds_[TGI_CODES + 1] = {};
};

}  // namespace tgi

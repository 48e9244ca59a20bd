// Layers with a state in place of keys and values: short convolutions, Mamba 2, gated delta nets.
//
// A sequence's rows are taken one after the other, each from the state that the one before it left, so that a row's result does
// not depend on how its sequence was cut. Work is split by channels, or by sequences and heads, never along a sum.
#pragma once
#include <vector>

#include "pool.h"
#include "tgi.h"

namespace tgi {

// A sequence of a slice: its rows, and where its state is read (nullptr: it begins) and written; both may be one.
struct StateRows {
  int begin, end;
  const float* read;
  float* write;
};

// Rows of the values of an operation: first row and floats from row to row.
struct RowsOf {
  float* first;
  int stride;
  float* at(int row) const { return first + size_t(row) * stride; }
};

// This member's share. weight [kernel][width].
void convolve(const tgi_convolve_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& out,
              int width, const Member& member);
void scan(const tgi_scan_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& other,
          const RowsOf& out, const Member& member);
void delta_rule(const tgi_delta_rule_op& op, const std::vector<StateRows>& sequences, const RowsOf& x, const RowsOf& other,
                const RowsOf& out, const Member& member);

}  // namespace tgi

// Rounding weights to codes while a layer is packed: sixteen rows at once, a lane each.
#pragma once
#include "formats.h"
#include "linear.h"

namespace tgi {

// What error feedback needs to know of a layer's inputs: see `tgi_feedback`.
struct Feedback {
  const float* factors;     // [blocks of 128][128][128]
  const float* importance;  // [in]
};

// Squared errors of rounding, each times the importance of its column.
struct RoundingErrors {
  double rounded = 0;  // as it was done
  double plain = 0;    // had every weight been rounded to the nearest code
};

// Rounds rows [first, last) of a panel and writes their headers and codes. values: the panel's weights [padded_in][16],
// rotated if the layer is; changed. With feedback, adds to *errors.
void round_panel(const Linear& linear, int panel, int first, int last, float* values, const Feedback* feedback,
                 RoundingErrors* errors);

// Header words of rows of a layer: the scale as far as a header keeps it, and the zero point.
uint32_t header_word(float scale, int zero_point);
void set_header(const Linear& linear, int row, int g, uint32_t word);

uint8_t* group_at(const Linear& linear, int row, int g);

// The record of column k of a group.
template <class Panel>
static inline uint8_t* record_at(uint8_t* group, int k) {
  return group + kHeaderBytes + k / Panel::kStep * Panel::kBytes;
}

}  // namespace tgi

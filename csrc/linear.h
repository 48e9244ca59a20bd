// Linear layers: weights packed into panels of 16 output columns, and y = x W^T (+ bias) (+ y).
#pragma once
#include "arena.h"
#include "pool.h"
#include "tgi.h"

struct tgi_linear {
  int format;       // TGI_FLOAT32 ...
  int in, out;      // as the model sees them
  int padded_in;    // K in memory: a multiple of 16 where there are groups, else of the panel's step
  int group;        // columns of K that share a scale, the last ones may be fewer; 0 for float formats
  int groups;
  int panels;       // of 16 output columns, the last one possibly padded
  int scales;       // of the weights in a group: 1, or 2, one for each half
  int zero;         // the zero point of all codes
  // Of layers whose scales lie apart from their codes only, see apart.h:
  bool apart;
  int scale_group;   // columns of a scale of the weights; `group` are those of one of the activations
  int scale_groups;
  int scale_type;    // TGI_FLOAT16, TGI_FLOAT32, TGI_INT8 or TGI_NIBBLES: see apart.h
  int zero_bits;     // of zero points of a group's own: 4, 8, or 0 where there are none
  bool minimums;
  uint8_t book[16];  // values of codes of 4 bits
  const int32_t* order;  // [in]: column k of the codes is this one of the model's; nullptr: the same
  size_t zeros_at, minimums_at, codes_at;  // in a panel

  bool rotated;     // weights are kept, and activations multiplied, rotated as in hadamard.h
  bool rounds;      // activations are rounded to int8 for it
  size_t panel_bytes;
  uint8_t* data;    // [panels][panel_bytes]
  float* bias;      // [panels * 16], nullptr without
  // bfloat16 only, see narrow.h
  bool narrow;                // data are narrow panels
  uint32_t* exceptions;       // of all panels
  uint32_t* first_exception;  // [panels]
  // Floats of 8 bits, see eight.h; the format is then bfloat16, which they are widened to.
  bool eight;
  float* factors;     // [panels][factor_groups][16]: scales of sums, of these layers only
  int factor_group;   // columns that share one
  int factor_groups;
  const tgi::Arena* staging;  // where data lie until the layer is finished
};

namespace tgi {

using Linear = tgi_linear;

struct OutlierList;

// Activations in the form the panels want, for at most `rows` rows; memory of the caller's.
struct Packed {
  float* values;    // [rows * padded_in]
  uint8_t* codes;   // [rows * padded_in], of two bytes each if they are bfloat16
  float* scales;    // [rows * groups]
  int32_t* offsets; // [rows * groups * scales of a group]
  // Of layers whose scales lie apart only:
  float* sums;             // [rows * groups], of what activations are rounded to
  float* outliers;           // [rows * groups], the activations that are not rounded
  int32_t* outlier_columns;  // the same, where they are; -1 where there is none
  const OutlierList* list;   // of them, while they are multiplied
};

// Bytes that `rows` rows of activations for a layer of this size need, and the parts of such memory.
size_t packed_bytes(const Linear& linear, int rows);
Packed packed_in(const Linear& linear, int rows, void* memory);

// Quantises a group of `length` values of one row, code = round(x / scale) with scale = max |x| / 127. count: how many of them
// exist; the others become 0. The offset is minus the sum of the codes times `zero_point`, that of the weights they
// will meet.
// The sum of the rounded values.
float quantise_group(const float* x, int count, int length, int zero_point, uint8_t* codes, float* scale, int32_t* offset);

// Words of four bytes of a tile of `height` rows: those of `rows` rows, `stride` bytes apart, to where word w of row r lies
// at word w * height + r.
void interleave(const uint8_t* from, size_t stride, int rows, int words, uint8_t* to, int height);

// The part of some activations that one member packs: rows [begin, end), units [first, last) of their columns.
struct Share {
  int begin, end;
  int first, last;
};

// Units by which columns are divided: groups where activations are rounded to int8, blocks where they are only rotated, else
// 16 columns.
int pack_units(const Linear& linear);

// Packs a share of x [rows][stride]: interleaved by tiles, and rotated and rounded by row and group where the layer says so.
void pack_activations(const Linear& linear, const float* x, size_t stride, int rows, const Share& share,
                      const Packed& packed);

// y [rows][stride] for the output columns of panels [begin, end): the sum, plus bias, plus y itself if `accumulate`.
void multiply_panels(const Linear& linear, const Packed& packed, int rows, int begin, int end, float* y, size_t stride,
                     bool accumulate);

// Row `id` of the weights as floats [in]: a layer tied to the embedding serves as its table. Zeros where there is no such
// row, so that no number of a caller's can reach beyond the table.
void read_row(const Linear& linear, int64_t id, float* out);

}  // namespace tgi

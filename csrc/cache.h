// The paged KV cache: blocks of 32 positions, each a sequence of records, one for each KV head.
//
// Keys lie transposed, as panels of 16 positions over the head's dimensions, so that queries times keys is
// the same product as activations times weights and needs no sum across lanes. Values lie as panels of 16
// dimensions over the positions, in floats of any width. In int8 both are codes in fours, as in an Int8Panel, with zero point 128; each key has a
// scale in its panel's header, and each value one after the panels, to be folded into the probability.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "panel.h"
#include "tgi.h"

namespace tgi {

constexpr int kBlock = 32;
constexpr int kMaxHeadDim = 576;  // of latents and what is turned beside them

struct CacheShape {
  int type;  // TGI_FLOAT32, TGI_BFLOAT16, TGI_FLOAT16, TGI_INT8, TGI_E4M3 or TGI_E5M2
  int kv_heads;
  int head_dim;

  int padded_dim() const { return (head_dim + kLanes - 1) / kLanes * kLanes; }
  // Bytes of one panel: of 16 keys, and of 16 dimensions of 32 values.
  size_t key_panel() const {
    if (type == TGI_FLOAT32) return size_t(head_dim) * 64;
    if (type == TGI_BFLOAT16) return size_t(head_dim + 1) / 2 * 64;
    if (type == TGI_FLOAT16) return size_t(head_dim) * 32;
    if (type != TGI_INT8) return size_t(head_dim) * 16;
    return Int8Panel::group_bytes(padded_dim());
  }
  size_t value_panel() const { return size_t(kBlock) * kLanes * (type == TGI_FLOAT32 ? 4 : type >= TGI_INT8 ? 1 : 2); }
  // Bytes of one head's record in a block.
  size_t key_record() const { return 2 * key_panel(); }
  size_t value_record() const { return padded_dim() / kLanes * value_panel() + (type == TGI_INT8 ? kBlock * 4 : 0); }
};

// Writes keys and values [kv_heads][head_dim] of one position; without `values` the keys are all there is. last: no
// position after it is written in this step.
void store_position(const CacheShape& shape, uint8_t* keys, uint8_t* values, int64_t slot, const float* key,
                    const float* value, bool last);

}  // namespace tgi

#include "cache.h"

#include <string.h>

#include "convert.h"
#include "linear.h"

namespace tgi {
namespace {

// Rounds one head's numbers to int8 and fills up to a multiple of 16 with zeros; returns their scale.
float quantise(const CacheShape& shape, const float* x, uint8_t* codes) {
  float scale;
  int32_t unused;  // the sum of the codes is needed of queries only
  quantise_group(x, shape.head_dim, shape.padded_dim(), 0, codes, &scale, &unused);
  return scale;
}

uint8_t float_to_8_bits(int type, float x) { return type == TGI_E4M3 ? float_to_e4m3(x) : float_to_e5m2(x); }

void store_key(const CacheShape& shape, uint8_t* record, int offset, const float* x) {
  uint8_t* panel = record + offset / kLanes * shape.key_panel();
  const int lane = offset % kLanes;
  if (shape.type == TGI_FLOAT32) {
    for (int k = 0; k < shape.head_dim; k++) reinterpret_cast<float*>(panel)[k * kLanes + lane] = x[k];
  } else if (shape.type == TGI_BFLOAT16) {
    uint16_t halves[kMaxHeadDim + 1];
    for (int k = 0; k < shape.head_dim; k++) halves[k] = float_to_bfloat16(x[k]);
    halves[shape.head_dim] = 0;  // the other one of an odd number
    for (int k = 0; k < shape.head_dim; k += 2) memcpy(panel + (k / 2 * kLanes + lane) * 4, halves + k, 4);
  } else if (shape.type == TGI_FLOAT16) {
    for (int k = 0; k < shape.head_dim; k++)
      reinterpret_cast<uint16_t*>(panel)[k * kLanes + lane] = float_to_float16(x[k]);
  } else if (shape.type != TGI_INT8) {
    for (int k = 0; k < shape.head_dim; k++) panel[k * kLanes + lane] = float_to_8_bits(shape.type, x[k]);
  } else {
    uint8_t codes[kMaxHeadDim];
    const float scale = quantise(shape, x, codes);
    uint32_t word;
    memcpy(&word, &scale, 4);
    word = (word & 0xffffff00u) | Int8Panel::kZero;
    memcpy(panel + 4 * lane, &word, 4);
    for (int k = 0; k < shape.head_dim; k += 4) {
      memcpy(&word, codes + k, 4);
      word ^= 0x80808080u;  // adds 128 to each
      memcpy(panel + kHeaderBytes + k / 4 * 64 + 4 * lane, &word, 4);
    }
  }
}

void store_value(const CacheShape& shape, uint8_t* record, int offset, const float* x, bool last) {
  const size_t stride = shape.value_panel();
  if (shape.type == TGI_FLOAT32) {
    for (int d = 0; d < shape.head_dim; d++)
      reinterpret_cast<float*>(record + d / kLanes * stride)[offset * kLanes + d % kLanes] = x[d];
  } else if (shape.type == TGI_BFLOAT16) {
    for (int d = 0; d < shape.head_dim; d++) {
      auto* pair = reinterpret_cast<uint16_t*>(record + d / kLanes * stride) + (offset / 2 * kLanes + d % kLanes) * 2;
      pair[offset % 2] = float_to_bfloat16(x[d]);
      // The kernel reads values in pairs; what a former owner left in the other half might not be a number.
      if (last && offset % 2 == 0) pair[1] = 0;
    }
  } else if (shape.type == TGI_FLOAT16) {
    for (int d = 0; d < shape.head_dim; d++)
      reinterpret_cast<uint16_t*>(record + d / kLanes * stride)[offset * kLanes + d % kLanes] = float_to_float16(x[d]);
  } else if (shape.type != TGI_INT8) {
    for (int d = 0; d < shape.head_dim; d++)
      record[d / kLanes * stride + offset * kLanes + d % kLanes] = float_to_8_bits(shape.type, x[d]);
  } else {
    uint8_t codes[kMaxHeadDim];
    const float scale = quantise(shape, x, codes);
    for (int d = 0; d < shape.padded_dim(); d++)
      record[d / kLanes * stride + offset / 4 * 64 + d % kLanes * 4 + offset % 4] = (uint8_t)(codes[d] + Int8Panel::kZero);
    memcpy(record + shape.padded_dim() / kLanes * stride + 4 * offset, &scale, 4);
  }
}

}  // namespace

void store_position(const CacheShape& shape, uint8_t* keys, uint8_t* values, int64_t slot, const float* key,
                    const float* value, bool last) {
  const int64_t block = slot / kBlock;
  const int offset = (int)(slot % kBlock);
  for (int head = 0; head < shape.kv_heads; head++) {
    const size_t record = block * shape.kv_heads + head;
    store_key(shape, keys + record * shape.key_record(), offset, key + head * shape.head_dim);
    if (values) store_value(shape, values + record * shape.value_record(), offset, value + head * shape.head_dim, last);
  }
}

}  // namespace tgi

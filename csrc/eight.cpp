#include "eight.h"

#include <math.h>

namespace tgi {
namespace {

// Where the code of column k is in a panel: the order of narrow_at.
size_t place(int k, int lane) {
  const int pair = k % kEightStep / 2, element = lane * 2 + k % 2;
  return size_t(k / kEightStep) * kEightRecord + pair / 2 * 64 + element / 8 * 16 + pair % 2 * 8 + element % 8;
}

uint8_t* panel_at(const Linear& linear, int panel) { return linear.data + size_t(panel) * linear.panel_bytes; }

float* factors_at(const Linear& linear, int row) {
  return linear.factors + size_t(row / kLanes) * linear.factor_groups * kLanes + row % kLanes;
}

float value_of(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float size = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
  return code & 128 ? -size : size;
}

}  // namespace

void widen_eight_panel(const Linear& linear, int panel, uint8_t* wide) {
  const uint8_t* from = panel_at(linear, panel);
  const EightTables tables;
  for (int k = 0; k < linear.padded_in; k += 4, from += 64, wide += kEightWide / 2) {
    FetchStream{}(from);
    Bytes first, second;
    widen_four(from, tables, first, second);
    store_bytes(wide, first);
    store_bytes(wide + 64, second);
  }
}

void pack_eight(const Linear& linear, const uint8_t* codes, const float* scales, int row) {
  uint8_t* panel = panel_at(linear, row / kLanes);
  for (int k = 0; k < linear.in; k++) panel[place(k, row % kLanes)] = codes[k];
  for (int g = 0; g < linear.factor_groups; g++) factors_at(linear, row)[g * kLanes] = scales[g];
}

void read_eight(const Linear& linear, int row, float* out) {
  const uint8_t* panel = panel_at(linear, row / kLanes);
  for (int k = 0; k < linear.in; k++)
    out[k] = value_of(panel[place(k, row % kLanes)]) * factors_at(linear, row)[k / linear.factor_group * kLanes];
}

}  // namespace tgi

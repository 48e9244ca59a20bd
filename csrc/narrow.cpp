#include "narrow.h"

#include <string.h>

#include <algorithm>
#include <vector>

namespace tgi {
namespace {

// Layers with more exceptions than one in so many weights stay as they are: putting them in place would cost what reading
// less saves.
constexpr size_t kWeightsPerException = 256;
constexpr size_t kMostWeights = 1 << 24;  // of a panel, so that their numbers fit

// The sixteen most frequent upper bytes of a panel, and which code each byte has.
struct Codes {
  uint8_t table[16] = {};
  uint8_t code[256];
  bool known[256] = {};
  size_t exceptions = 0;

  Codes(const uint16_t* weights, size_t count) {
    size_t seen[256] = {};
    for (size_t i = 0; i < count; i++) seen[weights[i] >> 8]++;
    uint8_t order[256];
    for (int byte = 0; byte < 256; byte++) order[byte] = (uint8_t)byte;
    std::stable_sort(order, order + 256, [&](uint8_t a, uint8_t b) { return seen[a] > seen[b]; });
    memset(code, 0, sizeof(code));
    for (int i = 0; i < 16; i++) {
      table[i] = order[i];
      code[order[i]] = (uint8_t)i;
      known[order[i]] = true;
    }
    for (int i = 16; i < 256; i++) exceptions += seen[order[i]];
  }
};

// Where in a record of 8 values of k the weight is that byte `at` of its 128 lower bytes belongs to.
constexpr int source_of(int at) {
  const int half = at / 64, unit = at % 64 / 16, byte = at % 16;
  return (2 * half + byte / 8) * 2 * kLanes + 8 * unit + byte % 8;
}

void narrow_panel(const uint16_t* weights, size_t count, uint8_t* to, uint32_t* exceptions) {
  const Codes codes(weights, count);
  memcpy(to, codes.table, 16);
  to += kNarrowTable;
  constexpr int kWeights = kNarrowStep * kLanes;
  for (size_t first = 0; first < count; first += kWeights, to += kNarrowRecord) {
    for (int at = 0; at < kWeights; at++) {
      const uint16_t weight = weights[first + source_of(at)];
      to[at] = (uint8_t)weight;
      uint8_t& pair = to[kWeights + at % 64];
      pair = (uint8_t)(at < 64 ? codes.code[weight >> 8] : pair | codes.code[weight >> 8] << 4);
    }
  }
  for (size_t i = 0; i < count; i++)
    if (!codes.known[weights[i] >> 8]) *exceptions++ = (uint32_t)i << 8 | weights[i] >> 8;
  *exceptions = kNoException;
}

}  // namespace

bool narrow_layer(Pool& pool, Arena& arena, Linear& linear) {
  const size_t count = size_t(linear.padded_in) * kLanes;
  if (linear.padded_in % kNarrowStep || count >= kMostWeights) return true;
  const auto wide = [&](int panel) {
    return reinterpret_cast<const uint16_t*>(linear.data + size_t(panel) * linear.panel_bytes);
  };
  std::vector<uint32_t> found(linear.panels);
  auto look = [&](const Member& member) {
    for (int64_t panel = member.begin(linear.panels); panel < member.end(linear.panels); panel++)
      found[panel] = (uint32_t)Codes(wide((int)panel), count).exceptions;
  };
  pool.run(look);
  size_t total = 0;
  for (uint32_t one : found) total += one;
  if (total > count * linear.panels / kWeightsPerException) return true;

  const size_t bytes = narrow_bytes(linear.padded_in);
  auto* data = static_cast<uint8_t*>(arena.allocate(bytes * linear.panels));
  auto* first = static_cast<uint32_t*>(arena.allocate(4 * size_t(linear.panels)));
  auto* exceptions = static_cast<uint32_t*>(arena.allocate(4 * (total + linear.panels)));
  if (!data || !first || !exceptions) return false;
  uint32_t next = 0;
  for (int panel = 0; panel < linear.panels; panel++) {
    first[panel] = next;
    next += found[panel] + 1;
  }
  auto work = [&](const Member& member) {
    for (int64_t panel = member.begin(linear.panels); panel < member.end(linear.panels); panel++)
      narrow_panel(wide((int)panel), count, data + panel * bytes, exceptions + first[panel]);
  };
  pool.run(work);
  linear.narrow = true;
  linear.data = data;
  linear.panel_bytes = bytes;
  linear.exceptions = exceptions;
  linear.first_exception = first;
  return true;
}

uint16_t narrow_at(const Linear& linear, int row, int k) {
  const uint8_t* panel = linear.data + size_t(row / kLanes) * linear.panel_bytes;
  const uint8_t* record = panel + kNarrowTable + size_t(k / kNarrowStep) * kNarrowRecord;
  // The reverse of source_of.
  const int pair = k % kNarrowStep / 2, element = row % kLanes * 2 + k % 2;
  const int at = pair / 2 * 64 + element / 8 * 16 + pair % 2 * 8 + element % 8;
  const int code = record[128 + at % 64] >> (at < 64 ? 0 : 4) & 15;
  return (uint16_t)(record[at] | panel[code] << 8);
}

}  // namespace tgi

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

constexpr int kWeights = kNarrowStep * kLanes;  // of a record

// The sixteen most frequent upper bytes of a panel, and how many weights have another one.
struct Common {
  uint8_t table[16];
  uint32_t exceptions = 0;

  Common() = default;
  Common(const uint16_t* weights, size_t count) {
    uint32_t seen[4][256] = {};  // apart, since counting the same byte twice in a row has to wait
    for (size_t i = 0; i < count; i += 4)
      for (int j = 0; j < 4; j++) seen[j][weights[i + j] >> 8]++;
    for (int byte = 0; byte < 256; byte++) seen[0][byte] += seen[1][byte] + seen[2][byte] + seen[3][byte];
    uint8_t order[256];
    for (int byte = 0; byte < 256; byte++) order[byte] = (uint8_t)byte;
    std::stable_sort(order, order + 256, [&](uint8_t a, uint8_t b) { return seen[0][a] > seen[0][b]; });
    memcpy(table, order, 16);
    for (int i = 16; i < 256; i++) exceptions += seen[0][order[i]];
  }
};

void narrow_panel(const Common& common, const uint16_t* weights, size_t count, uint8_t* to, uint32_t* exceptions) {
  constexpr uint8_t kOther = 16;
  uint8_t code_of[256];
  memset(code_of, kOther, sizeof(code_of));
  for (int i = 0; i < 16; i++) code_of[common.table[i]] = (uint8_t)i;
  memcpy(to, common.table, 16);
  to += kNarrowTable;
  for (size_t first = 0; first < count; first += kWeights, to += kNarrowRecord) {
    uint8_t codes[kWeights], all = 0;
    for (int eight = 0; eight < kWeights / 8; eight++) {  // in the order of the record
      const int half = eight / 8, unit = eight % 8 / 2, row = 2 * half + eight % 2;
      const uint16_t* from = weights + first + row * 2 * kLanes + 8 * unit;
      for (int i = 0; i < 8; i++) {
        to[8 * eight + i] = (uint8_t)from[i];
        all |= codes[8 * eight + i] = code_of[from[i] >> 8];
      }
    }
    for (int i = 0; i < kWeights / 2; i++)
      to[kWeights + i] = (uint8_t)((codes[i] & 15) | (codes[kWeights / 2 + i] & 15) << 4);
    if (!(all & kOther)) continue;
    for (size_t i = first; i < first + kWeights; i++)
      if (code_of[weights[i] >> 8] == kOther) *exceptions++ = (uint32_t)i << 8 | weights[i] >> 8;
  }
  *exceptions = kNoException;
}

}  // namespace

bool narrow_layer(Pool& pool, Arena& arena, Linear& linear) {
  const size_t count = size_t(linear.padded_in) * kLanes;
  if (linear.padded_in % kNarrowStep || count >= kMostWeights) return true;
  const auto wide = [&](int panel) {
    return reinterpret_cast<const uint16_t*>(linear.data + size_t(panel) * linear.panel_bytes);
  };
  std::vector<Common> common(linear.panels);
  auto look = [&](const Member& member) {
    for (int64_t panel = member.begin(linear.panels); panel < member.end(linear.panels); panel++)
      common[panel] = Common(wide((int)panel), count);
  };
  pool.run(look);
  size_t total = 0;
  for (const Common& one : common) total += one.exceptions;
  if (total > count * linear.panels / kWeightsPerException) return true;

  const size_t bytes = narrow_bytes(linear.padded_in);
  auto* data = static_cast<uint8_t*>(arena.allocate(bytes * linear.panels));
  auto* first = static_cast<uint32_t*>(arena.allocate(4 * size_t(linear.panels)));
  auto* exceptions = static_cast<uint32_t*>(arena.allocate(4 * (total + linear.panels)));
  if (!data || !first || !exceptions) return false;
  uint32_t next = 0;
  for (int panel = 0; panel < linear.panels; panel++) {
    first[panel] = next;
    next += common[panel].exceptions + 1;
  }
  auto work = [&](const Member& member) {
    for (int64_t panel = member.begin(linear.panels); panel < member.end(linear.panels); panel++)
      narrow_panel(common[panel], wide((int)panel), count, data + panel * bytes, exceptions + first[panel]);
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
  // Which of the record's lower bytes: the reverse of the order in which narrow_panel writes them.
  const int pair = k % kNarrowStep / 2, element = row % kLanes * 2 + k % 2;
  const int at = pair / 2 * 64 + element / 8 * 16 + pair % 2 * 8 + element % 8;
  const int code = record[128 + at % 64] >> (at < 64 ? 0 : 4) & 15;
  return (uint16_t)(record[at] | panel[code] << 8);
}

}  // namespace tgi

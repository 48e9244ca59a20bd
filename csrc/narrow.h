// bfloat16 weights in 12 bits, without loss.
//
// The upper byte of a bfloat16 is its sign and seven of its eight bits of exponent. The weights of a panel lie within a few
// powers of two of each other, so nearly all upper bytes are among its sixteen most frequent ones: four bits name
// them in a table of the panel's, and the lower bytes stay as they are. The few others, one in ten thousand of normally
// distributed weights, are listed as exceptions and put in place when the panel is widened. Reading weights is what
// decoding waits for, so three quarters of the bytes are three quarters of the time.
// (Entropy coding takes 11 bits, arXiv 2504.11651, but is read one bit after another.)
//
// A narrow panel is a table of 16 bytes, padded to a cache line, then for each 8 values of k 128 lower bytes and
// 64 bytes of two codes each, in the order in which `widen_eight` turns them into the pairs of a Bf16Panel.
#pragma once
#include "linear.h"
#include "panel.h"

namespace tgi {

constexpr int kNarrowStep = 8;                // values of k in a record
constexpr size_t kNarrowRecord = 192;         // bytes of it
constexpr size_t kWideRecord = 256;           // bytes of the same as a Bf16Panel
constexpr size_t kNarrowTable = 64;
constexpr size_t narrow_bytes(int padded_in) { return kNarrowTable + size_t(padded_in) / kNarrowStep * kNarrowRecord; }

// An exception: the number of the weight in a Bf16Panel's order in the upper 24 bits, its upper byte in the lower 8. After
// those of a panel comes this one, which no weight has.
constexpr uint32_t kNoException = 0xffffffff;

// Moves a filled bfloat16 layer from its staging memory into `arena`, narrow if its weights allow it. False: no memory.
bool narrow_layer(Pool& pool, Arena& arena, Linear& linear);

static inline int exception_k(uint32_t exception) { return (int)(exception >> 8) / (2 * kLanes) * 2 + (int)(exception >> 8) % 2; }
static inline int exception_lane(uint32_t exception) { return (int)(exception >> 8) % (2 * kLanes) / 2; }

// Element k of row `row`, without exceptions.
uint16_t narrow_at(const Linear& linear, int row, int k);

// One record to pairs.
static inline void widen_eight(const uint8_t* record, Table table, uint8_t* wide) {
  const Bytes codes = load_bytes(record + 128);
  store_zipped(wide, load_bytes(record), look_up(table, low_nibbles(codes)));
  store_zipped(wide + 128, load_bytes(record + 64), look_up(table, high_nibbles(codes)));
}

// Puts the exceptions in place that are among `count` weights from number `first` on; `next` walks along.
static inline void put_exceptions(const uint32_t*& next, uint32_t first, uint32_t count, uint8_t* wide) {
  for (; *next >> 8 < first + count; next++) wide[2 * ((*next >> 8) - first) + 1] = (uint8_t)*next;
}

static inline const uint32_t* exceptions_of(const Linear& linear, int panel) {
  return linear.exceptions + linear.first_exception[panel];
}

// A whole panel as a Bf16Panel.
static inline void widen_panel(const Linear& linear, int panel, uint8_t* wide) {
  const uint8_t* from = linear.data + size_t(panel) * linear.panel_bytes;
  const Table table = load_table(from);
  from += kNarrowTable;
  for (int k = 0; k < linear.padded_in; k += kNarrowStep, from += kNarrowRecord) {
    for (size_t line = 0; line < kNarrowRecord; line += 64) prefetch(from + kPrefetchBytes + line);
    widen_eight(from, table, wide + size_t(k) * 2 * kLanes);
  }
  const uint32_t* next = exceptions_of(linear, panel);
  put_exceptions(next, 0, (uint32_t)linear.padded_in * kLanes, wide);
}

// sums += tile times C narrow panels, panel, panel + apart, ... Two records at a time are widened and then multiplied by
// add(sums, tile, k, wide panels, bytes between them, values of k, what to fetch): narrow bytes, spread over the
// multiplications, since a burst of them would find no room in the queue to memory.
template <int R, int C, class Add>
static inline void multiply_narrow(const Linear& linear, const Tile& tile, int panel, int apart, Sums<R, C>& result,
                                   const Add& add) {
  constexpr int kAtOnce = 2 * kNarrowStep;
  constexpr int kFetch = kNarrowRecord / (kNarrowStep / Bf16Panel::kStep);
  alignas(64) uint8_t wide[C][kAtOnce * 2 * kLanes];
  const uint8_t* from = linear.data + size_t(panel) * linear.panel_bytes;
  const size_t stride = apart * linear.panel_bytes;
  const uint32_t* next[C];
  Table tables[C];
  for (int c = 0; c < C; c++) {
    tables[c] = load_table(from + c * stride);
    next[c] = exceptions_of(linear, panel + c * apart);
  }
  from += kNarrowTable;
  Sums<R, C> sums = result;
  for (int k = 0; k < linear.padded_in; k += kAtOnce) {
    const int count = linear.padded_in - k < kAtOnce ? linear.padded_in - k : kAtOnce;
    for (int c = 0; c < C; c++) {
      for (int at = 0; at < count; at += kNarrowStep)
        widen_eight(from + c * stride + at / kNarrowStep * kNarrowRecord, tables[c], wide[c] + size_t(at) * 2 * kLanes);
      put_exceptions(next[c], (uint32_t)k * kLanes, (uint32_t)count * kLanes, wide[c]);
    }
    add(sums, tile, k, wide[0], sizeof(wide[0]), count, Fetch<kFetch>{from + kPrefetchBytes, stride});
    from += count / kNarrowStep * kNarrowRecord;
  }
  result = sums;
}

}  // namespace tgi

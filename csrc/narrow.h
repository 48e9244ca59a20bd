// bfloat16 weights in 12 bits, without loss.
//
// The upper byte of a bfloat16 is its sign and seven of its eight bits of exponent. The weights of a panel lie within a few
// powers of two of each other, so nearly all upper bytes are among its sixteen most frequent ones: four bits name
// them in a table of the panel's, and the lower bytes stay as they are. The few others, one in ten thousand of normally
// distributed weights, are listed as exceptions and put in place when the panel is widened. Reading weights is what
// decoding waits for, so three quarters of the bytes are three quarters of the time. (Entropy coding takes 11 bits,
// arXiv 2504.11651, but where a weight begins depends on all before it.)
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

// Packs a filled bfloat16 layer anew into `arena`, narrow, if its weights allow it; else it stays where and as it is.
// False: no memory.
bool narrow_layer(Pool& pool, Arena& arena, Linear& linear);

static inline int exception_k(uint32_t exception) {
  const uint32_t number = exception >> 8;
  return (int)(number / (2 * kLanes) * 2 + number % 2);
}
static inline int exception_lane(uint32_t exception) { return (int)((exception >> 8) % (2 * kLanes) / 2); }

// Element k of row `row`, without exceptions.
uint16_t narrow_at(const Linear& linear, int row, int k);

// One record to four vectors of pairs, as a Bf16Panel has them.
static inline void widen_eight(const uint8_t* record, Table table, Bytes (&pairs)[4]) {
  const Bytes codes = load_bytes(record + 128);
  const Bytes first = load_bytes(record), first_upper = look_up(table, low_nibbles(codes));
  const Bytes second = load_bytes(record + 64), second_upper = look_up(table, high_nibbles(codes));
  pairs[0] = zip_first(first, first_upper);
  pairs[1] = zip_second(first, first_upper);
  pairs[2] = zip_first(second, second_upper);
  pairs[3] = zip_second(second, second_upper);
}

static inline bool has_exceptions(const uint32_t* next, uint32_t end) { return *next >> 8 < end; }

// Puts the exceptions in place that are among `count` weights from number `first` on; `next` walks along.
static inline void put_exceptions(const uint32_t*& next, uint32_t first, uint32_t count, uint8_t* wide) {
  for (; has_exceptions(next, first + count); next++) wide[2 * ((*next >> 8) - first) + 1] = (uint8_t)*next;
}
static inline void put_exceptions(const uint32_t*& next, uint32_t first, Bytes (&pairs)[4]) {
  alignas(64) uint8_t wide[kWideRecord];
  for (int i = 0; i < 4; i++) store_bytes(wide + 64 * i, pairs[i]);
  put_exceptions(next, first, kNarrowStep * kLanes, wide);
  for (int i = 0; i < 4; i++) pairs[i] = load_bytes(wide + 64 * i);
}

static inline const uint32_t* exceptions_of(const Linear& linear, int panel) {
  return linear.exceptions + linear.first_exception[panel];
}

static inline void prefetch_record(const uint8_t* record) {
  for (size_t line = 0; line < kNarrowRecord; line += 64) FetchStream{}(record + line);
}

// A whole panel as a Bf16Panel.
static inline void widen_panel(const Linear& linear, int panel, uint8_t* wide) {
  const uint8_t* from = linear.data + size_t(panel) * linear.panel_bytes;
  const Table table = load_table(from);
  from += kNarrowTable;
  uint8_t* to = wide;
  for (int k = 0; k < linear.padded_in; k += kNarrowStep, from += kNarrowRecord, to += kWideRecord) {
    prefetch_record(from);
    Bytes pairs[4];
    widen_eight(from, table, pairs);
    for (int i = 0; i < 4; i++) store_bytes(to + 64 * i, pairs[i]);
  }
  const uint32_t* next = exceptions_of(linear, panel);
  put_exceptions(next, 0, (uint32_t)linear.padded_in * kLanes, wide);
}

// sums += tile times C narrow panels, panel, panel + apart, ..., widened in registers.
// add(sums, c, k, pair) adds what values k and k + 1 contribute to the sums of panel c.
template <int R, int C, class Add>
static inline void multiply_narrow(const Linear& linear, int panel, int apart, Sums<R, C>& result, const Add& add) {
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
  for (int k = 0; k < linear.padded_in; k += kNarrowStep, from += kNarrowRecord) {
    Bytes pairs[C][4];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) {
      widen_eight(from + c * stride, tables[c], pairs[c]);
      if (__builtin_expect(has_exceptions(next[c], (uint32_t)(k + kNarrowStep) * kLanes), 0))
        put_exceptions(next[c], (uint32_t)k * kLanes, pairs[c]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) {
        // One line at a time between the multiplications: a burst would find no room in the queue to memory.
        if (i < 3) FetchStream{}(from + c * stride + 64 * i);
        add(sums, c, k + 2 * i, pairs[c][i]);
      }
    }
  }
  result = sums;
}

}  // namespace tgi

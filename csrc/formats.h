// Formats of codes: how weights of 8 to 2 bits lie in a panel of 16 output columns, and how they are rounded.
//
// Quantised weights come in groups along K, the last of which may be shorter. A group is a header of 16 words, one a lane,
// then records of codes. Activations have one scale for each group, weights one or two.
//
// Another bit width is another panel here, its name in `CodePanels`, and its entry in tgi/kernels/formats.py.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "simd/simd.h"
#include "tgi.h"

namespace tgi {

constexpr size_t kHeaderBytes = 64;

// What a word of a header is. One scale: the upper 24 bits of a float32; the lower 8 are the zero point of the format.
struct OneScale {
  static constexpr int kScales = 1;
  static constexpr bool kApart = false;
  template <int J>
  static inline F scales(const uint8_t* header) { return bits_as_float(iand(load_int(header), (int)0xffffff00)); }
};
// Two bfloat16: the scale of the first half of the group in the lower 16 bits, that of the second in the upper.
struct TwoScales {
  static constexpr int kScales = 2;
  static constexpr bool kApart = false;
  template <int J>
  static inline F scales(const uint8_t* header) {
    return J ? odd_bf16(load_bytes(header)) : even_bf16(load_bytes(header));
  }
};
constexpr int kHalfGroup = 64;  // columns of the first scale: such groups have 128
// There is no header: scales, zero points and minimums of a panel lie before all of its codes. See apart.h.
struct ScalesApart {
  static constexpr int kScales = 1;
  static constexpr bool kApart = true;
};

// The length of the group that begins at k, of `count` values in groups of `group`.
static inline int group_length(int group, int count, int k) { return count - k < group ? count - k : group; }

// Four codes of a column, or some of their bits: bits [shift, shift + bits) of each byte of a word.
struct Field {
  uint8_t* at;
  int shift;
  uint32_t mask;  // of one field at shift 0, in each byte

  uint32_t get() const {
    uint32_t word;
    memcpy(&word, at, 4);
    return word >> shift & mask;
  }
  void set(uint32_t fields) const {
    uint32_t word;
    memcpy(&word, at, 4);
    word = (word & ~(mask << shift)) | (fields & mask) << shift;
    memcpy(at, &word, 4);
  }
  // Code i of the four, of this column and the fifteen next.
  I lanes(int i) const { return iand(shift_right_by(load_int(at), shift + 8 * i), (int)(mask & 255)); }
};

// Rounding: signed values lowest ... highest, and the values first, first + step ... among which the peak's is searched.
struct Search {
  float lowest, highest;
  float first, step;
  int candidates;
};

// A record holds Step values of k of 16 columns in RecordBytes bytes, and the zero point of symmetric weights is Zero.
// codes<J> of a format are values 4 J to 4 J + 3 of a record as unsigned bytes [16][4], less Zero what is multiplied. get and
// set are four codes of one column, a byte each: values k to k + 3; lanes is value k of all columns. kBook: nullptr where a
// code is its value, else the value of each code. The table is the layer's own. kRounds: whether weights are rounded to
// these codes, which have headers then; else checkpoints bring them, and scales lie apart.
template <int Step, int RecordBytes, int Zero>
struct CodePanel {
  static constexpr int kStep = Step, kBytes = RecordBytes, kZero = Zero;
  static constexpr bool kRounds = true;
  static constexpr const uint8_t* kBook = nullptr;
  static constexpr bool kTwoScales = false;
  static constexpr size_t group_bytes(int group) { return kHeaderBytes + size_t(group / kStep) * kBytes; }
};

// get, set and lanes of panels whose codes lie together, in `field`, ...
template <class Panel>
struct OneField {
  static uint32_t get(uint8_t* record, int lane, int k) { return Panel::field(record, lane, k).get(); }
  static void set(uint8_t* record, int lane, int k, uint32_t codes) { Panel::field(record, lane, k).set(codes); }
  static I lanes(uint8_t* record, int k) { return Panel::field(record, 0, k).lanes(k % 4); }
};
// ... and of those that have four bits in `lower` and the others in `upper`.
template <class Panel>
struct TwoFields {
  static uint32_t get(uint8_t* record, int lane, int k) {
    return Panel::lower(record, lane, k).get() | Panel::upper(record, lane, k).get() << 4;
  }
  static void set(uint8_t* record, int lane, int k, uint32_t codes) {
    Panel::lower(record, lane, k).set(codes);
    Panel::upper(record, lane, k).set(codes >> 4);
  }
  static I lanes(uint8_t* record, int k) {
    return iadd(Panel::lower(record, 0, k).lanes(k % 4), imul(Panel::upper(record, 0, k).lanes(k % 4), iset(16)));
  }
};

// 8 bits, [k / 4][16][4]
struct Int8Panel : CodePanel<4, 64, 128>, OneField<Int8Panel> {
  static constexpr const char* kName = "int8";
  static constexpr Search kSearch{-127, 127, 122, 1, 6};
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    return load_bytes(record);
  }
  static Field field(uint8_t* record, int lane, int) { return {record + 4 * lane, 0, 0xffffffffu}; }
};

// 4 bits, [k / 8][16][4]: the lower nibbles are the first four values of k, the upper ones the next four
struct Int4Panel : CodePanel<8, 64, 8>, OneField<Int4Panel> {
  static constexpr const char* kName = "int4";
  static constexpr Search kSearch{-8, 7, 6.5f, 0.25f, 14};
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    const Bytes nibbles = load_bytes(record);
    return J ? high_nibbles(nibbles) : low_nibbles(nibbles);
  }
  static Field field(uint8_t* record, int lane, int k) { return {record + 4 * lane, k / 4 % 2 * 4, 0x0f0f0f0fu}; }
};

// 6 bits, [k / 16]: the lower four bits like two records of 4-bit codes, then [16][4] bytes, each of which has the upper two
// bits of value 4 J + i at bit 2 J of byte i
struct Int6Panel : CodePanel<16, 192, 32>, TwoFields<Int6Panel> {
  static constexpr const char* kName = "int6";
  static constexpr Search kSearch{-32, 31, 28, 0.5f, 10};
  static constexpr int kUpper = 128;  // where those begin
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    return bits_xor(Int4Panel::codes<J % 2>(record + J / 2 * 64), moved_bits<4 - 2 * J, 0x30>(load_bytes(record + kUpper)));
  }
  static Field lower(uint8_t* record, int lane, int k) { return Int4Panel::field(record + k % 16 / 8 * 64, lane, k); }
  static Field upper(uint8_t* record, int lane, int k) {
    return {record + kUpper + 4 * lane, k / 4 % 4 * 2, 0x03030303u};
  }
};

// 5 bits, [k / 32]: the lower four bits like four records of 4-bit codes, then [16][4] bytes, each of which has the upper bit
// of value 4 J + i at bit J of byte i
struct Int5Panel : CodePanel<32, 320, 16>, TwoFields<Int5Panel> {
  static constexpr const char* kName = "int5";
  static constexpr Search kSearch{-16, 15, 13.5f, 0.25f, 14};
  static constexpr bool kTwoScales = true;
  static constexpr int kUpper = 256;  // where those begin
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    return bits_xor(Int4Panel::codes<J % 2>(record + J / 2 * 64), moved_bits<4 - J, 0x10>(load_bytes(record + kUpper)));
  }
  static Field lower(uint8_t* record, int lane, int k) { return Int4Panel::field(record + k % 32 / 8 * 64, lane, k); }
  static Field upper(uint8_t* record, int lane, int k) { return {record + kUpper + 4 * lane, k / 4 % 8, 0x01010101u}; }
};

// The sixteen values of ggml's IQ4_NL, which lie closer near zero where most weights are; here plus 128.
alignas(16) constexpr uint8_t kNonlinear[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                129, 141, 153, 166, 181, 197, 217, 241};

// 4 bits that name one of those values, in records like those of 4-bit codes
struct Iq4NlPanel : CodePanel<8, 64, 128>, OneField<Int4Panel> {
  static constexpr const char* kName = "iq4_nl";
  static constexpr Search kSearch{-127, 113, 104, 4, 14};
  static constexpr bool kTwoScales = true;
  static constexpr const uint8_t* kBook = kNonlinear;
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    return look_up(load_table(kNonlinear), Int4Panel::codes<J>(record));
  }
};

// 4 bits that name one of sixteen bytes of the layer's own, in the same records
struct BookPanel : CodePanel<8, 64, 0> {
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table table) {
    return look_up(table, Int4Panel::codes<J>(record));
  }
};

// 2 bits, [k / 16][16][4]: value 4 J + i at bit 2 J of byte i
struct Int2Panel : CodePanel<16, 64, 2>, OneField<Int2Panel> {
  static constexpr const char* kName = "int2";
  static constexpr bool kRounds = false;
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    return moved_bits<-2 * J, 3>(load_bytes(record));
  }
  static Field field(uint8_t* record, int lane, int k) { return {record + 4 * lane, k / 4 % 4 * 2, 0x03030303u}; }
};

// 3 bits, [k / 16]: the lower two bits like a record of 2-bit codes, then [16] words of two bytes, each of which has the upper
// bits of a column as `load_spread` wants them: that of value 4 J + i at bit 2, 3, 6 or 7 of what becomes byte i, where two
// codes at a time find it right above their lower bits. (Pairs of such records, with the upper bits in whole bytes, would not
// fit groups of 16.)
struct Int3Panel : CodePanel<16, 96, 4> {
  static constexpr const char* kName = "int3";
  static constexpr bool kRounds = false;
  static constexpr int kUpper = 64;  // where those begin
  template <int J>
  static inline Bytes codes(const uint8_t* record, Table = Table()) {
    const Bytes lower = load_bytes(record), upper = load_spread(record + kUpper);
    const Bytes two = bits_xor(moved_bits<-J % 2 * 2, 0x33>(lower), moved_bits<-J % 2, 0x44>(upper));
    return moved_bits<-J / 2 * 4, 7>(two);
  }
  static constexpr int spread_bit(int k) { return 2 + k / 4 % 2 + k / 8 % 2 * 4; }
  static constexpr int bit_of(int k, int i) { return spread_bit(k) + i % 2 * 8 - i / 2 * 2; }  // of code i of four
  static uint16_t upper(const uint8_t* record, int lane) {
    uint16_t word;
    memcpy(&word, record + kUpper + 2 * lane, 2);
    return word;
  }
  static uint32_t get(uint8_t* record, int lane, int k) {
    uint32_t codes = Int2Panel::get(record, lane, k);
    for (int i = 0; i < 4; i++) codes |= (upper(record, lane) >> bit_of(k, i) & 1u) << (8 * i + 2);
    return codes;
  }
  static void set(uint8_t* record, int lane, int k, uint32_t codes) {
    Int2Panel::set(record, lane, k, codes);
    uint32_t word = upper(record, lane);
    for (int i = 0; i < 4; i++)
      word = (word & ~(1u << bit_of(k, i))) | (codes >> (8 * i + 2) & 1u) << bit_of(k, i);
    memcpy(record + kUpper + 2 * lane, &word, 2);
  }
  static I lanes(uint8_t* record, int k) {
    alignas(64) uint8_t spread[64];
    store_bytes(spread, load_spread(record + kUpper));
    return iadd(Int2Panel::lanes(record, k), imul(Field{spread, spread_bit(k), 0x01010101u}.lanes(k % 4), iset(4)));
  }
};

template <class... Panels>
struct PanelList {};
// In the order of their numbers, of which the first is TGI_INT8.
using CodePanels = PanelList<Int8Panel, Int4Panel, Int6Panel, Int5Panel, Iq4NlPanel, Int2Panel, Int3Panel>;

template <class Body, class First, class... Rest>
static inline auto with_panel(PanelList<First, Rest...>, int number, const Body& body) {
  if constexpr (sizeof...(Rest) > 0) {
    if (number > 0) return with_panel(PanelList<Rest...>{}, number - 1, body);
  }
  return body(First{});
}

// Calls body(panel) with the panel of a format of codes.
template <class Body>
static inline auto with_format(int format, const Body& body) {
  return with_panel(CodePanels{}, format - TGI_INT8, body);
}

// Scales in each header of a format.
static inline int scales_of(int format) {
  return with_format(format, [](auto panel) { return decltype(panel)::kTwoScales ? 2 : 1; });
}

// Calls body(panel, header) with the types of a format of codes.
template <class Body>
static inline void with_header(int format, bool apart, const Body& body) {
  with_format(format, [&](auto type) {
    using Panel = decltype(type);
    if constexpr (!Panel::kRounds) {
      return body(type, ScalesApart{});
    } else if constexpr (std::is_same_v<Panel, Int4Panel>) {
      if (apart) return body(BookPanel{}, ScalesApart{});
    } else if constexpr (Panel::kBook == nullptr) {
      if (apart) return body(type, ScalesApart{});
    }
    if constexpr (Panel::kTwoScales) body(type, TwoScales{});
    else if constexpr (Panel::kRounds) body(type, OneScale{});
  });
}

// Bytes of a group of `length` columns of one panel, with its header.
static inline size_t bytes_of_group(int format, int length) {
  return with_format(format, [&](auto panel) { return decltype(panel)::group_bytes(length); });
}

static inline bool has_codes(int format) { return format >= TGI_INT8; }

// Whether weights can be rounded to the codes of a format.
static inline bool rounds_to(int format) {
  return with_format(format, [](auto panel) { return decltype(panel)::kRounds; });
}

// The zero point of symmetric weights.
static inline int zero_of(int format) {
  return with_format(format, [](auto panel) { return decltype(panel)::kZero; });
}

}  // namespace tgi

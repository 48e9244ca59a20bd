#include "attention/attention.h"

#include <string.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "attention/shared.h"
#include "attention/softmax.h"
#include "attention/tiles.h"

namespace tgi {
namespace {

void write_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem& item, const State& state) {
  const int group = call.heads / call.shape.kv_heads, width = call.shape.head_dim;
  for (int r = 0; r < item.count; r++) {
    const int query = item.first + r;
    const int64_t row = rows.starts[item.sequence] + query / group;
    float* out = call.out + row * call.out_stride + (item.kv_head * group + query % group) * width;
    float total = state.total[r], shrink = 1;
    if (call.sinks) {  // one more score, after all keys
      const float sink = call.sinks[item.kv_head * group + query % group], top = std::max(state.largest[r], sink);
      shrink = exp_of(state.largest[r] - top);
      total = total * shrink + exp_of(sink - top);
    }
    const F factor = set(total), less = set(shrink);
    for (int d = 0; d < width; d += kLanes) {
      F value = load(&state.values[r][d]);
      if (call.sinks) value = mul(value, less);
      value = div(value, factor);
      width - d < kLanes ? store_part(out + d, value, width - d) : store(out + d, value);
    }
  }
}

void read_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem& item, Work& work) {
  const int group = call.heads / call.shape.kv_heads, width = call.shape.head_dim, padded = call.shape.padded_dim();
  for (int r = 0; r < item.count; r++) {
    const int query = item.first + r, head = item.kv_head * group + query % group;
    const int64_t row = rows.starts[item.sequence] + query / group;
    const float* from = call.queries + row * call.query_stride + head * width;
    memcpy(work.queries[r], from, 4 * size_t(width));
    if (width % 2) work.queries[r][width] = 0;  // bfloat16 keys come in pairs
    work.positions[r] = (int)rows.positions[row];
    work.slopes[r] = call.slopes ? call.slopes[head] : 0;
    work.biases[r] = call.bias ? call.bias + size_t(head) * (2 * call.furthest + 1) + call.furthest : nullptr;
#if defined(TGI_HALVES)
    if (call.shape.type == TGI_BFLOAT16)
      for (int d = 0; d < width; d += kLanes)
        store_halves(&work.half_queries[r][d], width - d < kLanes ? load_part(from + d, width - d) : load(from + d));
#endif
    if (call.shape.type == TGI_INT8)
      quantise_group(from, width, padded, Int8Panel::kZero, work.row_codes + r * padded, work.code_scales + r,
                     work.code_offsets + r);
  }
  if (call.shape.type == TGI_INT8) interleave(work.row_codes, padded, item.count, padded / 4, work.codes, item.count);
}

// The keys that a tile sees, [first, last), in positions.
struct Seen {
  int first, last;
};

Seen seen_by(const StepRows& rows, const AttentionItem& item, int group, const Span& span) {
  if (rows.lengths) return {0, (int)rows.lengths[item.sequence]};
  const int64_t* positions = rows.positions + rows.starts[item.sequence];
  const int low = (int)positions[item.first / group], high = (int)positions[(item.first + item.count - 1) / group];
  return {span.first(low), high + 1};
}

Piece piece_of(const StepRows& rows, const AttentionItem& item, const Seen& seen, int piece) {
  const int keys = std::min(seen.last - piece * kPiece, kPiece);
  const int64_t* table = rows.tables + item.sequence * rows.width + piece * (kPiece / kBlock);
  return {table, (keys + kBlock - 1) / kBlock, item.kv_head};
}

template <int Type, int R>
void weigh_values(const CacheShape& shape, Work& work, const Reads& reads, int begin, int seen) {
#if defined(__AMX_BF16__)
  if constexpr (kTiles && Type == TGI_BFLOAT16) return weigh_piece_in_tiles(shape, work, R, reads, begin, seen);
#endif
  if constexpr (Type == TGI_INT8) weigh_codes<R>(shape, work, reads, begin, (seen + kLanes - 1) / kLanes * kLanes);
  else weigh_piece<Type, R>(shape, work, reads, begin, seen);
}

// item[1] is read next, unless this is the `last` one.
template <int Type, int R>
void attend_tile(const AttentionCall& call, const StepRows& rows, const AttentionItem* items, bool last, const Span& span,
                 Work& work) {
  const CacheShape& shape = call.shape;
  const AttentionItem& item = items[0];
  const int group = call.heads / shape.kv_heads;
  const Seen all = seen_by(rows, item, group, span);
  read_tile(call, rows, item, work);
  constexpr bool kInTiles = kTiles && Type == TGI_BFLOAT16;
#if defined(__AMX_BF16__)
  std::optional<AttentionTiles> tiles;
  if (kInTiles) tiles.emplace(R, (shape.head_dim + 1) / 2 % 16, (all.last % kBlock + 1) / 2);
#endif
  for (int piece = item.begin; piece < item.end; piece++) {
    const int base = piece * kPiece;
    const int begin = std::max(all.first - base, 0) / kLanes * kLanes;
    const int seen = std::min(all.last - base, kPiece);
    const int end = (seen + kLanes - 1) / kLanes * kLanes;
    const Piece now = piece_of(rows, item, all, piece);
    const Piece next = piece + 1 < item.end ? piece_of(rows, item, all, piece + 1)
                       : last               ? now
                                            : piece_of(rows, items[1], seen_by(rows, items[1], group, span), items[1].begin);
    const Reads reads(call, now, next);
#if defined(__AMX_BF16__)
    if constexpr (kInTiles) score_piece_in_tiles(shape, work, reads, begin, end);
#endif
    if constexpr (!kInTiles) score_piece<Type, R>(shape, work, reads, begin, end);
    for (int r = 0; r < R; r++) {
      const int position = work.positions[r], past = rows.lengths ? all.last : position + 1;
      if (adjusts(call)) adjust(call, work, r, base, begin, end);
      hide_unseen(work.scores[r], begin, end, span.first(position) - base, past - base);
    }
    constexpr int kLeft = R % kTogether;
    for (int r = 0; r < R - kLeft; r += kTogether) softmax<Type, kTogether>(call, work, reads, r, begin, end);
    if constexpr (kLeft > 0) softmax<Type, kLeft>(call, work, reads, R - kLeft, begin, end);
    if (reads.shared()) weigh_keys<Type, R>(shape, work, reads, begin, seen);
    else weigh_values<Type, R>(shape, work, reads, begin, seen);
    for (int r = 0; r < R; r++)
      merge_row(work.merged, work.piece.largest[r], work.piece.total[r], work.piece.values[r], r, shape.padded_dim(),
                piece == item.begin);
  }
}

using AttendTile = void (*)(const AttentionCall&, const StepRows&, const AttentionItem*, bool, const Span&, Work&);

template <int Type, int... Indices>
AttendTile tile_of_type(int rows, std::integer_sequence<int, Indices...>) {
  static constexpr AttendTile table[] = {attend_tile<Type, Indices + 1>...};
  return table[rows - 1];
}

AttendTile tile_for(int type, int rows) {
  const auto counts = std::make_integer_sequence<int, kMaxRows>();
  if (type == TGI_FLOAT32) return tile_of_type<TGI_FLOAT32>(rows, counts);
  if (type == TGI_BFLOAT16) return tile_of_type<TGI_BFLOAT16>(rows, counts);
  if (type == TGI_FLOAT16) return tile_of_type<TGI_FLOAT16>(rows, counts);
  if (type == TGI_E4M3) return tile_of_type<TGI_E4M3>(rows, counts);
  if (type == TGI_E5M2) return tile_of_type<TGI_E5M2>(rows, counts);
  return tile_of_type<TGI_INT8>(rows, counts);
}

// For each row its largest score, its total and the values: as long as `partial_floats` says.
void leave_partial(const CacheShape& shape, const AttentionItem& item, const State& state) {
  for (int r = 0; r < item.count; r++) {
    float* to = item.partial + r * (16 + shape.padded_dim());
    to[0] = state.largest[r];
    to[1] = state.total[r];
    memcpy(to + 16, state.values[r], 4 * size_t(shape.padded_dim()));
  }
}

}  // namespace

void attend(const AttentionCall& call, const StepRows& rows, const AttentionPlan& plan, const Member& member) {
  Work work;
  const int end = plan.shares[member.index + 1];
  for (int i = plan.shares[member.index]; i < end; i++) {
    const AttentionItem& item = plan.items[i];
    tile_for(call.shape.type, item.count)(call, rows, &item, i + 1 == end, plan.span, work);
    if (item.partial) leave_partial(call.shape, item, work.merged);
    else write_tile(call, rows, item, work.merged);
  }
  if (plan.merges.empty()) return;
  member.barrier();
  const int stride = 16 + call.shape.padded_dim();
  for (int64_t m = member.begin(plan.merges.size()); m < member.end(plan.merges.size()); m++) {
    const auto [first, last] = plan.merges[m];
    for (int i = first; i < last; i++)
      for (int r = 0; r < plan.items[i].count; r++) {
        const float* part = plan.items[i].partial + r * stride;
        merge_row(work.merged, part[0], part[1], part + 16, r, call.shape.padded_dim(), i == first);
      }
    write_tile(call, rows, plan.items[first], work.merged);
  }
}

}  // namespace tgi

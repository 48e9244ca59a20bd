// Cutting the rows of a step into tiles, and spreading these over the threads by what they cost.
#include <algorithm>
#include <utility>

#include "attention/attention.h"
#include "simd/simd.h"

namespace tgi {
namespace {

int64_t cost(const AttentionItem& item, int keys) {
  return int64_t(std::min(keys, (item.end - item.begin) * kPiece)) * (item.count + 4);
}

}  // namespace

void plan_attention(const StepRows& rows, int heads, const CacheShape& shape, const Span& span, int members,
                    AttentionPlan& plan) {
  plan.span = span;
  plan.items.clear();
  plan.merges.clear();
  const int group = heads / shape.kv_heads;
  std::vector<AttentionItem> tiles;
  std::vector<int64_t> costs;
  int pieces = 0;
  for (int sequence = 0; sequence < rows.sequences; sequence++) {
    const int64_t start = rows.starts[sequence];
    const int queries = (int)(rows.starts[sequence + 1] - start) * group;
    for (int first = 0; first < queries; first += kMaxRows) {
      const int count = std::min(kMaxRows, queries - first);
      const int low = (int)rows.positions[start + first / group];
      const int high = (int)rows.positions[start + (first + count - 1) / group];
      const int last = rows.lengths ? (int)rows.lengths[sequence] - 1 : high;
      const int begin = span.first(low) / kPiece, end = last / kPiece + 1;
      for (int kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
        tiles.push_back({sequence, kv_head, first, count, begin, end, nullptr});
        costs.push_back(cost(tiles.back(), last + 1 - begin * kPiece));
      }
      pieces += (end - begin) * shape.kv_heads;
    }
  }
  if ((int)tiles.size() < 4 * members && members > 1 && pieces > (int)tiles.size()) {
    costs.clear();
    size_t floats = 0;
    for (const AttentionItem& tile : tiles) {
      const int first = (int)plan.items.size();
      for (int piece = tile.begin; piece < tile.end; piece++) {
        AttentionItem item = tile;
        item.begin = piece;
        item.end = piece + 1;
        plan.items.push_back(item);
        costs.push_back(cost(item, kPiece));
        floats += partial_floats(shape, item.count);
      }
      plan.merges.push_back({first, (int)plan.items.size()});
    }
    if (plan.partials.size() < floats) plan.partials.resize(floats);
    float* next = plan.partials.data();
    for (AttentionItem& item : plan.items) {
      item.partial = next;
      next += partial_floats(shape, item.count);
    }
  } else {
    plan.items = std::move(tiles);
  }
  int64_t total = 0, passed = 0;
  for (int64_t c : costs) total += c;
  plan.shares.assign(members + 1, (int)plan.items.size());
  plan.shares[0] = 0;
  int member = 1;
  for (int i = 0; i < (int)costs.size() && member < members; i++) {
    // An item goes to the member in whose share its middle lies.
    while (member < members && (passed + costs[i] / 2) * members >= total * member) plan.shares[member++] = i;
    passed += costs[i];
  }
}

}  // namespace tgi

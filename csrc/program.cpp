#include "program.h"

#include <string.h>

#include <algorithm>
#include <new>

#include "handles.h"
#include "rows.h"

namespace tgi {
namespace {

bool row_wise(const tgi_op& op) { return op.code != TGI_LINEAR && op.code != TGI_ATTENTION; }

CacheShape cache_shape(const tgi_attention_shape& shape) { return {shape.type, shape.kv_heads, shape.head_dim}; }

// Floats from one row of a buffer to the next. An odd number of cache lines: rows that a tile writes together would else,
// with the usual widths, meet in the same set of a cache.
int stride_for(int width) { return ((width + 15) / 16 | 1) * 16; }

StepRows rows_of(const tgi_step& step) {
  return {step.sequences, step.query_starts, step.positions, step.block_tables, step.table_width};
}

}  // namespace

Program::Program(Pool& pool, const tgi_op* ops, int count, const int32_t* widths, int buffers,
                 const tgi_attention_shape& shape)
    : pool_(pool), ops_(ops, ops + count), widths_(widths, widths + buffers), heads_(shape.heads),
      shape_(cache_shape(shape)), buffers_(buffers) {
  for (int width : widths_) strides_.push_back(stride_for(width));
  for (const tgi_op& op : ops_)
    if (op.code == TGI_ATTENTION && std::find(windows_.begin(), windows_.end(), op.c) == windows_.end())
      windows_.push_back(op.c);
}

void Program::reserve(int rows) {
  if (rows <= reserved_) return;
  size_t packed = 0, floats = 0;
  for (const tgi_op& op : ops_)
    if (op.code == TGI_LINEAR)
      packed = std::max(packed, packed_bytes(*static_cast<const Linear*>(op.weight), rows));
  for (int stride : strides_) floats += size_t(stride) * rows;
  memory_.reset(new Arena);
  bytes_ = 4 * floats + packed + 128;
  auto* next = static_cast<float*>(memory_->allocate(bytes_));  // 64-byte aligned, in huge pages where there are any
  if (!next) throw std::bad_alloc();
  for (size_t i = 0; i < strides_.size(); i++) {
    buffers_[i] = next;
    next += size_t(strides_[i]) * rows;
  }
  packed_ = next;
  reserved_ = rows;
}

void Program::plan(const tgi_step& step, int begin, int rows, Slice& slice) {
  const int end = begin + rows;
  const int64_t* starts = step.query_starts;
  slice.begin = begin;
  slice.rows = rows;
  int first = (int)(std::upper_bound(starts, starts + step.sequences + 1, begin) - starts) - 1;
  slice.first_sequence = first;
  slice.starts.assign(1, 0);
  for (int sequence = first; sequence < step.sequences && starts[sequence] < end; sequence++)
    slice.starts.push_back(std::min<int64_t>(starts[sequence + 1], end) - begin);
  slice.step_rows = {(int)slice.starts.size() - 1, slice.starts.data(), step.positions + begin,
                     step.block_tables + first * step.table_width, step.table_width};
  slice.plans.resize(windows_.size());
  for (size_t i = 0; i < windows_.size(); i++)
    plan_attention(slice.step_rows, heads_, shape_, windows_[i], pool_.size(), slice.plans[i]);
}

bool Program::within_tables(const tgi_step& step) const {
  for (const tgi_op& op : ops_) {
    if (op.code != TGI_EMBED) continue;
    const int64_t* ids = op.a ? step.positions : step.token_ids;
    const int64_t rows = static_cast<const Linear*>(op.weight)->out;
    if (std::any_of(ids, ids + step.rows, [&](int64_t id) { return id < 0 || id >= rows; })) return false;
  }
  return true;
}

void Program::run(const tgi_step& step, int result, float* out) {
  reserve(std::min(step.rows, kSliceRows));
  for (int begin = 0; begin < step.rows; begin += kSliceRows) {
    plan(step, begin, std::min(kSliceRows, step.rows - begin), slice_);
    auto work = [&](const Member& member) { walk(step, slice_, member); };
    pool_.run(work);
    for (int r = 0; r < slice_.rows; r++)
      memcpy(out + size_t(begin + r) * widths_[result], row(result, r), size_t(widths_[result]) * 4);
  }
}

// Row-wise operations work on the same rows of every buffer on the same member, so that among themselves they
// need no barrier.
void Program::walk(const tgi_step& step, const Slice& slice, const Member& member) {
  const int begin = (int)member.begin(slice.rows), end = (int)member.end(slice.rows);
  bool shared = false;  // something was written since the last barrier that is not split by rows
  if (timed_ && member.index == 0) last_ = std::chrono::steady_clock::now();
  for (const tgi_op& op : ops_) {
    if (op.code == TGI_ATTENTION || shared || (op.code == TGI_LINEAR && packs_columns(slice, member)))
      wait(member, op.code);
    shared = !row_wise(op);
    if (op.code == TGI_LINEAR) run_linear(op, slice, member);
    else if (op.code == TGI_ATTENTION) run_attention(op, step, slice, member);
    else run_rows(op, step, slice, begin, end);
    book(op.code, member);
  }
}

// Whether members divide the activations of a linear layer by columns, for which all rows must be there. Rows of one tile
// lie interleaved: members that write rows of the same tile take each cache line from each other again and again. Where
// there are many tiles that is rare, and a member's own rows are nearer.
bool Program::packs_columns(const Slice& slice, const Member& member) {
  return slice.rows > 1 && slice.rows < kMaxRows * member.count && member.count > 1;
}

void Program::book(int entry, const Member& member) {
  if (!timed_ || member.index != 0) return;
  const auto now = std::chrono::steady_clock::now();
  seconds_[entry] += std::chrono::duration<double>(now - last_).count();
  last_ = now;
}

// The barrier within or before an operation of this code.
void Program::wait(const Member& member, int code) {
  book(code, member);
  member.barrier();
  book(TGI_CODES, member);
}

void Program::profile(double* seconds) {
  timed_ = true;
  memcpy(seconds, seconds_, sizeof(seconds_));
}

void Program::run_linear(const tgi_op& op, const Slice& slice, const Member& member) {
  const Linear& linear = *static_cast<const Linear*>(op.weight);
  const Packed packed = packed_in(linear, slice.rows, packed_);
  const int units = pack_units(linear);
  const Share rows{(int)member.begin(slice.rows), (int)member.end(slice.rows), 0, units};
  const Share columns{0, slice.rows, (int)member.begin(units), (int)member.end(units)};
  pack_activations(linear, buffers_[op.input], strides_[op.input], slice.rows,
                   packs_columns(slice, member) ? columns : rows, packed);
  wait(member, TGI_LINEAR);
  multiply_panels(linear, packed, slice.rows, (int)member.begin(linear.panels), (int)member.end(linear.panels),
                  buffers_[op.output], strides_[op.output], op.a != 0);
}

void Program::run_attention(const tgi_op& op, const tgi_step& step, const Slice& slice, const Member& member) {
  const auto plan = std::find_if(slice.plans.begin(), slice.plans.end(),
                                 [&](const AttentionPlan& candidate) { return candidate.window == op.c; });
  const AttentionCall call{shape_,
                           heads_,
                           op.x,
                           op.y,
                           static_cast<const float*>(op.weight),
                           static_cast<const uint8_t*>(step.keys[op.a]),
                           static_cast<const uint8_t*>(step.values[op.a]),
                           buffers_[op.input] + op.b,
                           size_t(strides_[op.input]),
                           buffers_[op.output],
                           size_t(strides_[op.output])};
  attend(call, slice.step_rows, *plan, member);
}

void Program::run_rows(const tgi_op& op, const tgi_step& step, const Slice& slice, int begin, int end) {
  const auto* weight = static_cast<const float*>(op.weight);
  const auto* bias = static_cast<const float*>(op.bias);
  for (int r = begin; r < end; r++) {
    const int64_t at = slice.begin + r;
    float* y = row(op.output, r);
    const float* x = row(op.input, r);
    switch (op.code) {
      case TGI_EMBED: {
        read_row(*static_cast<const Linear*>(op.weight), op.a ? step.positions[at] : step.token_ids[at], y);
        break;
      }
      case TGI_ADD: add_to(y, x, op.width); break;
      case TGI_SCALE: scale_by(y, op.x, op.width); break;
      case TGI_SOFT_CAP: soft_cap(y, op.x, op.width); break;
      case TGI_RMS_NORM:
        for (int head = 0; head < op.b; head++)
          rms_norm(x + op.c + head * op.a, weight, op.x, op.a, y + op.c + head * op.a);
        break;
      case TGI_LAYER_NORM:
        for (int head = 0; head < op.b; head++)
          layer_norm(x + op.c + head * op.a, weight, bias, op.x, op.a, y + op.c + head * op.a);
        break;
      case TGI_ROTARY: {
        const int half = step.rotary_half[op.d];
        const int64_t angle = step.positions[at] * half;
        rotate(y + op.c, op.b, op.a, step.cos[op.d] + angle, step.sin[op.d] + angle, half, op.y != 0);
        break;
      }
      case TGI_ACTIVATION: activate(op.a, x, op.width, y); break;
      case TGI_GATED: activate_gated(op.a, x, x + op.width, op.width, y); break;
      case TGI_STORE_KV: {
        const bool last = r + 1 == slice.rows || step.slots[at + 1] != step.slots[at] + 1;
        store_position(shape_, static_cast<uint8_t*>(step.keys[op.a]), static_cast<uint8_t*>(step.values[op.a]),
                       step.slots[at], x + op.b, x + op.c, last);
        break;
      }
    }
  }
}

}  // namespace tgi

using namespace tgi;

struct tgi_program {
  Program program;
};

size_t tgi_key_bytes(const tgi_attention_shape* shape) {
  return cache_shape(*shape).key_record() * shape->kv_heads;
}

size_t tgi_value_bytes(const tgi_attention_shape* shape) {
  return cache_shape(*shape).value_record() * shape->kv_heads;
}

tgi_program* tgi_program_create(tgi_pool* pool, const tgi_op* ops, int count, const int32_t* widths, int buffers,
                                const tgi_attention_shape* shape) {
  return new (std::nothrow) tgi_program{Program(pool->pool, ops, count, widths, buffers, *shape)};
}

void tgi_program_destroy(tgi_program* program) { delete program; }
size_t tgi_program_bytes(const tgi_program* program) { return program->program.bytes(); }

void tgi_program_profile(tgi_program* program, double* seconds) { program->program.profile(seconds); }

int tgi_program_run(tgi_program* program, const tgi_step* step, int result, float* out) {
  if (!program->program.within_tables(*step)) return -1;
  try {
    program->program.run(*step, result, out);
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

void tgi_store_kv(const tgi_attention_shape* shape, void* key_cache, void* value_cache, const int64_t* slots, int rows,
                  const float* keys, const float* values) {
  const CacheShape cache = cache_shape(*shape);
  const size_t width = size_t(shape->kv_heads) * shape->head_dim;
  for (int r = 0; r < rows; r++)
    store_position(cache, static_cast<uint8_t*>(key_cache), static_cast<uint8_t*>(value_cache), slots[r],
                   keys + r * width, values + r * width, r + 1 == rows || slots[r + 1] != slots[r] + 1);
}

void tgi_attention(tgi_pool* pool, const tgi_attention_shape* shape, const void* key_cache, const void* value_cache,
                   const tgi_step* step, const float* queries, float scale, float soft_cap, int window,
                   const float* slopes, float* out) {
  const size_t width = size_t(shape->heads) * shape->head_dim;
  const StepRows rows = rows_of(*step);
  AttentionPlan plan;
  plan_attention(rows, shape->heads, cache_shape(*shape), window, pool->pool.size(), plan);
  const AttentionCall call{cache_shape(*shape), shape->heads, scale, soft_cap, slopes,
                           static_cast<const uint8_t*>(key_cache), static_cast<const uint8_t*>(value_cache),
                           queries, width, out, width};
  auto work = [&](const Member& member) { attend(call, rows, plan, member); };
  pool->pool.run(work);
}

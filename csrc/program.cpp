#include "program.h"

#include <string.h>

#include <algorithm>
#include <new>

#include "handles.h"
#include "rows.h"

namespace tgi {
namespace {

bool recurrent(int code) { return code == TGI_CONVOLVE || code == TGI_SCAN || code == TGI_DELTA_RULE; }

int state_of(const tgi_op& op) {
  return op.code == TGI_CONVOLVE ? op.convolve.state : op.code == TGI_SCAN ? op.scan.state : op.delta_rule.state;
}

bool row_wise(const tgi_op& op) {
  return op.code != TGI_LINEAR && op.code != TGI_HEAD_LINEAR && op.code != TGI_ATTENTION && op.code != TGI_EXPERTS &&
         !recurrent(op.code);
}

CacheShape cache_shape(const tgi_cache_heads& heads) { return {heads.type, heads.kv_heads, heads.head_dim}; }

bool share_plan(const tgi_attention_op& one, const tgi_attention_op& other) {
  return one.sees == other.sees && one.window == other.window && one.chunk == other.chunk && one.heads == other.heads &&
         one.kv_heads == other.kv_heads &&
         one.head_dim == other.head_dim;
}

// Floats from one row of a buffer to the next. An odd number of cache lines: rows that a tile writes together would else,
// with the usual widths, meet in the same set of a cache.
int stride_for(int width) { return ((width + 15) / 16 | 1) * 16; }

// Bytes of packed activations of a head, for one member.
size_t head_bytes(const tgi_head_linear_op& op, int rows) {
  size_t bytes = 0;
  for (int head = 0; head < op.heads; head++) bytes = std::max(bytes, packed_bytes(*op.weights[head], rows));
  return (bytes + 63) / 64 * 64;
}

// Rows of `step` from sequence `first` on, whose positions and starts are these, with the keys that attention `sees`.
StepRows rows_of(const tgi_step& step, int sees, int first, int sequences, const int64_t* starts,
                 const int64_t* positions) {
  if (sees == TGI_ENCODER)
    return {sequences, starts, positions, step.encoder_tables + first * step.encoder_width, step.encoder_width,
            step.encoder_contexts + first};
  return {sequences, starts, positions, step.block_tables + first * step.table_width, step.table_width,
          sees == TGI_ALL ? step.contexts + first : nullptr};
}

}  // namespace

Program::Program(Pool& pool, const tgi_op* ops, int count, const int32_t* widths, int buffers, int cache_type)
    : pool_(pool), ops_(ops, ops + count), widths_(widths, widths + buffers), cache_type_(cache_type),
      buffers_(buffers) {
  for (int width : widths_) strides_.push_back(stride_for(width));
  for (const tgi_op& op : ops_) {
    if (recurrent(op.code)) states_ = std::max(states_, state_of(op) + 1);
    const auto shares = [&](const tgi_attention_op& other) { return share_plan(op.attention, other); };
    if (op.code == TGI_ATTENTION && std::none_of(planned_.begin(), planned_.end(), shares))
      planned_.push_back(op.attention);
    whole_ = whole_ || (op.code == TGI_ATTENTION && op.attention.sees == TGI_ALL);
  }
}

void Program::reserve(int rows) {
  if (rows <= reserved_) return;
  const auto mixes = [](const tgi_op& op) { return op.code == TGI_EXPERTS; };
  if (std::any_of(ops_.begin(), ops_.end(), mixes)) rows = std::max(rows, kExpertRows);
  size_t packed = 0, floats = 0;
  for (const tgi_op& op : ops_)
    if (op.code == TGI_LINEAR)
      packed = std::max(packed, packed_bytes(*op.linear.weight, rows));
  for (int stride : strides_) floats += size_t(stride) * rows;
  size_t experts = 0;
  for (const tgi_op& op : ops_)
    if (op.code == TGI_EXPERTS) {
      experts = std::max(experts, ExpertScratch::floats(op.experts, rows));
      for (int e = 0; e < op.experts.count; e++)
        packed = std::max({packed, packed_bytes(*op.experts.up[e], rows), packed_bytes(*op.experts.down[e], rows)});
    }
  for (const tgi_op& op : ops_)  // each member packs the activations of its own heads
    if (op.code == TGI_HEAD_LINEAR)
      packed = std::max(packed, pool_.size() * head_bytes(op.head_linear, rows));
  floats += experts;
  memory_.reset(new Arena);
  bytes_ = 4 * floats + packed + 128;
  auto* next = static_cast<float*>(memory_->allocate(bytes_));  // 64-byte aligned, in huge pages where there are any
  if (!next) throw std::bad_alloc();
  for (size_t i = 0; i < strides_.size(); i++) {
    buffers_[i] = next;
    next += size_t(strides_[i]) * rows;
  }
  experts_.memory = next;
  experts_.rows = rows;
  experts_.packed_bytes = packed;
  packed_ = next + experts;
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
  slice.states.resize(states_);
  for (int state = 0; state < states_; state++) {
    slice.states[state].clear();
    for (int i = 0; i + 1 < (int)slice.starts.size(); i++) {
      const int sequence = first + i;
      // What began in a former slice goes on from where that wrote.
      const int64_t read = starts[sequence] >= begin ? step.state_reads[sequence] : step.state_writes[sequence];
      float* all = step.states[state];
      const int64_t size = step.state_sizes[state];
      slice.states[state].push_back({(int)slice.starts[i], (int)slice.starts[i + 1], read < 0 ? nullptr : all + read * size,
                                     all + step.state_writes[sequence] * size});
    }
  }
  slice.plans.resize(planned_.size());
  for (size_t i = 0; i < planned_.size(); i++) {
    const tgi_attention_op& op = planned_[i];
    const CacheShape shape{cache_type_, op.kv_heads, op.head_dim};
    plan_attention(attention_rows(step, slice, op), op.heads, shape, {op.window, op.chunk}, pool_.size(),
                   slice.plans[i]);
  }
}

bool Program::within_tables(const tgi_step& step) const {
  for (const tgi_op& op : ops_) {
    if (op.code != TGI_EMBED) continue;
    const int64_t* ids = op.embed.by_position ? step.positions : step.token_ids;
    const int64_t first = op.embed.first, rows = op.embed.table->out;
    if (std::any_of(ids, ids + step.rows, [&](int64_t id) { return id < 0 || id + first >= rows; })) return false;
  }
  return true;
}

// Rows of the slice that begins with this one. Where rows see later ones of their sequence, it is cut between sequences.
int Program::rows_from(const tgi_step& step, int begin) const {
  const int most = std::min(kSliceRows, step.rows - begin);
  if (!whole_) return most;
  const int64_t* end = std::find(step.query_starts, step.query_starts + step.sequences, begin) + 1;
  while (end < step.query_starts + step.sequences && end[1] - begin <= most) end++;
  return (int)(*end - begin);
}

StepRows Program::attention_rows(const tgi_step& step, const Slice& slice, const tgi_attention_op& op) {
  return rows_of(step, op.sees, slice.first_sequence, (int)slice.starts.size() - 1, slice.starts.data(),
                 step.positions + slice.begin);
}

void Program::run(const tgi_step& step, int result, float* out) {
  int count;
  for (int begin = 0; begin < step.rows; begin += count) {
    count = rows_from(step, begin);
    reserve(count);
    plan(step, begin, count, slice_);
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
    const bool everything = op.code != TGI_LINEAR && !row_wise(op);
    if (everything || shared || (op.code == TGI_LINEAR && packs_columns(slice, member)))
      wait(member, op.code);
    shared = !row_wise(op);
    if (op.code == TGI_LINEAR) run_linear(op.linear, slice, member);
    else if (op.code == TGI_ATTENTION) run_attention(op.attention, step, slice, member);
    else if (recurrent(op.code)) run_recurrent(op, slice, member);
    else if (op.code == TGI_HEAD_LINEAR) run_head_linear(op.head_linear, slice, member);
    else if (op.code == TGI_EXPERTS) run_experts(op.experts, slice, member);
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

void Program::run_linear(const tgi_linear_op& op, const Slice& slice, const Member& member) {
  const Linear& linear = *op.weight;
  const Packed packed = packed_in(linear, slice.rows, packed_);
  const int units = pack_units(linear);
  const Share rows{(int)member.begin(slice.rows), (int)member.end(slice.rows), 0, units};
  const Share columns{0, slice.rows, (int)member.begin(units), (int)member.end(units)};
  pack_activations(linear, buffers_[op.x], strides_[op.x], slice.rows, packs_columns(slice, member) ? columns : rows,
                   packed);
  wait(member, TGI_LINEAR);
  multiply_panels(linear, packed, slice.rows, (int)member.begin(linear.panels), (int)member.end(linear.panels),
                  buffers_[op.out] + op.first, strides_[op.out], op.add != 0);
}

// A head is one member's, so that none waits for another.
void Program::run_head_linear(const tgi_head_linear_op& op, const Slice& slice, const Member& member) {
  uint8_t* memory = static_cast<uint8_t*>(packed_) + member.index * head_bytes(op, slice.rows);
  for (int head = (int)member.begin(op.heads); head < member.end(op.heads); head++) {
    const Linear& linear = *op.weights[head];
    const int width = linear.out + op.tail;
    const Packed packed = packed_in(linear, slice.rows, memory);
    pack_activations(linear, buffers_[op.x] + head * op.stride, strides_[op.x], slice.rows,
                     Share{0, slice.rows, 0, pack_units(linear)}, packed);
    multiply_panels(linear, packed, slice.rows, 0, linear.panels, buffers_[op.out] + head * width, strides_[op.out], false);
    if (op.tail)
      for (int r = 0; r < slice.rows; r++)
        memcpy(row(op.out, r) + head * width + linear.out, row(op.x, r) + op.rest + head * op.tail, 4 * size_t(op.tail));
  }
}

void Program::run_recurrent(const tgi_op& any, const Slice& slice, const Member& member) {
  const auto value = [&](int buffer) { return RowsOf{buffers_[buffer], strides_[buffer]}; };
  if (any.code == TGI_CONVOLVE) {
    const tgi_convolve_op& op = any.convolve;
    convolve(op, slice.states[op.state], value(op.x), value(op.out), widths_[op.out], member);
  } else if (any.code == TGI_SCAN) {
    const tgi_scan_op& op = any.scan;
    scan(op, slice.states[op.state], value(op.x), value(op.other), value(op.out), member);
  } else {
    const tgi_delta_rule_op& op = any.delta_rule;
    delta_rule(op, slice.states[op.state], value(op.x), value(op.other), value(op.out), member);
  }
}

void Program::run_experts(const tgi_experts_op& op, const Slice& slice, const Member& member) {
  const ExpertRows rows{buffers_[op.x], strides_[op.x], buffers_[op.router], strides_[op.router],
                        buffers_[op.out], strides_[op.out], slice.rows};
  tgi::run_experts(op, rows, experts_, packed_, member, [&] { wait(member, TGI_EXPERTS); });
}

const AttentionPlan& Program::plan_for(const tgi_attention_op& op, const Slice& slice) const {
  const auto shares = [&](const tgi_attention_op& other) { return share_plan(op, other); };
  return slice.plans[std::find_if(planned_.begin(), planned_.end(), shares) - planned_.begin()];
}

void Program::run_attention(const tgi_attention_op& op, const tgi_step& step, const Slice& slice,
                            const Member& member) {
  const AttentionCall call{{cache_type_, op.kv_heads, op.head_dim},
                           op.heads,
                           op.scale,
                           op.soft_cap,
                           op.slopes,
                           op.sinks,
                           op.bias,
                           op.furthest,
                           static_cast<const uint8_t*>(step.keys[op.layer]),
                           static_cast<const uint8_t*>(step.values[op.layer]),
                           buffers_[op.x] + op.queries,
                           size_t(strides_[op.x]),
                           buffers_[op.out],
                           size_t(strides_[op.out])};
  attend(call, attention_rows(step, slice, op), plan_for(op, slice), member);
}

void Program::run_rows(const tgi_op& op, const tgi_step& step, const Slice& slice, int begin, int end) {
  for (int r = begin; r < end; r++) run_row(op, step, slice, r);
}

void Program::run_row(const tgi_op& any, const tgi_step& step, const Slice& slice, int r) {
  const int64_t at = slice.begin + r;
  switch (any.code) {
    case TGI_EMBED: {
      const tgi_embed_op& op = any.embed;
      read_row(*op.table, op.first + (op.by_position ? step.positions[at] : step.token_ids[at]), row(op.out, r));
      break;
    }
    case TGI_ADD: add_to(row(any.add.out, r), row(any.add.x, r), widths_[any.add.out]); break;
    case TGI_SCALE: scale_by(row(any.scale.out, r), any.scale.factor, widths_[any.scale.out]); break;
    case TGI_CLAMP: clamp(row(any.clamp.out, r), any.clamp.limit, widths_[any.clamp.out]); break;
    case TGI_SOFT_CAP: soft_cap(row(any.soft_cap.out, r), any.soft_cap.cap, widths_[any.soft_cap.out]); break;
    case TGI_RMS_NORM: {
      const tgi_rms_norm_op& op = any.rms_norm;
      for (int head = 0, from = op.offset; head < op.heads; head++, from += op.width)
        rms_norm(row(op.x, r) + from, op.weight ? op.weight + (op.each ? head * op.width : 0) : nullptr, op.eps, op.width,
                 row(op.out, r) + from);
      break;
    }
    case TGI_LAYER_NORM: {
      const tgi_layer_norm_op& op = any.layer_norm;
      for (int head = 0, from = op.offset; head < op.heads; head++, from += op.width) {
        const int own = op.each ? head * op.width : 0;
        layer_norm(row(op.x, r) + from, op.weight ? op.weight + own : nullptr, op.bias ? op.bias + own : nullptr, op.eps,
                   op.width, row(op.out, r) + from);
      }
      break;
    }
    case TGI_ROTARY: {
      const tgi_rotary_op& op = any.rotary;
      const int half = step.rotary_half[op.rope];
      const int64_t angle = step.positions[at] * half;
      rotate(row(op.x, r) + op.offset, op.heads, op.head_dim, step.cos[op.rope] + angle, step.sin[op.rope] + angle,
             half, op.adjacent != 0);
      break;
    }
    case TGI_ACTIVATE: {
      const tgi_activate_op& op = any.activate;
      if (op.parameters) xielu(row(op.x, r), op.parameters, widths_[op.out], row(op.out, r));
      else activate(op.function, row(op.x, r), widths_[op.out], row(op.out, r));
      break;
    }
    case TGI_GATE: {
      const tgi_gate_op& op = any.gate;
      const int width = widths_[op.out];
      activate_gated(op.function, row(op.x, r), row(op.x, r) + width, width, row(op.out, r));
      break;
    }
    case TGI_MULTIPLY: {
      const tgi_multiply_op& op = any.multiply;
      multiply_by(op.function, row(op.out, r), row(op.x, r) + op.offset, widths_[op.out]);
      break;
    }
    case TGI_STORE_KV: store_row(any.store_kv, step, slice, r); break;
  }
}

void Program::store_row(const tgi_store_kv_op& op, const tgi_step& step, const Slice& slice, int r) {
  const int64_t* slot = step.slots + slice.begin + r;
  const bool last = r + 1 == slice.rows || slot[1] != slot[0] + 1;
  const float* x = row(op.x, r);
  store_position({cache_type_, op.kv_heads, op.head_dim}, static_cast<uint8_t*>(step.keys[op.layer]),
                 static_cast<uint8_t*>(step.values[op.layer]), *slot, x + op.keys, x + op.values, last);
}

}  // namespace tgi

using namespace tgi;

struct tgi_program {
  Program program;
};

size_t tgi_key_bytes(const tgi_cache_heads* heads) { return cache_shape(*heads).key_record() * heads->kv_heads; }

size_t tgi_value_bytes(const tgi_cache_heads* heads) { return cache_shape(*heads).value_record() * heads->kv_heads; }

size_t tgi_op_bytes(int code) {
  static constexpr size_t bytes[] = {
      sizeof(tgi_embed_op),    sizeof(tgi_add_op),      sizeof(tgi_scale_op),      sizeof(tgi_clamp_op),
      sizeof(tgi_soft_cap_op), sizeof(tgi_rms_norm_op), sizeof(tgi_layer_norm_op), sizeof(tgi_linear_op),
      sizeof(tgi_head_linear_op), sizeof(tgi_rotary_op),   sizeof(tgi_activate_op), sizeof(tgi_gate_op),       sizeof(tgi_experts_op),
      sizeof(tgi_multiply_op), sizeof(tgi_convolve_op), sizeof(tgi_scan_op),       sizeof(tgi_delta_rule_op),
      sizeof(tgi_store_kv_op), sizeof(tgi_attention_op), sizeof(tgi_op)};
  static_assert(sizeof(bytes) / sizeof(bytes[0]) == TGI_CODES + 1, "one for each operation");
  return code >= 0 && code <= TGI_CODES ? bytes[code] : 0;
}

tgi_program* tgi_program_create(tgi_pool* pool, const tgi_op* ops, int count, const int32_t* widths, int buffers,
                                int cache_type) {
  return new (std::nothrow) tgi_program{Program(pool->pool, ops, count, widths, buffers, cache_type)};
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

void tgi_store_kv(const tgi_cache_heads* heads, void* key_cache, void* value_cache, const int64_t* slots, int rows,
                  const float* keys, const float* values) {
  const CacheShape cache = cache_shape(*heads);
  const size_t width = size_t(heads->kv_heads) * heads->head_dim;
  for (int r = 0; r < rows; r++)
    store_position(cache, static_cast<uint8_t*>(key_cache), static_cast<uint8_t*>(value_cache), slots[r],
                   keys + r * width, values + r * width, r + 1 == rows || slots[r + 1] != slots[r] + 1);
}

void tgi_attention(tgi_pool* pool, int cache_type, const tgi_attention_op* op, const void* key_cache,
                   const void* value_cache, const tgi_step* step, const float* queries, float* out) {
  const size_t width = size_t(op->heads) * op->head_dim;
  const CacheShape shape{cache_type, op->kv_heads, op->head_dim};
  const StepRows rows = rows_of(*step, op->sees, 0, step->sequences, step->query_starts, step->positions);
  AttentionPlan plan;
  plan_attention(rows, op->heads, shape, {op->window, op->chunk}, pool->pool.size(), plan);
  const AttentionCall call{shape, op->heads, op->scale, op->soft_cap, op->slopes, op->sinks, op->bias, op->furthest,
                           static_cast<const uint8_t*>(key_cache), static_cast<const uint8_t*>(value_cache),
                           queries, width, out, width};
  auto work = [&](const Member& member) { attend(call, rows, plan, member); };
  pool->pool.run(work);
}

// Runs every kernel of a native library on random shapes and writes what it gives to standard output.
//
// Linked with one library at a time; the inputs follow from the seed alone, so that the outputs of two libraries,
// of two processors even, can be compared byte by byte (tests/kernels/test_native_levels.py). Each output is a
// line "name type count" with type f (float), d (double) or l (int64), and its bytes.
//
//   outputs SEED THREADS
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tgi.h"

namespace {

using Floats = std::vector<float>;
using Ids = std::vector<int64_t>;

struct Random {
  std::mt19937 bits;
  int between(int low, int high) { return low + (int)(bits() % (uint32_t)(high - low + 1)); }
  float number() { return (float)(int32_t)bits() * 0x1p-31f; }  // [-1, 1)
  Floats numbers(size_t count, float scale = 1.0f) {
    Floats result(count);
    for (float& x : result) x = scale * number();
    return result;
  }
};

void say(const std::string& name, char type, const void* data, size_t count, size_t size) {
  printf("%s %c %zu\n", name.c_str(), type, count);
  fwrite(data, size, count, stdout);
}
void say(const std::string& name, const Floats& x) { say(name, 'f', x.data(), x.size(), 4); }
void say(const std::string& name, const std::vector<double>& x) { say(name, 'd', x.data(), x.size(), 8); }
void say(const std::string& name, const Ids& x) { say(name, 'l', x.data(), x.size(), 8); }

uint16_t upper_half(float x) {  // bfloat16, cut off
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (uint16_t)(bits >> 16);
}

// A layer with random weights: packed from numbers, or from codes where there are zero points.
tgi_linear* make_layer(Random& random, tgi_pool* pool, tgi_arena* arena, int format, int in, int out, bool bias,
                        int activations = TGI_INT8) {
  const bool quantised = format >= TGI_INT8;
  const bool halves = format == tgi_format("int5") || format == tgi_format("iq4_nl");  // two scales a group
  const int groups[] = {32, 64, 128, 0};
  const int group = halves ? 128 : quantised ? groups[random.between(0, 3)] : 0;
  const int few = format == tgi_format("int2") ? 2 : format == tgi_format("int3") ? 3 : 0;  // bits of codes that nothing rounds to
  const bool zero_points = few || (quantised && !halves && random.between(0, 1));
  const bool rotated = quantised && !zero_points && group % 128 == 0 && random.between(0, 1);
  const bool nibbles = few && group && random.between(0, 1);  // and minimums in place of zero points
  const int zero_bits = nibbles ? 0 : few ? 4 : 8;
  const tgi_linear_apart apart{group, nibbles ? (int)TGI_NIBBLES : (int)TGI_FLOAT32, 0, zero_bits, nibbles, nullptr, nullptr};
  const int part = zero_points && !group ? 128 : group;
  const tgi_linear_shape shape{format, in, out, part, rotated, activations, bias, zero_points ? &apart : nullptr};
  tgi_linear* layer = tgi_linear_create(arena, &shape);
  if (zero_points) {
    const int count = group ? (in + group - 1) / group : 1;
    std::vector<uint8_t> codes(size_t(out) * in), zeros(size_t(out) * count);
    const int most = few ? (1 << few) - 1 : format == TGI_INT8 ? 255 : format == tgi_format("int6") ? 63 : 15;
    for (uint8_t& code : codes) code = (uint8_t)random.between(0, most);
    for (uint8_t& zero : zeros) zero = (uint8_t)random.between(0, most);
    Floats scales = random.numbers(zeros.size(), 0.01f), minimums(zeros.size()), steps(size_t(out) * ((in + 255) / 256), 0.0078125f);
    for (size_t i = 0; nibbles && i < scales.size(); i++) {
      scales[i] = steps[0] * (float)random.between(0, 15);
      minimums[i] = -steps[0] * (float)random.between(0, 15);
    }
    const float *least = nibbles ? minimums.data() : nullptr, *step = nibbles ? steps.data() : nullptr;
    tgi_linear_pack_codes(pool, layer, codes.data(), scales.data(), nibbles ? nullptr : zeros.data(), least, step, step, 0, out);
  } else if (format == TGI_FLOAT16) {
    std::vector<uint16_t> halves(size_t(out) * in);
    for (uint16_t& half : halves) half = (uint16_t)(random.bits() & 0xbbff);  // below 2 in magnitude, also subnormal
    tgi_linear_pack(pool, layer, halves.data(), TGI_FLOAT16, in, 1, 0, out, nullptr);
  } else if (random.between(0, 1)) {
    const Floats weights = random.numbers(size_t(out) * in);
    tgi_linear_pack(pool, layer, weights.data(), TGI_FLOAT32, 1, out, 0, out, nullptr);  // as a transposed matrix
  } else {
    std::vector<uint16_t> weights(size_t(out) * in);
    for (uint16_t& weight : weights) weight = upper_half(random.number());
    tgi_linear_pack(pool, layer, weights.data(), TGI_BFLOAT16, in, 1, 0, out, nullptr);
  }
  if (bias) tgi_linear_set_bias(layer, random.numbers(out).data(), 0, out);
  return layer;
}

void linears(Random& random, tgi_pool* pool) {
  const char* names[] = {"float32", "bfloat16", "float16", "int8", "int4", "int6", "int5", "iq4_nl", "int2", "int3"};
  for (int format = TGI_FLOAT32; format <= tgi_format("int3"); format++) {
    for (int round = 0; round < 10; round++) {
      tgi_arena* arena = tgi_arena_create();
      const int in = round % 3 ? 32 * random.between(1, 9) : random.between(1, 150), out = random.between(1, 90);
      const int rows = round % 2 ? random.between(1, 6) : random.between(7, 40);
      const tgi_linear* layer = make_layer(random, pool, arena, format, in, out, random.between(0, 1),
                                           round % 4 ? TGI_INT8 : TGI_FLOAT32);
      const Floats x = random.numbers(size_t(rows) * in, 4.0f);
      Floats y = random.numbers(size_t(rows) * out);
      tgi_linear_run(pool, layer, x.data(), rows, y.data(), random.between(0, 1));
      const std::string name = std::string("linear-") + names[format] + "-" + std::to_string(round);
      say(name, y);
      Ids ids(out);
      for (int i = 0; i < out; i++) ids[i] = out - 1 - i;
      Floats weights(size_t(out) * in);
      tgi_linear_rows(pool, layer, ids.data(), out, weights.data());
      say(name + "-weights", weights);
      tgi_arena_destroy(arena);
    }
  }
}

// A step of some sequences with a context behind them: blocks in random order.
struct Sequences {
  std::vector<int> contexts;
  Ids token_ids, positions, slots, starts{0}, tables;
  int width = 0, rows = 0, blocks = 0;
  tgi_step step{};

  Sequences(Random& random, int count, int longest, bool from_the_start) {
    std::vector<int> lengths;
    for (int i = 0; i < count; i++) {
      const int all = random.between(1, longest);
      contexts.push_back(all);
      lengths.push_back(from_the_start || random.between(0, 1) ? all : random.between(1, std::min(all, 20)));
      if (!from_the_start && i % 2) lengths.back() = 1;
      width = std::max(width, (all + 31) / 32);
    }
    blocks = count * width;
    tables.resize(blocks);
    for (int i = 0; i < blocks; i++) tables[i] = i;
    for (int i = blocks - 1; i > 0; i--) std::swap(tables[i], tables[random.between(0, i)]);
    for (int i = 0; i < count; i++) {
      for (int at = contexts[i] - lengths[i]; at < contexts[i]; at++) {
        positions.push_back(at);
        slots.push_back(slot(i, at));
        token_ids.push_back(random.between(0, 40));
      }
      starts.push_back((int64_t)positions.size());
    }
    rows = (int)positions.size();
    step.rows = rows, step.sequences = count, step.table_width = width;
    step.token_ids = token_ids.data(), step.positions = positions.data(), step.slots = slots.data();
    step.query_starts = starts.data(), step.block_tables = tables.data();
  }
  int64_t slot(int sequence, int position) const {
    return tables[size_t(sequence) * width + position / 32] * 32 + position % 32;
  }
};

void attentions(Random& random, tgi_pool* pool) {
  const int types[] = {TGI_FLOAT32, TGI_BFLOAT16, TGI_FLOAT16, TGI_INT8};
  for (int round = 0; round < 20; round++) {
    const tgi_cache_heads shape{types[round % 4], random.between(1, 3), 2 * random.between(2, 40)};
    const int heads = shape.kv_heads * random.between(1, 5);
    const Sequences sequences(random, random.between(1, 5), round % 5 ? 90 : 600, false);
    std::vector<uint8_t> keys(tgi_key_bytes(&shape) * sequences.blocks);
    std::vector<uint8_t> values(tgi_value_bytes(&shape) * sequences.blocks);
    const size_t kv_width = size_t(shape.kv_heads) * shape.head_dim;
    for (int i = 0; i < sequences.step.sequences; i++) {
      const int length = sequences.contexts[i];
      Ids slots;
      for (int at = 0; at < length; at++) slots.push_back(sequences.slot(i, at));
      const Floats k = random.numbers(length * kv_width, 2.0f), v = random.numbers(length * kv_width, 2.0f);
      tgi_store_kv(&shape, keys.data(), values.data(), slots.data(), length, k.data(), v.data());
    }
    const size_t width = size_t(heads) * shape.head_dim;
    const Floats queries = random.numbers(sequences.rows * width, 2.0f), slopes = random.numbers(heads, 0.1f);
    Floats out(sequences.rows * width);
    const float cap = random.between(0, 1) ? 3.0f : 0.0f;
    const int window = random.between(0, 1) ? random.between(1, 70) : 0;
    const bool sloped = random.between(0, 1);
    const tgi_attention_op op{TGI_ATTENTION, 0,      0,    0,   heads, shape.kv_heads,
                              shape.head_dim, 0, window, TGI_BEFORE, 0, 0.3f, cap, sloped ? slopes.data() : nullptr, nullptr, 0,
                              nullptr};
    tgi_attention(pool, shape.type, &op, keys.data(), values.data(), &sequences.step, queries.data(), out.data());
    say("attention-" + std::to_string(round), out);
  }
}

template <class Op>
tgi_op any(const Op& op) {
  tgi_op result{};
  memcpy(&result, &op, sizeof(op));
  return result;
}

void programs(Random& random, tgi_pool* pool) {
  for (int round = 0; round < 6; round++) {
    const int heads = 4, kv_heads = 2, dim = 24;
    const tgi_cache_heads shape{TGI_BFLOAT16, kv_heads, dim};
    const int width = 60, inner = 70, query = heads * dim, kv = kv_heads * dim;
    tgi_arena* arena = tgi_arena_create();
    const int format = round % 2 ? TGI_INT8 : tgi_format("int4");
    auto layer = [&](int in, int out) { return make_layer(random, pool, arena, format, in, out, true); };
    const Floats scale = random.numbers(width), bias = random.numbers(width), head_scale = random.numbers(24);
    const tgi_op ops[] = {
        any(tgi_embed_op{TGI_EMBED, 0, layer(width, 41), 0, 0}),
        any(tgi_scale_op{TGI_SCALE, 0, 1.5f}),
        any(tgi_layer_norm_op{TGI_LAYER_NORM, 1, 0, 1, width, 0, 0, 1e-5f, scale.data(), bias.data()}),
        any(tgi_linear_op{TGI_LINEAR, 2, 1, 0, 0, layer(width, query + 2 * kv)}),
        any(tgi_rms_norm_op{TGI_RMS_NORM, 2, 2, heads, dim, 0, 0, 1e-6f, head_scale.data()}),
        any(tgi_clamp_op{TGI_CLAMP, 2, 2.0f}),
        any(tgi_rotary_op{TGI_ROTARY, 2, heads + kv_heads, dim, 0, 0, round % 3 == 0}),
        any(tgi_store_kv_op{TGI_STORE_KV, 2, 0, kv_heads, dim, query, query + kv}),
        any(tgi_attention_op{TGI_ATTENTION, 3, 2, 0, heads, kv_heads, dim, 0, 0, TGI_BEFORE, 0, 0.2f, 0, nullptr, nullptr, 0, nullptr}),
        any(tgi_linear_op{TGI_LINEAR, 0, 3, 1, 0, layer(query, width)}),
        any(tgi_rms_norm_op{TGI_RMS_NORM, 1, 0, 1, width, 0, 0, 1e-6f, scale.data()}),
        any(tgi_linear_op{TGI_LINEAR, 4, 1, 0, 0, layer(width, 2 * inner)}),
        any(tgi_gate_op{TGI_GATE, 5, 4, round % 6}),
        any(tgi_activate_op{TGI_ACTIVATE, 5, 5, (round + 1) % 6, nullptr}),
        any(tgi_linear_op{TGI_LINEAR, 1, 5, 0, 0, layer(inner, width)}),
        any(tgi_add_op{TGI_ADD, 0, 1}),
        any(tgi_soft_cap_op{TGI_SOFT_CAP, 0, 5.0f}),
    };
    const int32_t widths[] = {width, width, query + 2 * kv, query, 2 * inner, inner};
    Sequences sequences(random, random.between(1, 6), 100, true);
    std::vector<uint8_t> keys(tgi_key_bytes(&shape) * sequences.blocks);
    std::vector<uint8_t> values(tgi_value_bytes(&shape) * sequences.blocks);
    void *key_pointer = keys.data(), *value_pointer = values.data();
    const int32_t half = 10;
    const Floats cosines = random.numbers(100 * half), sines = random.numbers(100 * half);
    const float *cos_pointer = cosines.data(), *sin_pointer = sines.data();
    sequences.step.keys = &key_pointer, sequences.step.values = &value_pointer;
    sequences.step.cos = &cos_pointer, sequences.step.sin = &sin_pointer, sequences.step.rotary_half = &half;
    tgi_program* program = tgi_program_create(pool, ops, sizeof(ops) / sizeof(ops[0]), widths, 6, shape.type);
    Floats out(size_t(sequences.rows) * width);
    if (!program || tgi_program_run(program, &sequences.step, 0, out.data()) != 1) abort();
    say("program-" + std::to_string(round), out);
    tgi_program_destroy(program);
    tgi_arena_destroy(arena);
  }
}

void vocabularies(Random& random, tgi_pool* pool) {
  for (int round = 0; round < 6; round++) {
    const int rows = random.between(1, 5), size = random.between(20, 9000), count = random.between(1, 20);
    Floats logits = random.numbers(size_t(rows) * size, 8.0f);
    for (float& logit : logits)
      if (random.between(0, 9) == 0) logit = (float)random.between(-3, 7);  // ties
    Ids ids(size_t(rows) * count), chosen(rows);
    Floats best(size_t(rows) * count), first(rows), divisors(rows);
    std::vector<double> masses(rows), uniforms(rows), logprobs(rows);
    for (int row = 0; row < rows; row++) {
      divisors[row] = 0.5f + (float)random.between(0, 8) / 4;
      uniforms[row] = (double)random.bits() / 4294967296.0;
    }
    tgi_rank(pool, logits.data(), rows, size, count, ids.data(), best.data(), masses.data());
    for (int row = 0; row < rows; row++) first[row] = best[size_t(row) * count];
    const std::string name = "vocabulary-" + std::to_string(round);
    say(name + "-ids", ids), say(name + "-best", best), say(name + "-rank-masses", masses);
    tgi_log_mass(pool, logits.data(), rows, size, divisors.data(), first.data(), masses.data());
    tgi_pick(pool, logits.data(), rows, size, divisors.data(), uniforms.data(), chosen.data(), logprobs.data());
    say(name + "-masses", masses), say(name + "-chosen", chosen), say(name + "-logprobs", logprobs);
    std::vector<uint32_t> masks(size_t(rows) * ((size + 31) / 32));
    Ids order(rows);
    for (int row = 0; row < rows; row++) order[row] = rows - 1 - row;
    for (uint32_t& word : masks) word = 1 | (random.bits() & random.bits());
    tgi_best_allowed(pool, logits.data(), size, rows, order.data(), masks.data(), (size + 31) / 32, chosen.data(),
                     first.data(), masses.data());
    tgi_mask(pool, logits.data(), size, rows, order.data(), masks.data(), (size + 31) / 32);
    say(name + "-allowed", chosen), say(name + "-allowed-best", first), say(name + "-allowed-masses", masses);
    for (float& logit : logits) logit = std::max(logit, -1e9f);
    say(name + "-masked", logits);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 3 || tgi_abi() != TGI_ABI) return 2;
  Random random{std::mt19937((uint32_t)atoi(words[1]))};
  tgi_pool* pool = tgi_pool_create(atoi(words[2]));
  fprintf(stderr, "%s\n%s\n", tgi_level(), tgi_levels());
  linears(random, pool);
  attentions(random, pool);
  programs(random, pool);
  vocabularies(random, pool);
  tgi_pool_destroy(pool);
  return 0;
}

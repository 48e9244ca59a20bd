// The C interface of the native CPU kernels, as Python calls it through ctypes (see tgi/kernels/native).
//
// All tensors are row-major and contiguous unless a stride says otherwise (strides count elements).
// Functions that can fail return 0 or nullptr for failure and say so; none throws or exits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define TGI_API extern "C" __attribute__((visibility("default")))
#define TGI_ABI 20  // raised with every change of this file; the loader refuses another number

typedef struct tgi_pool tgi_pool;
typedef struct tgi_arena tgi_arena;
typedef struct tgi_linear tgi_linear;

// Element types: of weights, of the cache, of tensors given to packing. Further formats of weights (csrc/formats.h) have
// the numbers from TGI_INT8 on that `tgi_format` tells.
enum { TGI_FLOAT32, TGI_BFLOAT16, TGI_FLOAT16, TGI_INT8 };

// Floats of 8 bits: element types of a cache; layers can be TGI_E4M3.
enum { TGI_E4M3 = 100, TGI_E5M2 };

// The number of an element type or a format of weights by its name (float32, int4 ...); -1: there is none.
TGI_API int tgi_format(const char* name);

TGI_API int tgi_abi(void);
// Name of the instruction-set level this library was compiled for: portable; avx2, avx2_vnni, avx512, avx512_bf16,
// avx512_amx;
// neon, neon_dotprod, neon_i8mm.
TGI_API const char* tgi_level(void);
// The levels this processor can run by the same names, best first, separated by spaces.
TGI_API const char* tgi_levels(void);

// ---- threads and memory

TGI_API tgi_pool* tgi_pool_create(int threads);
TGI_API void tgi_pool_destroy(tgi_pool* pool);
TGI_API int tgi_pool_size(const tgi_pool* pool);

// Memory for packed weights, on huge pages where allowed; freed as a whole.
TGI_API tgi_arena* tgi_arena_create(void);
TGI_API void tgi_arena_destroy(tgi_arena* arena);
TGI_API size_t tgi_arena_used(const tgi_arena* arena);

// ---- linear layers

// Scales and minimums in the halves of one byte, see below.
enum { TGI_NIBBLES = 102 };

// Codes of a checkpoint, whose scales lie apart from them (csrc/apart.h), in int8, int6, int5, int4, int3 or int2, of which the
// last two have no other layers. scale_group: columns of a scale of the weights, a multiple of the layer's group, or 0 for the
// whole row. scale_type: TGI_FLOAT16, TGI_FLOAT32, TGI_INT8: whole numbers times a float16 for each 256 columns, of minimums
// too; or TGI_NIBBLES: the same of layers with minimums, scales from 0 to 15 and minimums from -15 to 0. zero: the zero point
// of all codes; with zero_bits, 4 or 8, each group has one of its own of so many. book [16]: values of codes of 4 bits, which zero
// is taken from; nullptr: the code. order [in]: column k of the codes is column order[k] of the layer, all of them once;
// nullptr: the same.
typedef struct {
  int32_t scale_group, scale_type;
  int32_t zero, zero_bits, minimums;
  const uint8_t* book;
  const int32_t* order;
} tgi_linear_apart;

// A layer of `out` rows and `in` columns in `format`. Of TGI_E4M3, which takes codes only (no 0x7f and 0xff), group is the columns
// that share a scale, a multiple of 32, or 0. group, of formats of codes: columns whose activations share a scale, and
// whose weights do, or each half of them; a multiple of 16 (of int5 32), or 0 for the whole row; the last ones may be fewer. 128
// where there are two scales. rotated: weights are kept rotated by blocks of 128 (csrc/hadamard.h); group is a multiple of
// that, or 0. activations: what layers of codes round them to: TGI_INT8, or TGI_FLOAT32: leave them unrounded. apart: nullptr
// for scales that lie with their codes.
typedef struct {
  int32_t format, in, out;
  int32_t group, rotated, activations;
  int32_t bias;
  const tgi_linear_apart* apart;
} tgi_linear_shape;

// Lives in the arena, starts as zeros. nullptr: out of memory, or no such layer.
TGI_API tgi_linear* tgi_linear_create(tgi_arena* arena, const tgi_linear_shape* shape);
TGI_API size_t tgi_linear_bytes(const tgi_linear* linear);
// To be called when all rows are packed: bfloat16 weights are kept in 12 bits where that loses nothing. 0: no memory.
TGI_API int tgi_linear_finish(tgi_pool* pool, tgi_arena* arena, tgi_linear* linear);
// Error feedback: what rounding a weight left is made up for by the later ones of its block of 128 columns, as far as the
// inputs of the layer go together. From weight j of a block is taken factors[block][k][j] (0 for j <= k) times what rounding
// weight k has added to it. importance [in]: of each column, before the rotation.
typedef struct {
  const float* factors;  // [blocks][128][128]
  const float* importance;
  double rounded_error, plain_error;  // added to: the sum of squared errors times importance, as packed and without feedback
} tgi_feedback;
// factors [blocks][128][128] of a rotated layer of `in` columns from their importance.
TGI_API void tgi_feedback_factors(tgi_pool* pool, const float* importance, int in, float* factors);

// Packs rows [first, first + rows) from a matrix of type float32, bfloat16 or float16; layers of codes
// search the scale with the least squared error for each row and group. feedback: nullptr for none.
TGI_API void tgi_linear_pack(tgi_pool* pool, tgi_linear* linear, const void* weights, int type, int64_t row_stride,
                             int64_t column_stride, int first, int rows, tgi_feedback* feedback);
// The same from codes that a checkpoint brings: codes [rows][in], scales [rows][all of a row]; a weight is scale * (value of the
// code - zero), where zero is 128 of 8-bit and iq4_nl, 32 of 6-bit, 16 of 5-bit, 8 of 4-bit codes. Those of a rotated layer are
// rotated. zeros, minimums [rows][scales of a row]: of a layer that has some, else nullptr; minimums are added. steps,
// minimum_steps [rows][blocks of 256 columns]: what these are whole multiples of, of scale_type TGI_INT8 or TGI_NIBBLES.
TGI_API void tgi_linear_pack_codes(tgi_pool* pool, tgi_linear* linear, const uint8_t* codes, const float* scales,
                                   const uint8_t* zeros, const float* minimums, const float* steps,
                                   const float* minimum_steps, int first, int rows);
// The same back, of a layer whose scales lie with its codes: what rows [first, first + rows) are kept as. zeros: nullptr where
// nobody asks for them.
TGI_API void tgi_linear_codes(tgi_pool* pool, const tgi_linear* linear, uint8_t* codes, float* scales, uint8_t* zeros,
                              int first, int rows);
TGI_API void tgi_linear_set_bias(tgi_linear* linear, const float* bias, int first, int count);
// The weights of rows[i] as float32, out [count][in]: what the layer multiplies with, after rounding.
TGI_API void tgi_linear_rows(tgi_pool* pool, const tgi_linear* linear, const int64_t* rows, int count, float* out);
// y [rows][out] = x [rows][in] * weights^T + bias, plus y if `accumulate`.
TGI_API void tgi_linear_run(tgi_pool* pool, const tgi_linear* linear, const float* x, int rows, float* y,
                            int accumulate);

// ---- the step: a decoder as a flat list of operations on numbered buffers of rows

typedef struct tgi_program tgi_program;

// Operations. A value is a buffer of float32 rows, one for each token of the step; `out` and `x` are numbers of buffers.
// What each computes is said at the dataclass of its name in tgi/kernels/program.py, whose fields these are.
enum {
  TGI_EMBED,
  TGI_ADD,
  TGI_SCALE,
  TGI_CLAMP,
  TGI_SOFT_CAP,
  TGI_RMS_NORM,
  TGI_LAYER_NORM,
  TGI_LINEAR,
  TGI_HEAD_LINEAR,
  TGI_ROTARY,
  TGI_ACTIVATE,
  TGI_GATE,
  TGI_EXPERTS,
  TGI_MULTIPLY,
  TGI_CONVOLVE,
  TGI_SCAN,
  TGI_DELTA_RULE,
  TGI_STORE_KV,
  TGI_ATTENTION,
  TGI_CODES
};

typedef struct {
  int32_t code, out;
  const tgi_linear* table;
  int32_t by_position, first;
} tgi_embed_op;

typedef struct {
  int32_t code, out, x;
} tgi_add_op;

typedef struct {
  int32_t code, out;
  float factor;
} tgi_scale_op;

typedef struct {
  int32_t code, out;
  float limit;
} tgi_clamp_op;

typedef struct {
  int32_t code, out;
  float cap;
} tgi_soft_cap_op;

typedef struct {
  int32_t code, out, x;
  int32_t heads, width, offset;  // `heads` times `width` numbers from `offset` on
  int32_t each;                  // a weight for each head
  float eps;
  const float* weight;  // [width], or [heads][width], or nullptr
} tgi_rms_norm_op;

typedef struct {
  int32_t code, out, x;
  int32_t heads, width, offset, each;  // as above
  float eps;
  const float *weight, *bias;  // as above; either may be nullptr
} tgi_layer_norm_op;

typedef struct {
  int32_t code, out, x, add;
  int32_t first;  // column of `out` that the layer's first one is
  const tgi_linear* weight;
} tgi_linear_op;

typedef struct {
  int32_t code, out, x;
  int32_t heads, stride, rest, tail;
  const tgi_linear* const* weights;  // [heads]; the caller's
} tgi_head_linear_op;

typedef struct {
  int32_t code, x;
  int32_t heads, head_dim, offset;
  int32_t rope;  // number of its table of angles
  int32_t adjacent;
} tgi_rotary_op;

typedef struct {
  int32_t code, out, x;
  int32_t function;         // as in rows.h
  const float* parameters;  // of xielu [4]; nullptr of others
} tgi_activate_op;

typedef struct {
  int32_t code, out, x;
  int32_t function;
} tgi_gate_op;

enum { TGI_SOFTMAX, TGI_SIGMOID, TGI_SPARSEMIXER };  // how experts get their scores

typedef struct {
  int32_t code, out, x;
  int32_t router;  // buffer of logits
  int32_t count, top, function, normalise;
  int32_t shared;  // whether the last of `count` experts is always chosen
  int32_t scores, groups, top_groups, group_best, weigh_inputs;
  float scale, limit, jitter;  // limit 0: none
  const float *correction, *scales;  // [count], or nullptr
  const tgi_linear *const *up, *const *down;  // [count]; the caller's
} tgi_experts_op;

typedef struct {
  int32_t code, out, x;
  int32_t offset, function;  // -1: none; else as in rows.h, or TGI_SIGMOID_FUNCTION
} tgi_multiply_op;

enum { TGI_SIGMOID_FUNCTION = 6 };

typedef struct {
  int32_t code, out, x;
  int32_t kernel, state, at, offset, function;  // function -1: none
  const float *weight, *bias;                   // [kernel][width], [width] or nullptr
} tgi_convolve_op;

typedef struct {
  int32_t code, out, x, other;
  int32_t heads, head_dim, state_dim, groups, state, at, offset;
  float least, most;
  const float *log_decay, *dt_bias, *skip;  // [heads]
} tgi_scan_op;

typedef struct {
  int32_t code, out, x, other;
  int32_t heads, key_heads, key_dim, value_dim, state, at, offset;
  const float *log_decay, *dt_bias;  // [heads]
} tgi_delta_rule_op;

typedef struct {
  int32_t code, x, layer;
  int32_t kv_heads, head_dim;
  int32_t keys, values;  // offsets in x
} tgi_store_kv_op;

typedef struct {
  int32_t code, out, x, layer;
  int32_t heads, kv_heads, head_dim;
  int32_t queries;  // offset in x
  int32_t window;   // 0: all keys
  int32_t sees;     // which keys: TGI_BEFORE ...
  int32_t furthest;
  float scale;
  float soft_cap;       // 0: none
  const float* slopes;  // ALiBi [heads]; nullptr: none
  const float* sinks;   // [heads]; nullptr: none
  int32_t chunk;        // 0: none
  const float* bias;    // by distance of the key, -furthest to furthest [heads][2 * furthest + 1]; nullptr: none
} tgi_attention_op;

// Keys of attention: those of the sequence up to the row's own, all of the sequence, all of its encoder's input.
enum { TGI_BEFORE, TGI_ALL, TGI_ENCODER };

typedef union {
  int32_t code;
  tgi_embed_op embed;
  tgi_add_op add;
  tgi_scale_op scale;
  tgi_clamp_op clamp;
  tgi_soft_cap_op soft_cap;
  tgi_rms_norm_op rms_norm;
  tgi_layer_norm_op layer_norm;
  tgi_linear_op linear;
  tgi_head_linear_op head_linear;
  tgi_rotary_op rotary;
  tgi_activate_op activate;
  tgi_gate_op gate;
  tgi_experts_op experts;
  tgi_multiply_op multiply;
  tgi_convolve_op convolve;
  tgi_scan_op scan;
  tgi_delta_rule_op delta_rule;
  tgi_store_kv_op store_kv;
  tgi_attention_op attention;
} tgi_op;

// Bytes of the structure of an operation, 0 for an unknown code; of tgi_op for TGI_CODES.
TGI_API size_t tgi_op_bytes(int code);

// The cache of one layer: element type (a float type, TGI_INT8, TGI_E4M3 or TGI_E5M2) and heads.
typedef struct {
  int32_t type, kv_heads, head_dim;
} tgi_cache_heads;

// What a step is about. Rows of a sequence are contiguous and in order of position.
typedef struct {
  int32_t rows, sequences;
  const int64_t* token_ids;     // [rows]
  const int64_t* positions;     // [rows]
  const int64_t* slots;         // [rows] block * 32 + offset
  const int64_t* query_starts;  // [sequences + 1]
  const int64_t* block_tables;  // [sequences][table_width]
  int64_t table_width;
  const int64_t* contexts;         // [sequences] tokens, with those of this step; of TGI_ALL only
  const int64_t* encoder_tables;   // [sequences][encoder_width], of TGI_ENCODER only, as the next two
  int64_t encoder_width;
  const int64_t* encoder_contexts;  // [sequences] tokens of each input
  void* const* keys;            // one a layer, see tgi_key_bytes
  void* const* values;          // the same; NULL: the values are the keys
  const float* const* cos;      // tables by position: [d][position][rotary_half]
  const float* const* sin;
  const int32_t* rotary_half;   // of each table
  float* const* states;         // one a state: [slots][its size]
  const int64_t* state_sizes;   // floats
  const int64_t* state_reads;   // [sequences] slots; -1: the sequence begins
  const int64_t* state_writes;  // [sequences]
} tgi_step;

// Asks for huge pages in this memory: a wish, granted or not by the system.
TGI_API void tgi_huge_pages(void* memory, size_t bytes);

// Bytes that keys and values of one block (32 positions) of one layer take.
TGI_API size_t tgi_key_bytes(const tgi_cache_heads* heads);
TGI_API size_t tgi_value_bytes(const tgi_cache_heads* heads);

// A program keeps a copy of the operations; weights belong to the caller. widths: numbers in a row of each buffer.
// cache_type: of the elements of the cache it will run over.
TGI_API tgi_program* tgi_program_create(tgi_pool* pool, const tgi_op* ops, int count, const int32_t* widths,
                                        int buffers, int cache_type);
TGI_API void tgi_program_destroy(tgi_program* program);
// Runs all rows and copies buffer `result` to out [rows][width]. 0: no memory. -1: a token id or position
// has no row in its table, nothing was run.
TGI_API int tgi_program_run(tgi_program* program, const tgi_step* step, int result, float* out);
// Bytes of scratch memory taken so far.
TGI_API size_t tgi_program_bytes(const tgi_program* program);

// Begins to take times. seconds [TGI_CODES + 1]: what the first thread spent so far in each code of operation, and
// last in waiting for the other threads within a step.
TGI_API void tgi_program_profile(tgi_program* program, double* seconds);

// ---- single operations on the cache, for callers that are not a program

// keys, values: [rows][kv_heads][head_dim]. Without a value_cache, here and below, the keys are the values.
TGI_API void tgi_store_kv(const tgi_cache_heads* heads, void* key_cache, void* value_cache, const int64_t* slots,
                          int rows, const float* keys, const float* values);
// queries, out: [rows][op->heads][head_dim]; of `step` the positions and tables are used, of `op` neither buffers nor layer.
TGI_API void tgi_attention(tgi_pool* pool, int cache_type, const tgi_attention_op* op, const void* key_cache,
                           const void* value_cache, const tgi_step* step, const float* queries, float* out);

// ---- sampling

// Of each row of logits [rows][size] the `count` best, ids and values [rows][count]: largest first, ties by lower
// id, a NaN before all. masses [rows]: tgi_log_mass of each, or nullptr.
TGI_API void tgi_rank(tgi_pool* pool, const float* logits, int rows, int64_t size, int count, int64_t* ids,
                      float* values, double* masses);
// log(sum(exp(row / divisor - best / divisor))) [rows]; NaN if any logit is NaN or the best is infinite.
TGI_API void tgi_log_mass(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
                          const float* best, double* out);
// From softmax(row / divisor) the first id at which the cumulative probability exceeds the row's uniform number in
// [0, 1), and the logarithm of its probability; NaN if any logit is NaN or +inf, or all are -inf.
TGI_API void tgi_pick(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
                      const double* uniforms, int64_t* ids, double* logprobs);

// Masks of bits: masks [count][words] of uint32, a bit for each token, the first in the lowest bit of the first word, of
// rows[i] of logits [..][size]; 32 * words is at least size. -infinity to what is not set.
TGI_API void tgi_mask(tgi_pool* pool, float* logits, int64_t size, int count, const int64_t* rows, const uint32_t* masks,
                      int64_t words);
// Of these rows what tgi_rank gives after tgi_mask for a count of 1, without writing; id 0 where nothing is left. masses:
// nullptr where nobody asks for them.
TGI_API void tgi_best_allowed(tgi_pool* pool, const float* logits, int64_t size, int count, const int64_t* rows,
                              const uint32_t* masks, int64_t words, int64_t* ids, float* values, double* masses);

// ---- limits of the machine, to compare the kernels with; the caller takes the time

// Every member reads its share of memory [bytes] once. The result keeps the compiler honest.
TGI_API int64_t tgi_measure_read(tgi_pool* pool, const void* memory, size_t bytes);
// Every member does rounds * TGI_MEASURE_CHAINS vector operations of 16 lanes in registers. kind 0: float32
// multiply-add (32 operations each), 1: the int8 dot product of four (128 each).
enum { TGI_MEASURE_CHAINS = 12 };
TGI_API int64_t tgi_measure_arithmetic(tgi_pool* pool, int kind, int64_t rounds);

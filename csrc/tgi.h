// The C interface of the native CPU kernels, as Python calls it through ctypes (see tgi/kernels/native).
//
// All tensors are row-major and contiguous unless a stride says otherwise (strides count elements).
// Functions that can fail return 0 or nullptr for failure and say so; none throws or exits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define TGI_API extern "C" __attribute__((visibility("default")))
#define TGI_ABI 7  // raised with every change of this file; the loader refuses another number

typedef struct tgi_pool tgi_pool;
typedef struct tgi_arena tgi_arena;
typedef struct tgi_linear tgi_linear;

// Element types: of weights, of the cache, of tensors given to packing.
enum { TGI_FLOAT32, TGI_BFLOAT16, TGI_FLOAT16, TGI_INT8, TGI_INT4, TGI_INT6 };

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

// A layer of `out` rows and `in` columns in `format`; lives in the arena, starts as zeros. group: columns that share a scale
// in formats of codes, int8, int6 and int4 (a multiple of 16, or 0 for one scale a row; the last ones may be fewer).
// activations: what those round activations to: TGI_INT8, or TGI_FLOAT32 for not at all. nullptr: out of memory.
TGI_API tgi_linear* tgi_linear_create(tgi_arena* arena, int format, int in, int out, int group, int zero_points,
                                      int bias, int activations);
TGI_API size_t tgi_linear_bytes(const tgi_linear* linear);
// To be called when all rows are packed: bfloat16 weights are kept in 12 bits where that loses nothing. 0: no memory.
TGI_API int tgi_linear_finish(tgi_pool* pool, tgi_arena* arena, tgi_linear* linear);
// Packs rows [first, first + rows) from a matrix of type float32, bfloat16 or float16; layers of codes
// search the scale with the least squared error for each row and group.
TGI_API void tgi_linear_pack(tgi_pool* pool, tgi_linear* linear, const void* weights, int type, int64_t row_stride,
                             int64_t column_stride, int first, int rows);
// The same from codes that a checkpoint brings: codes [rows][in], scales and zeros [rows][groups]; a weight is
// scale * (code - zero). zeros: nullptr if the layer has no zero points (8-bit: 128, 6-bit: 32, 4-bit: 8).
TGI_API void tgi_linear_pack_codes(tgi_pool* pool, tgi_linear* linear, const uint8_t* codes, const float* scales,
                                   const uint8_t* zeros, int first, int rows);
TGI_API void tgi_linear_set_bias(tgi_linear* linear, const float* bias, int first, int count);
// The weights of rows[i] as float32, out [count][in]: what the layer multiplies with, after rounding.
TGI_API void tgi_linear_rows(tgi_pool* pool, const tgi_linear* linear, const int64_t* rows, int count, float* out);
// y [rows][out] = x [rows][in] * weights^T + bias, plus y if `accumulate`.
TGI_API void tgi_linear_run(tgi_pool* pool, const tgi_linear* linear, const float* x, int rows, float* y,
                            int accumulate);

// ---- the step: a decoder as a flat list of operations on numbered buffers of rows

typedef struct tgi_program tgi_program;

// Operations. `width` numbers of a row are meant where nothing else is said; buffers hold float32 rows.
enum {
  TGI_EMBED,         // output = row of `weight` (a tgi_linear) for the row's token id (a = 0) or position (a = 1)
  TGI_ADD,           // output += input
  TGI_SCALE,         // output *= x
  TGI_SOFT_CAP,      // output = x * tanh(output / x)
  TGI_RMS_NORM,      // output = norm(input) * weight, epsilon x; b > 1: each of b heads of a numbers, from offset c
  TGI_LAYER_NORM,    // the same with `bias`
  TGI_LINEAR,        // output = input times `weight`, a = 1: output += it
  TGI_ROTARY,        // output: b heads of a numbers from offset c turn by table d; y = 1: adjacent pairs
  TGI_ACTIVATION,    // output = f(input), f by a: silu, gelu, tanh gelu, relu, quick gelu
  TGI_GATED,         // output = f(input[0 .. width)) * input[width .. 2 width), f by a
  TGI_STORE_KV,      // layer a: keys from offset b, values from offset c of input go to the row's slot
  TGI_ATTENTION,     // layer a: queries from offset b of input attend, window c; scale x, soft cap y, slopes `weight`
  TGI_CODES
};

typedef struct {
  int32_t code;
  int32_t input, output;  // buffers
  int32_t width;
  int32_t a, b, c, d;
  float x, y;
  const void* weight;
  const void* bias;
} tgi_op;

typedef struct {
  int32_t type;  // of the cache: any but TGI_INT4 and TGI_INT6
  int32_t heads, kv_heads, head_dim;
} tgi_attention_shape;

// What a step is about. Rows of a sequence are contiguous and in order of position.
typedef struct {
  int32_t rows, sequences;
  const int64_t* token_ids;     // [rows]
  const int64_t* positions;     // [rows]
  const int64_t* slots;         // [rows] block * 32 + offset
  const int64_t* query_starts;  // [sequences + 1]
  const int64_t* block_tables;  // [sequences][table_width]
  int64_t table_width;
  void* const* keys;            // one a layer, see tgi_key_bytes
  void* const* values;
  const float* const* cos;      // tables by position: [d][position][rotary_half]
  const float* const* sin;
  const int32_t* rotary_half;   // of each table
} tgi_step;

// Asks for huge pages in this memory: a wish, granted or not by the system.
TGI_API void tgi_huge_pages(void* memory, size_t bytes);

// Bytes that keys and values of one block (32 positions) of one layer take.
TGI_API size_t tgi_key_bytes(const tgi_attention_shape* shape);
TGI_API size_t tgi_value_bytes(const tgi_attention_shape* shape);

// A program keeps a copy of the operations; weights belong to the caller. widths: numbers in a row of each buffer.
TGI_API tgi_program* tgi_program_create(tgi_pool* pool, const tgi_op* ops, int count, const int32_t* widths,
                                        int buffers, const tgi_attention_shape* shape);
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

// keys, values: [rows][kv_heads][head_dim]
TGI_API void tgi_store_kv(const tgi_attention_shape* shape, void* key_cache, void* value_cache, const int64_t* slots,
                          int rows, const float* keys, const float* values);
// queries, out: [rows][heads][head_dim]; of `step` the positions and tables are used. slopes may be nullptr.
TGI_API void tgi_attention(tgi_pool* pool, const tgi_attention_shape* shape, const void* key_cache,
                           const void* value_cache, const tgi_step* step, const float* queries, float scale,
                           float soft_cap, int window, const float* slopes, float* out);

// ---- sampling

// Of each row of logits [rows][size] the `count` best, ids and values [rows][count]: largest first, ties by lower
// id, a NaN before all. masses [rows]: tgi_log_mass of each, or nullptr.
TGI_API void tgi_rank(tgi_pool* pool, const float* logits, int rows, int64_t size, int count, int64_t* ids,
                      float* values, double* masses);
// log(sum(exp(row / divisor - best / divisor))) [rows]; no number if a logit is none or the best is infinite.
TGI_API void tgi_log_mass(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
                          const float* best, double* out);
// From softmax(row / divisor) the first id at which the cumulative probability exceeds the row's uniform number in
// [0, 1), and the logarithm of its probability; no number if a logit is none or +inf or all are -inf.
TGI_API void tgi_pick(tgi_pool* pool, const float* logits, int rows, int64_t size, const float* divisors,
                      const double* uniforms, int64_t* ids, double* logprobs);

// ---- limits of the machine, to compare the kernels with; the caller takes the time

// Every member reads its share of memory [bytes] once. The result keeps the compiler honest.
TGI_API int64_t tgi_measure_read(tgi_pool* pool, const void* memory, size_t bytes);
// Every member does rounds * TGI_MEASURE_CHAINS vector operations of 16 lanes in registers. kind 0: float32
// multiply-add (32 operations each), 1: the int8 dot product of four (128 each).
enum { TGI_MEASURE_CHAINS = 12 };
TGI_API int64_t tgi_measure_arithmetic(tgi_pool* pool, int kind, int64_t rounds);

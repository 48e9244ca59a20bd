"""What a model takes: parameters, KV bytes, scratch memory of a step. Plain arithmetic on a `DecoderSpec`.

Called by the memory plan and by `tgi plan`, before and without torch or weights.
"""

from __future__ import annotations

from tgi.models.spec import DecoderSpec

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def parameter_count(spec: DecoderSpec) -> int:
    """Numbers in the weights, a tied head counted once."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    norm = hidden * (2 if spec.norm == "layer" else 1)
    qkv = spec.query_size + 2 * spec.kv_size
    up = inner * (2 if spec.gated else 1)
    layer = (
        (4 if spec.post_norms else 2) * norm + qkv * hidden + spec.query_size * hidden + up * hidden + inner * hidden
    )
    layer += qkv if spec.qkv_bias else 0
    layer += hidden if spec.attention_out_bias else 0
    layer += up + hidden if spec.feedforward_bias else 0
    total = spec.vocab_size * hidden * (1 if spec.tied_head else 2) + spec.num_layers * layer + norm
    total += norm if spec.embedding_norm else 0
    return total + (spec.max_positions * hidden if spec.learned_positions else 0)


NARROW_BYTES = 1.51
"""Of a bfloat16 weight in native panels: 12 bits, tables and exceptions."""


def weight_bytes(spec: DecoderSpec, dtype_bytes: int, quantize: str | None = None, *, narrow: bool = False) -> int:
    """Of all weights; quantize: None, int8 or int4 as `quant.packed` rounds and packs them.

    narrow: native kernels and bfloat16, whose matrices take 12 bits a weight, but for those of which too many weights
    lie far from all others: only loading can tell.
    """
    hidden, inner = spec.hidden_size, spec.intermediate_size
    qkv, up = spec.query_size + 2 * spec.kv_size, inner * (2 if spec.gated else 1)
    matrices = ((qkv, hidden), (hidden, spec.query_size), (up, hidden), (hidden, inner))
    in_layers = sum(rows * columns for rows, columns in matrices) * spec.num_layers
    table = spec.vocab_size * hidden
    total = parameter_count(spec)
    wide = NARROW_BYTES if narrow else dtype_bytes
    if quantize is None:
        tables = table if spec.tied_head else 2 * table
        return int((in_layers + tables) * wide) + (total - in_layers - tables) * dtype_bytes
    bits, head_bits = (4, 6) if quantize == "int4" else (8, 8)
    packed = sum(_packed_bytes(rows, columns, bits) for rows, columns in matrices) * spec.num_layers
    embedding = 0 if spec.tied_head else table
    rest = total - in_layers - table - embedding
    return packed + _packed_bytes(spec.vocab_size, hidden, head_bits) + int(embedding * wide) + rest * dtype_bytes


def _packed_bytes(rows: int, columns: int, bits: int) -> int:
    """A matrix in native panels: four bytes of scale for each 128 columns, rows and columns padded to 16."""
    rows, columns = (-(-size // 16) * 16 for size in (rows, columns))
    return rows * (columns * bits // 8 + 4 * -(-columns // 128))


def kv_bytes_per_token(spec: DecoderSpec, dtype_bytes: int) -> int:
    """Keys and values of one token in all layers."""
    return 2 * spec.num_layers * spec.kv_size * dtype_bytes


def int8_kv_bytes_per_token(spec: DecoderSpec) -> int:
    """The same in the native int8 cache: a scale for each key and value, heads padded to 16 numbers."""
    return 2 * spec.num_layers * spec.num_kv_heads * (-(-spec.head_dim // 16) * 16 + 4)


def activation_bytes(spec: DecoderSpec, tokens: int, dtype_bytes: int, *, logit_rows: int, context: int) -> int:
    """An upper estimate of the scratch memory of one step of the reference operations.

    tokens: rows of the step. logit_rows: rows whose logits are computed. context: the longest context.
    The widest moment of a layer is attention (qkv, queries and keys turned in float32, output) or
    feed-forward (gate and up, activation, product), beside the residual and its norm. Freed memory stays
    with the allocator, in pieces of other sizes: as much again, measured with glibc. To it come gathered
    keys and values and the mask of one piece of rows (bounds of `kernels.reference_attention`), and the
    logits, which exist in the serving dtype and in float32, and twice more while a sampler works. With soft
    caps and ALiBi the scores are written out: of one key head in a prefill, of all heads in decode, four
    times over (scores, capped or biased, masked, softmax), and keys and values once more in float32.
    """
    turned = spec.query_size + spec.kv_size
    attention = (2 * spec.query_size + 2 * spec.kv_size) * dtype_bytes + 4 * turned * 4
    feedforward = spec.intermediate_size * (4 if spec.gated else 2) * dtype_bytes
    rows = 2 * tokens * (2 * spec.hidden_size * dtype_bytes + max(attention, feedforward))
    keys = max(context, min(65_536, logit_rows * context))
    gathered = 2 * keys * spec.kv_size * dtype_bytes
    piece = 1 << 21
    mask = piece * 5
    if spec.alibi or spec.attention_soft_cap is not None:
        gathered += 2 * keys * spec.kv_size * 4
        mask += 4 * 4 * max(piece * spec.num_heads // spec.num_kv_heads, keys * spec.num_heads)
    logits = logit_rows * spec.vocab_size * (dtype_bytes + 3 * 4)
    return rows + gathered + mask + logits

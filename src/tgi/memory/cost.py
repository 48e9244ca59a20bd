"""What a program takes: weights, cache, scratch memory of a step. Plain arithmetic, before and without weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tgi.kernels.footprint import Footprint
from tgi.kernels.formats import DTYPE_BYTES
from tgi.kernels.outline import Outline
from tgi.kernels.program import Experts, Program
from tgi.kernels.weight import Weight
from tgi.quant.checkpoint import Stored
from tgi.quant.planned import stored_bits
from tgi.quant.scheme import planned_format

LONGEST_GATHERED = 8192
"""Context whose keys and values a step is expected to gather."""


@dataclass(frozen=True)
class ModelCost:
    """What a model costs, from its program or from the loaded weights. All in bytes."""

    weight_bytes: int
    kv_bytes_per_token: int
    activation_bytes_per_token: int
    """Peak of intermediate results for each token of a step."""
    activation_bytes_fixed: int
    """Peak that does not grow with the step, such as logits of the sampled rows."""
    max_positions: int
    """Context of the model in tokens."""
    positions_go_on: bool = False
    """A longer one may be asked for; see `Program.positions_go_on`."""
    state_bytes: int = 0
    """Of a sequence beside its keys and values."""
    encoder_positions: int = 0
    """Longest input of the encoder; 0: there is none."""

    @property
    def context(self) -> int:
        """Most tokens of a request, the encoder's input among them."""
        return self.max_positions + self.encoder_positions


def model_cost(
    program: Program,
    dtype: str,
    footprint: Footprint,
    *,
    logit_rows: int,
    cache_dtype: str | None = None,
    quantize: str | None = None,
    stored: Stored | None = None,
) -> ModelCost:
    """The cost of a model in a serving dtype, with its cache in another one, with weights rounded on the fly.

    stored: how the checkpoint is quantised.

    logit_rows: rows of a step whose logits are computed.
    """
    context = min(program.max_positions, LONGEST_GATHERED)

    def activations(tokens: int) -> int:
        return activation_bytes(program, tokens, dtype, footprint, logit_rows=logit_rows, context=context)

    return ModelCost(
        weight_bytes=weight_bytes(program, dtype, footprint, quantize, stored),
        kv_bytes_per_token=max(1, kv_bytes_per_token(program, cache_dtype or dtype, footprint)),  # blocks are counted
        activation_bytes_per_token=(activations(1024) - activations(0)) // 1024,
        activation_bytes_fixed=activations(0),
        max_positions=program.max_positions,
        positions_go_on=program.positions_go_on,
        encoder_positions=program.encoder.max_positions if program.encoder else 0,
        state_bytes=4 * sum(program.states),
    )


def outline_cost(outline: Outline, dtype: str, footprint: Footprint, *, logit_rows: int) -> ModelCost:
    """The cost of a model that transformers computes, by its sizes: its operations are not known, so with some reserve.

    footprint: of the reference backend, whose cache it uses. A cache of its own takes as much, and again as much for
    padding and while caches are joined.
    """
    width = DTYPE_BYTES[dtype]
    layers = outline.cache or 2 * outline.own_cache
    context = min(outline.max_positions, LONGEST_GATHERED)
    numbers = max((layer.kv_heads * layer.head_dim for layer in layers), default=outline.hidden_size)
    logits = logit_rows * outline.vocab_size * (width + 3 * 4)
    return ModelCost(
        weight_bytes=outline.parameters * width,
        kv_bytes_per_token=max(1, sum(footprint.cache_bytes(layer, dtype) for layer in layers)),
        activation_bytes_per_token=2 * width * (8 * outline.hidden_size + 4 * outline.widest),
        activation_bytes_fixed=4 * context * numbers * 4 + (1 << 21) * 5 + logits,
        max_positions=outline.max_positions,
        positions_go_on=outline.positions_go_on,
        encoder_positions=outline.encoder.max_positions if outline.encoder else 0,
    )


def weight_bytes(
    program: Program, dtype: str, footprint: Footprint, quantize: str | None = None, stored: Stored | None = None
) -> int:
    """Of all weights as the backend keeps them; biases and vectors in the serving dtype."""
    width = DTYPE_BYTES[dtype]
    matrices = 0.0
    for weight in program.weights():
        bits = stored_bits(stored, weight, dtype)
        if bits is None:
            matrices += footprint.matrix_bytes(weight, dtype, planned_format(weight, quantize, dtype))
        else:
            matrices += footprint.coded_bytes(weight, dtype, bits)
    numbers = sum(weight.distinct_rows * weight.columns for weight in program.weights())
    return int(matrices) + (program.parameters - numbers) * width


def read_bytes(program: Program, dtype: str, footprint: Footprint, quantize: str | None = None) -> int:
    """Of weights that a step of one row reads: of experts those that it chooses, of tables its row; no encoder's."""
    width, program = DTYPE_BYTES[dtype], replace(program, encoder=None)

    def matrices(weights: Iterable[Weight]) -> float:
        return sum(footprint.matrix_bytes(one, dtype, planned_format(one, quantize, dtype)) for one in weights)

    mixtures = [op for op in program.ops if isinstance(op, Experts)]
    experts = {weight for op in mixtures for weight in (*op.up, *op.down)}
    others = [weight for weight in program.weights() if weight not in experts]
    chosen = [
        weight
        for op in mixtures
        for kind in (op.up, op.down)
        for weight in (*kind[: op.top], *kind[len(kind) - op.shared :])
    ]
    tables = [weight for weight in others if weight.role == "table"]
    read = matrices(chosen) + matrices(weight for weight in others if weight.role != "table")
    read += sum(matrices([table]) / table.rows for table in tables)
    numbers = sum(weight.distinct_rows * weight.columns for weight in program.weights())
    return int(read) + (program.parameters - numbers) * width


def kv_bytes_per_token(program: Program, cache_dtype: str, footprint: Footprint) -> int:
    """Keys and values of one token in all layers."""
    return sum(footprint.cache_bytes(layer, cache_dtype) for layer in program.cache)


def activation_bytes(
    program: Program, tokens: int, dtype: str, footprint: Footprint, *, logit_rows: int, context: int
) -> int:
    """Scratch memory of one step, with logits: these exist in the serving dtype and in float32, and twice more while a
    sampler works.

    tokens: rows of the step. logit_rows: rows whose logits are computed. context: the longest context.
    """
    logits = logit_rows * program.vocab_size * (DTYPE_BYTES[dtype] + 3 * 4)
    return footprint.step_bytes(program, tokens, dtype, keys=max(context, min(65_536, logit_rows * context))) + logits

"""What measured rates mean for models: the most tokens a second that this machine allows.

Decoding one sequence reads every weight once for a token, so memory bounds it; computing a prompt multiplies
every weight once for each token, so arithmetic bounds it; sixteen sequences at once meet whichever comes first.
Pure arithmetic on shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tgi.commands.doctor.native_facts import Read
from tgi.kernels.native import footprint
from tgi.kernels.weight import Weight
from tgi.memory.cost import weight_bytes
from tgi.models.build.decoder import build
from tgi.models.families.registry import spec_from_config
from tgi.quant.scheme import format_of

MANY = 16
_TIED = {"tie_word_embeddings": True, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        **_TIED,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        **_TIED,
    },
    "Llama-3.2-1B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        **_TIED,
    },
}
"""Their heads are tied to the embedding: all weights are read for every token."""
WEIGHTS = {"bfloat16": None, "int8": "int8", "int4": "int4"}
"""What weights are kept as -> value of --quantize."""


class Estimate(msgspec.Struct):
    """Upper bounds in tokens a second, short contexts; None where the rate was not measured."""

    model: str
    weights: str
    weight_bytes: int
    decode_at_1: float | None
    decode_at_16: float | None
    """Of all sixteen together."""
    prefill: float | None


def estimates(reads: Sequence[Read], layer_gops: Mapping[str, float]) -> list[Estimate]:
    """For each shape and kind of weights; layer_gops: 10^9 operations a second by format of a layer."""
    results = []
    for name, config in SHAPES.items():
        program = build(spec_from_config(dict(config)))
        for weights, quantize in WEIGHTS.items():
            size = weight_bytes(program, "bfloat16", footprint, quantize)
            head = program.logits.weight
            layers = [weight for weight in program.weights() if weight.role == "layer"]
            every, prompt = (_seconds(some, quantize, layer_gops) for some in ([*layers, head], layers))
            one = bandwidth(reads, size)
            read = one * 1e9 / size if one else None
            computed, prefill = (1 / seconds if seconds else None for seconds in (every, prompt))
            bounds = [bound for bound in (read and MANY * read, computed) if bound]
            many = min(bounds) if read else None
            results.append(Estimate(name, weights, size, _figures(read), _figures(many), _figures(prefill)))
    return results


def bandwidth(reads: Sequence[Read], size: int) -> float | None:
    """GB/s for `size` bytes read over and over, between the measured sizes by their logarithm."""
    if not reads:
        return None
    known = sorted((read.bytes, read.gigabytes_per_s) for read in reads)
    below = [pair for pair in known if pair[0] <= size] or known[:1]
    above = [pair for pair in known if pair[0] >= size] or known[-1:]
    (low, low_rate), (high, high_rate) = below[-1], above[0]
    if low == high or size <= low:
        return low_rate
    share = math.log(size / low) / math.log(high / low) if size < high else 1.0
    return low_rate + share * (high_rate - low_rate)


def _seconds(weights: Sequence[Weight], quantize: str | None, layer_gops: Mapping[str, float]) -> float | None:
    """Of multiplying a row with these matrices, each at the rate of its format; None where one was not measured."""
    formats = [format_of(weight, quantize) for weight in weights]
    rates = [layer_gops.get("bfloat16" if format is None else format.name) for format in formats]
    if not all(rates):
        return None
    return sum(
        2 * weight.rows * weight.columns / (rate * 1e9) for weight, rate in zip(weights, rates, strict=True) if rate
    )


def _figures(value: float | None) -> float | None:
    """Three significant figures."""
    return None if value is None else float(f"{value:.3g}")

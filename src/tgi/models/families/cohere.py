"""Command R (Cohere) and Command R7B (Cohere 2). Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, Defaults, NormKeys, layer_windows, llama_like
from tgi.models.spec import ModelSpec

COHERE_NAMES = replace(LLAMA_NAMES, feedforward_norm=LLAMA_NAMES.attention_norm)


def cohere(
    reader: ConfigReader,
    windows: tuple[int | None, ...] | None = None,
    theta: float = 500_000.0,
) -> ModelSpec:
    """Attention and feed-forward read one norm, which has no bias."""
    spec = llama_like(
        reader,
        Defaults(positions=8192, theta=theta, tied=True, eps=1e-5),
        norm=NormKeys(kind="layer", eps_key="layer_norm_eps"),
        attention_bias=reader.flag("attention_bias", False),
        rope_adjacent=True,
        windows=windows,
        qk_norm="each head" if reader.flag("use_qk_norm", False) else None,
        names=COHERE_NAMES,
    )
    return replace(spec.with_layers(parallel=True), logit_scale=reader.number("logit_scale", 0.0625))


def cohere2(reader: ConfigReader) -> ModelSpec:
    """Three of four layers have a window; the fourth sees all, and no positions."""
    reader.fixed(
        use_gated_activation=True,
        use_parallel_block=True,
        rotary_pct=1.0,
        position_embedding_type="rope_gptj",
        order_of_interleaved_layers="local_attn_first",
    )
    # The same in the words of its training code.
    reader.ignore("layer_switch", "use_embedding_sharing", "use_parallel_embedding")
    pattern = reader.size("sliding_window_pattern", reader.size("_sliding_window_pattern", 4))
    windows = layer_windows(reader, reader.size("sliding_window", 4096), full_every=pattern)
    return cohere(reader, windows, 10_000.0).without_rope(lambda _, attention: attention.window is None)


FAMILIES = {"cohere": cohere, "cohere2": cohere2}

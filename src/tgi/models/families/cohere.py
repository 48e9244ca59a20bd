"""Command R (Cohere) and Command R7B (Cohere 2). Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import AttentionSpec, ModelSpec, QkNormSpec

COHERE_NAMES = replace(LLAMA_NAMES, feedforward_norm=LLAMA_NAMES.attention_norm)


def cohere(
    reader: ConfigReader,
    override: RopeOverride | None,
    windows: tuple[int | None, ...] | None = None,
    theta: float = 500_000.0,
) -> ModelSpec:
    """Attention and feed-forward read one norm, which has no bias."""
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=8192,
        default_theta=theta,
        default_tied=True,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        norm="layer",
        eps_key="layer_norm_eps",
        default_eps=1e-5,
        rope_adjacent=True,
        windows=windows,
        names=COHERE_NAMES,
    )
    normed = reader.flag("use_qk_norm", False)
    qk_norm = QkNormSpec(norm=spec.norm, over="each head") if normed else None
    spec = spec.with_layers(attention={"qk_norm": qk_norm}, parallel=True)
    return replace(spec, logit_scale=reader.number("logit_scale", 0.0625))


def cohere2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Three of four layers have a window; the fourth sees all, and no positions."""
    reader.only("use_gated_activation", True)
    reader.only("use_parallel_block", True)
    reader.only("rotary_pct", 1.0)
    reader.only("position_embedding_type", "rope_gptj")
    reader.only("order_of_interleaved_layers", "local_attn_first")
    for key in ("layer_switch", "use_embedding_sharing", "use_parallel_embedding"):
        reader.get(key)  # the same in the words of its training code
    pattern = reader.size("sliding_window_pattern", reader.size("_sliding_window_pattern", 4))
    windows = layer_windows(reader, reader.size("sliding_window", 4096), full_every=pattern)

    def without_rope(layer: int, attention: AttentionSpec) -> AttentionSpec:
        return attention if attention.window else replace(attention, rope=None)

    return cohere(reader, override, windows, 10_000.0).with_attention(without_rope)


FAMILIES = {"cohere": cohere, "cohere2": cohere2}

"""OLMo 1, 2 and 3, and EXAONE 4, whose norms too come after what they normalise. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, Defaults, NormKeys, layer_windows, llama_like, with_local_rope
from tgi.models.rope_config import rope_parameters_by_type
from tgi.models.spec import ModelSpec

OLMO2_NAMES = replace(
    LLAMA_NAMES,
    attention_norm=None,
    attention_post_norm="model.layers.{}.post_attention_layernorm",
    feedforward_norm=None,
    feedforward_post_norm="model.layers.{}.post_feedforward_layernorm",
)


def olmo(reader: ConfigReader) -> ModelSpec:
    """Norms have no weights."""
    spec = llama_like(
        reader,
        Defaults(positions=2048, eps=1e-5),
        norm=NormKeys(kind="layer", eps_key="layer_norm_eps"),
        attention_bias=reader.flag("attention_bias", False),
    )
    spec = spec.with_layers(attention={"clip": reader.optional_number("clip_qkv", None)})
    return replace(spec, norm=replace(spec.norm, scale=False))


def olmo2(
    reader: ConfigReader,
    windows: tuple[int | None, ...] | None = None,
    rope_parameters: dict[str, Any] | None = None,
) -> ModelSpec:
    """Norms come after attention and feed-forward, and queries and keys have one over all heads."""
    reader.get("layer_norm_eps")
    return llama_like(
        reader,
        Defaults(positions=2048, eps=1e-5),
        attention_bias=reader.flag("attention_bias", False),
        windows=windows,
        rope_parameters=rope_parameters,
        qk_norm="all heads",
        names=OLMO2_NAMES,
    )


def olmo3(reader: ConfigReader) -> ModelSpec:
    """Three of four layers have a window, and a rotary embedding without scaling."""
    theta = reader.number("rope_theta", 500_000.0)
    ropes = rope_parameters_by_type(reader, theta, theta)
    windows = layer_windows(reader, reader.size("sliding_window", 4096), full_every=4)
    spec = olmo2(reader, windows, ropes["full_attention"])
    return with_local_rope(spec, reader, ropes["sliding_attention"])


def exaone4(reader: ConfigReader) -> ModelSpec:
    """Norms come after attention and feed-forward; layers without a window, among others with one, see no positions."""
    window = reader.optional_size("sliding_window", 4096)
    spec = llama_like(
        reader,
        Defaults(positions=2048, kv_heads=32, eps=1e-5),
        windows=layer_windows(reader, window, full_every=_pattern(reader)),
        qk_norm="head",
        names=OLMO2_NAMES,
    )
    return spec.without_rope(lambda _, attention: window is not None and attention.window is None)


def _pattern(reader: ConfigReader) -> int:
    """Every so-many layers one has no window: 4, or LLLG."""
    pattern = reader.get("sliding_window_pattern", 4)
    if isinstance(pattern, str) and pattern == "L" * (len(pattern) - 1) + "G":
        return len(pattern)
    if isinstance(pattern, int) and pattern >= 0:
        return pattern or 1
    raise ModelError(f"config.json: `sliding_window_pattern` must be a number or like LLLG, it is {pattern!r}")


FAMILIES = {"exaone4": exaone4, "olmo": olmo, "olmo2": olmo2, "olmo3": olmo3}

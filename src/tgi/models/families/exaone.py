"""EXAONE 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.olmo import OLMO2_NAMES
from tgi.models.families.shared import layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import AttentionSpec, ModelSpec, QkNormSpec


def exaone4(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Norms come after attention and feed-forward; layers without a window, among others with one, see no positions."""
    given = reader.get("sliding_window") if reader.has("sliding_window") else 4096
    window = None if given is None else reader.size("sliding_window", 4096)
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        default_kv_heads=32,
        default_eps=1e-5,
        windows=layer_windows(reader, window, full_every=_pattern(reader)),
        names=OLMO2_NAMES,
    )
    spec = spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm)})

    def without_rope(_: int, attention: AttentionSpec) -> AttentionSpec:
        return attention if window is None or attention.window else replace(attention, rope=None)

    return spec.with_attention(without_rope)


def _pattern(reader: ConfigReader) -> int:
    """Every so-many layers one has no window: 4, or LLLG."""
    pattern = reader.get("sliding_window_pattern", 4)
    if isinstance(pattern, str) and pattern == "L" * (len(pattern) - 1) + "G":
        return len(pattern)
    if isinstance(pattern, int) and pattern >= 0:
        return pattern or 1
    raise ModelError(f"config.json: `sliding_window_pattern` must be a number or like LLLG, it is {pattern!r}")


FAMILIES = {"exaone4": exaone4}

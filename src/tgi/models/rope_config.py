"""From the rotary keys of config.json to a `RopeSpec`.

Understands `rope_parameters` (transformers 5), `rope_scaling` beside `rope_theta` (transformers 4) with
`type` or `rope_type`, and the launcher's override. Every parameter is consumed or refused. No torch.
"""

from __future__ import annotations

import math
from typing import Any

from tgi.errors import ModelError
from tgi.kernels.rope_spec import RopeSpec
from tgi.models.config_reader import ConfigReader, positive_number

_PARAMETERS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        }
    ),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}
    ),
    "proportional": frozenset({"factor"}),
}
_ALWAYS = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})
_HARMLESS = {"finetuned": (True, False), "extrapolation_factor": (1,), "attn_factor": (1,)}
"""Keys of the first yarn checkpoints, with the values at which they change nothing."""


def rope_spec(
    reader: ConfigReader,
    head_dim: int,
    max_positions: int,
    *,
    theta: float = 10_000.0,
    partial: float | None = None,
    parameters: dict[str, Any] | None = None,
    scaled_by_flags: bool = True,
) -> tuple[RopeSpec, int]:
    """The rotary embedding, and the longest sequence it serves. Raises ModelError.

    theta: where the config has none under the usual names. partial: the part of a head that turns, in a
    family where `partial_rotary_factor` may say otherwise; None: the whole head, and nothing may.
    parameters: in place of what `rope_parameters` gives. scaled_by_flags: the launcher's flags apply to it.
    """
    parameters = rope_parameters(reader) if parameters is None else dict(parameters)
    outer = reader.get("rope_theta", theta)
    theta = positive_number(parameters.get("rope_theta") or outer, "rope_theta")
    if theta <= 1:
        raise ModelError(f"config.json: `rope_theta` must be larger than 1, it is {theta}")
    original = reader.get("original_max_position_embeddings")
    if original is not None:
        parameters["original_max_position_embeddings"] = original
    dim = _rotary_dim(head_dim, parameters, partial)
    overridden = reader.override.parameters() if scaled_by_flags else None
    if overridden:
        parameters = overridden
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    _check(kind, parameters)
    spec = _build(kind, parameters, theta, dim, max_positions)
    stretched = kind == "dynamic" or (overridden is not None and kind == "linear")
    if stretched:
        return spec, int(max_positions * spec.factor)
    if kind in ("yarn", "longrope"):
        return spec, max(max_positions, int(spec.original_max_positions * spec.factor))
    return spec, max_positions


def rope_parameters(reader: ConfigReader) -> dict[str, Any]:
    """The objects `rope_parameters` and `rope_scaling` of the config as one; the latter, which users add, wins."""
    parameters: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        given = reader.get(key, {})
        if not isinstance(given, dict):
            raise ModelError(f"config.json: `{key}` must be an object, it is {given!r}")
        parameters.update(given)
        if given.get("type") is not None and given.get("rope_type") is None:
            parameters["rope_type"] = given["type"]
    return parameters


def rope_parameters_by_type(reader: ConfigReader, local_theta: float, theta: float) -> dict[str, dict[str, Any]]:
    """Parameters of sliding_attention and full_attention layers, where they may differ.

    transformers 5 nests them by the type of layer; 4 meant with `rope_scaling` the full ones, and had other keys for
    the bases. The bases are used where the config has none.
    """
    parameters = rope_parameters(reader)
    types = {kind: parameters.pop(kind, None) for kind in ("sliding_attention", "full_attention")}
    for kind, own in types.items():
        if own is not None and not isinstance(own, dict):
            raise ModelError(f"config.json: `{kind}` of `rope_parameters` must be an object, it is {own!r}")
    sliding, full = types["sliding_attention"] or {}, {**(types["full_attention"] or {}), **parameters}
    return {
        "sliding_attention": {"rope_theta": local_theta, **sliding},
        "full_attention": {"rope_theta": reader.get("rope_theta", theta), **full},
    }


def _rotary_dim(head_dim: int, parameters: dict[str, Any], partial: float | None) -> int:
    """How many dimensions of a head turn."""
    given = parameters.get("partial_rotary_factor")
    if (parameters.get("rope_type") or parameters.get("type")) == "proportional":  # the others stand still
        positive_number(1.0 if given is None else given, "partial_rotary_factor")
        if head_dim % 2 or (given is not None and given > 1):
            raise ModelError(
                f"config.json: rope type proportional cannot turn the part {given} of a head of {head_dim}"
            )
        return head_dim
    if partial is None:
        if given not in (None, 1, 1.0):
            raise ModelError("config.json: `partial_rotary_factor` other than 1 is not supported for this model type")
        partial = 1.0
    elif given is not None:
        partial = positive_number(given, "partial_rotary_factor")
    dim = int(head_dim * min(partial, 2.0))
    if partial > 1 or dim < 2:
        raise ModelError(f"config.json: rotary embedding cannot turn the part {partial} of a head of {head_dim}")
    if dim % 2:
        raise ModelError(f"config.json: rotary embedding needs an even head size, it is {dim}")
    return dim


def _check(kind: Any, parameters: dict[str, Any]) -> None:
    if not isinstance(kind, str) or kind not in _PARAMETERS:
        raise ModelError(f"config.json: rope type {kind!r} is not supported; supported are {', '.join(_PARAMETERS)}")
    known = _ALWAYS | _PARAMETERS[kind] | {"original_max_position_embeddings"}
    unknown = sorted(
        key
        for key, value in parameters.items()
        if key not in known and value is not None and value not in _HARMLESS.get(key, ())
    )
    if unknown:
        raise ModelError(f"config.json: rope type {kind} has unsupported parameters: {', '.join(unknown)}")


def _build(kind: Any, parameters: dict[str, Any], theta: float, dim: int, max_positions: int) -> RopeSpec:
    def number(key: str, default: float | None = None) -> float:
        value = parameters.get(key)
        if value is None and default is None:
            raise ModelError(f"config.json: rope type {kind} lacks `{key}`")
        return positive_number(default if value is None else value, key)

    if kind == "default":
        return RopeSpec("default", theta, dim)
    if kind == "linear":
        return RopeSpec("linear", theta, dim, factor=number("factor"))
    if kind == "dynamic":
        if dim < 4:
            raise ModelError("config.json: rope type dynamic needs at least 4 turning dimensions of a head")
        return RopeSpec("dynamic", theta, dim, factor=number("factor"), original_max_positions=max_positions)
    original = int(number("original_max_position_embeddings", max_positions))
    if kind == "longrope":
        return _longrope(parameters, theta, dim, max_positions, original)
    if kind == "proportional":
        turning = int(number("partial_rotary_factor", 1.0) * dim // 2)
        return RopeSpec("proportional", theta, dim, factor=number("factor", 1.0), turning=turning)
    if kind == "llama3":
        spec = RopeSpec(
            "llama3",
            theta,
            dim,
            factor=number("factor"),
            original_max_positions=original,
            low_freq_factor=number("low_freq_factor"),
            high_freq_factor=number("high_freq_factor"),
        )
        if spec.high_freq_factor < spec.low_freq_factor:
            raise ModelError("config.json: `high_freq_factor` must not be less than `low_freq_factor`")
        return spec
    factor = number("factor", max_positions / original)
    truncate = parameters.get("truncate", True)
    return RopeSpec(
        "yarn",
        theta,
        dim,
        factor=factor,
        original_max_positions=original,
        beta_fast=number("beta_fast", 32.0),
        beta_slow=number("beta_slow", 1.0),
        attention_factor=_yarn_attention_factor(parameters, factor),
        truncate=True if truncate is None else bool(truncate),
    )


def _longrope(parameters: dict[str, Any], theta: float, dim: int, max_positions: int, original: int) -> RopeSpec:
    """Ding et al. 2024, with the factor of cos and sin that transformers infers."""
    factors = {}
    for key in ("short_factor", "long_factor"):
        given = parameters.get(key)
        if not isinstance(given, list) or len(given) != dim // 2:
            raise ModelError(f"config.json: rope type longrope needs `{key}`, a list of {dim // 2} numbers")
        factors[key] = tuple(positive_number(value, key) for value in given)
    factor = parameters.get("factor")
    factor = max_positions / original if factor is None else positive_number(factor, "factor")
    attention_factor = parameters.get("attention_factor")
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return RopeSpec(
        "longrope",
        theta,
        dim,
        factor=factor,
        original_max_positions=original,
        attention_factor=positive_number(attention_factor, "attention_factor"),
        short_factors=factors["short_factor"],
        long_factors=factors["long_factor"],
    )


def _yarn_attention_factor(parameters: dict[str, Any], factor: float) -> float:
    """Peng et al. 2023: 0.1 ln(factor) + 1, or the ratio of two such terms (DeepSeek's mscale)."""

    def magnitude(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    given = parameters.get("attention_factor")
    if given is not None:
        return positive_number(given, "attention_factor")
    mscale, all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if mscale and all_dim:
        return magnitude(positive_number(mscale, "mscale")) / magnitude(positive_number(all_dim, "mscale_all_dim"))
    return magnitude(1.0)

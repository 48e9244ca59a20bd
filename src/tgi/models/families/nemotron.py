"""Nemotron, Arcee and Apertus: feed-forwards without a gate between the parts of Llama. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec, QkNormSpec

UNGATED_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.up_proj",))
APERTUS_NAMES = replace(
    UNGATED_NAMES,
    attention_norm="model.layers.{}.attention_layernorm",
    feedforward_norm="model.layers.{}.feedforward_layernorm",
    activation=tuple(f"model.layers.{{}}.mlp.act_fn.{name}" for name in ("alpha_p", "alpha_n", "beta", "eps")),
)


def nemotron(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Layer norms around 1, squared ReLU, half of each head turns."""
    bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=4096,
        default_head_dim=128 if not reader.has("head_dim") else None,
        default_partial=_partial(reader),
        default_activation="relu2",
        gated=False,
        norm="layer",
        eps_key="norm_eps",
        default_eps=1e-5,
        norm_bias=True,
        qkv_bias=bias,
        attention_out_bias=bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        names=UNGATED_NAMES,
    )
    return replace(spec, norm=replace(spec.norm, offset=1.0))


def _partial(reader: ConfigReader) -> float:
    """The part of a head that turns, under the two names that configs have had for it."""
    return reader.number("rope_percent", 0.5)


def arcee(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Squared ReLU in place of the gate."""
    bias = reader.flag("attention_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=4096,
        default_activation="relu2",
        gated=False,
        default_eps=1e-5,
        qkv_bias=bias,
        attention_out_bias=bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        names=UNGATED_NAMES,
    )


def apertus(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """xIELU, whose numbers are learned, in place of the gate; queries and keys are normalised."""
    reader.only("hidden_act", "xielu")
    reader.only("qk_norm", True)
    reader.only("post_norm", False)
    bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=65_536,
        default_theta=12_000_000.0,
        activation_key="mlp_activation",
        gated=False,
        default_eps=1e-5,
        qkv_bias=bias,
        attention_out_bias=bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        names=APERTUS_NAMES,
    )
    attention = {"qk_norm": QkNormSpec(norm=spec.norm)}
    return spec.with_layers(attention=attention, feedforward={"activation": "xielu"})


FAMILIES = {"apertus": apertus, "arcee": arcee, "nemotron": nemotron}

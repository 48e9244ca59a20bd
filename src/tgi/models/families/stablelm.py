"""StableLM, StarCoder 2, Nemotron, Arcee and Apertus: other norms, or no gate, between the parts of Llama. No torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, Defaults, NormKeys, layer_windows, llama_like
from tgi.models.spec import ModelSpec, NormSpec, QkNormSpec

STABLELM_NAMES = replace(
    LLAMA_NAMES,
    query_norm="model.layers.{}.self_attn.q_layernorm.norms.{head}",
    key_norm="model.layers.{}.self_attn.k_layernorm.norms.{head}",
)
STARCODER2_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.c_fc",), down="model.layers.{}.mlp.c_proj")
UNGATED_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.up_proj",))
APERTUS_NAMES = replace(
    UNGATED_NAMES,
    attention_norm="model.layers.{}.attention_layernorm",
    feedforward_norm="model.layers.{}.feedforward_layernorm",
    activation=tuple(f"model.layers.{{}}.mlp.act_fn.{name}" for name in ("alpha_p", "alpha_n", "beta", "eps")),
)


def stablelm(reader: ConfigReader) -> ModelSpec:
    """Layer norms; a quarter of each head turns; attention may be beside the feed-forward."""
    spec = llama_like(
        reader,
        Defaults(positions=4096, partial=0.25, eps=1e-5),
        norm=NormKeys(kind="layer", eps_key="layer_norm_eps", bias=True),
        qkv_bias=reader.flag("use_qkv_bias", False),
        names=STABLELM_NAMES,
    )
    if reader.flag("qk_layernorm", False):
        norm = NormSpec(kind="layer", eps=spec.norm.eps)
        spec = spec.with_layers(attention={"qk_norm": QkNormSpec(norm=norm, over="each head")})
    if reader.flag("use_parallel_residual", False):
        spec = spec.with_layers(parallel=True)
        spec = replace(spec, names=replace(spec.names, feedforward_norm=spec.names.attention_norm))
    return spec


def starcoder2(reader: ConfigReader) -> ModelSpec:
    """Layer norms, biases everywhere, no gate."""
    reader.fixed(mlp_type="default", norm_type="layer_norm")
    bias = reader.flag("use_bias", True)
    return llama_like(
        reader,
        Defaults(positions=4096, kv_heads=2, tied=True, activation="gelu_pytorch_tanh", eps=1e-5),
        norm=NormKeys(kind="layer", eps_key="norm_epsilon", bias=True),
        attention_bias=bias,
        feedforward_bias=bias,
        gated=False,
        windows=layer_windows(reader, reader.optional_size("sliding_window")),
        names=STARCODER2_NAMES,
    )


def nemotron(reader: ConfigReader) -> ModelSpec:
    """Layer norms around 1, squared ReLU, half of each head turns."""
    spec = llama_like(
        reader,
        Defaults(
            positions=4096,
            head_dim=128 if not reader.has("head_dim") else None,
            partial=reader.number("rope_percent", 0.5),
            activation="relu2",
            eps=1e-5,
        ),
        norm=NormKeys(kind="layer", eps_key="norm_eps", bias=True),
        gated=False,
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
        names=UNGATED_NAMES,
    )
    return replace(spec, norm=replace(spec.norm, offset=1.0))


def arcee(reader: ConfigReader) -> ModelSpec:
    """Squared ReLU in place of the gate."""
    return llama_like(
        reader,
        Defaults(positions=4096, activation="relu2", eps=1e-5),
        gated=False,
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
        names=UNGATED_NAMES,
    )


def apertus(reader: ConfigReader) -> ModelSpec:
    """xIELU, whose numbers are learned, in place of the gate; queries and keys are normalised."""
    reader.fixed(hidden_act="xielu", qk_norm=True, post_norm=False)
    spec = llama_like(
        reader,
        Defaults(positions=65_536, theta=12_000_000.0, eps=1e-5),
        activation_key="mlp_activation",
        gated=False,
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
        qk_norm="head",
        names=APERTUS_NAMES,
    )
    return spec.with_layers(feedforward={"activation": "xielu"})


FAMILIES = {"apertus": apertus, "arcee": arcee, "nemotron": nemotron, "stablelm": stablelm, "starcoder2": starcoder2}

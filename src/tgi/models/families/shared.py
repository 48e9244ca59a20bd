"""The config keys that families share: of models built like Llama, of those built like GPT-2, and of all.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from tgi.errors import ModelError
from tgi.kernels.program import Activation
from tgi.models.config_reader import ConfigReader
from tgi.models.dtypes import DTYPES
from tgi.models.names import Names
from tgi.models.rope_config import rope_spec
from tgi.models.spec import (
    AttentionSpec,
    ExpertsSpec,
    FeedForwardSpec,
    LayerSpec,
    Mixer,
    ModelSpec,
    NormSpec,
    QkNormSpec,
)
from tgi.untrusted import printable

ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "silu")
OTHER_NAMES: dict[str, Activation] = {
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "swish": "silu",
}
"""Names that transformers has for the same functions."""
MAX_LAYERS = 10_000
Key: TypeAlias = tuple[str, int | None]
"""A key of the config, and what a config without it means; None: it must be there."""
LLAMA_NAMES = Names(
    prefix="model.",
    embedding="model.embed_tokens",
    attention_norm="model.layers.{}.input_layernorm",
    qkv=tuple(f"model.layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    attention_out="model.layers.{}.self_attn.o_proj",
    feedforward_norm="model.layers.{}.post_attention_layernorm",
    up=("model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"),
    down="model.layers.{}.mlp.down_proj",
    final_norm="model.norm",
    head="lm_head",
    query_norm="model.layers.{}.self_attn.q_norm",
    key_norm="model.layers.{}.self_attn.k_norm",
    ignored=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What transformers takes for keys that a config does not have."""

    positions: int
    head_dim: int | None = None
    """None: the width of a head's share of the hidden size."""
    kv_heads: int | None = None
    """None: as many as heads, which null means everywhere."""
    theta: float = 10_000.0
    partial: float | None = None
    """The part of a head that turns, where `partial_rotary_factor` may say otherwise."""
    eps: float = 1e-6
    tied: bool = False
    activation: Activation = "silu"


@dataclass(frozen=True, slots=True, kw_only=True)
class NormKeys:
    """Which norms there are, and the key of their epsilon."""

    kind: Literal["rms", "layer"] = "rms"
    eps_key: str = "rms_norm_eps"
    bias: bool = False


def llama_like(
    reader: ConfigReader,
    defaults: Defaults,
    *,
    windows: tuple[int | None, ...] | None = None,
    attention_bias: bool = False,
    qkv_bias: bool = False,
    attention_out_bias: bool = False,
    feedforward_bias: bool = False,
    activation_key: str = "hidden_act",
    gated: bool = True,
    norm: NormKeys | None = None,
    rope_parameters: dict[str, Any] | None = None,
    rope_adjacent: bool = False,
    qk_norm: Literal["head", "each head", "all heads"] | None = None,
    names: Names = LLAMA_NAMES,
) -> ModelSpec:
    """The keys that Llama and its many followers share.

    windows: of each layer, None for none in any. attention_bias: of all products of attention. rope_parameters: in
    place of the config's.
    """
    attention, norm = _attention(reader, defaults.head_dim, defaults.kv_heads), norm or NormKeys()
    partial = defaults.partial
    rope, max_positions = rope_spec(
        reader,
        attention.head_dim,
        reader.size("max_position_embeddings", defaults.positions),
        theta=defaults.theta,
        partial=None if partial is None else reader.number("partial_rotary_factor", partial),
        parameters=rope_parameters,
    )
    activation = activation_of(reader, activation_key, defaults.activation)
    inner = reader.size("intermediate_size")
    feedforward = FeedForwardSpec(inner=inner, activation=activation, gated=gated, bias=feedforward_bias)
    normed = NormSpec(kind=norm.kind, eps=reader.number(norm.eps_key, defaults.eps), bias=norm.bias)
    attention = replace(
        attention,
        rope=rope,
        rope_adjacent=rope_adjacent,
        qkv_bias=qkv_bias or attention_bias,
        out_bias=attention_out_bias or attention_bias,
        qk_norm=None if qk_norm is None else QkNormSpec(norm=normed, over=qk_norm),
    )
    windows = windows or (None,) * reader.size("num_hidden_layers", most=MAX_LAYERS)
    return ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size"),
        hidden_size=reader.size("hidden_size"),
        layers=tuple(LayerSpec(attention=replace(attention, window=each), feedforward=feedforward) for each in windows),
        max_positions=max_positions,
        norm=normed,
        tied_head=reader.flag("tie_word_embeddings", defaults.tied),
        dtype=dtype(reader),
        names=names,
    )


def _attention(reader: ConfigReader, default_head_dim: int | None, default_kv_heads: int | None) -> AttentionSpec:
    """How many heads there are, and how large each is."""
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    given = reader.get("head_dim", default_head_dim)
    head_dim = head_dim_of(width, heads) if given is None else reader.size("head_dim", default_head_dim)
    absent = heads if default_kv_heads is None or reader.has("num_key_value_heads") else default_kv_heads
    kv_heads = reader.size("num_key_value_heads", absent)
    return _heads(heads, kv_heads, head_dim)


def _heads(heads: int, kv_heads: int, head_dim: int) -> AttentionSpec:
    if heads % kv_heads:
        raise ModelError(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads evenly")
    return AttentionSpec(heads=heads, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim**-0.5)


def with_local_rope(spec: ModelSpec, reader: ConfigReader, parameters: dict[str, Any]) -> ModelSpec:
    """The same model with a rotary embedding of these parameters in layers that have a window."""
    head_dim = spec.layers[0].attention.head_dim
    local, _ = rope_spec(reader, head_dim, spec.max_positions, parameters=parameters, scaled_by_flags=False)

    def change(_: int, attention: AttentionSpec) -> AttentionSpec:
        return replace(attention, rope=local) if attention.window else attention

    return spec.with_attention(change)


def with_mixers(spec: ModelSpec, types: Any, mixers: dict[str, Mixer | None]) -> ModelSpec:
    """The same model with a mixer in place of attention in some layers, by the kind that `types` names for each."""
    if not isinstance(types, list) or len(types) != len(spec.layers) or any(str(one) not in mixers for one in types):
        raise ModelError(f"config.json: `layer_types` must name {' or '.join(mixers)} for each layer")
    both = zip(spec.layers, types, strict=True)
    return replace(spec, layers=tuple(replace(layer, mixer=mixers[kind]) for layer, kind in both))


def experts_of(
    spec: ModelSpec, reader: ConfigReader, count: Key, top: int | Key, *, normalise: bool, **fields: Any
) -> ExpertsSpec:
    """Experts with the activation of the feed-forward, and its size unless `inner` says another.

    count: its key and default; top: the same, or the default of the usual key.
    """
    feedforward = spec.layers[0].feedforward
    top_key, most = ("num_experts_per_tok", top) if isinstance(top, int) else top
    return ExpertsSpec(
        count=reader.size(*count, most=4096),
        top=reader.size(top_key, most),
        activation=fields.pop("activation", feedforward.activation),
        inner=fields.pop("inner", feedforward.inner),
        normalise=normalise,
        **fields,
    )


def with_experts(
    spec: ModelSpec, reader: ConfigReader, experts: ExpertsSpec, sparse: Callable[[int], bool] = lambda layer: True
) -> ModelSpec:
    """The same model with these experts in the layers that `sparse` says, by their number."""
    reader.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")  # of training
    if experts.top > experts.count:
        raise ModelError(f"config.json: `num_experts_per_tok` {experts.top} is more than the {experts.count} experts")
    layers = (replace(layer, experts=experts) if sparse(i) else layer for i, layer in enumerate(spec.layers))
    return replace(spec, layers=tuple(layers))


def next_token_layers(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    """The same model without the layers after its own that predict further tokens: checkpoints hold them as well."""
    reader.get("num_nextn_predict_layers")
    last = len(spec.layers)
    return replace(spec, names=replace(spec.names, ignored=(*spec.names.ignored, rf"model\.layers\.{last}\..*")))


def gpt_like(
    reader: ConfigReader,
    *,
    width: int,
    heads: int,
    layers: int,
    inner: int,
    max_positions: int,
    activation: Activation,
    names: Names,
    eps: float | None = None,
    tied: bool = True,
    kv_heads: int | None = None,
    bias: bool = True,
) -> ModelSpec:
    """What GPT-2 and its followers share: layer norms with biases, no gate.

    eps: where the config has none to say. tied: the head, unless the config says otherwise. kv_heads: None for keys of
    every head.
    """
    attention = _heads(heads, kv_heads or heads, head_dim_of(width, heads))
    attention = replace(attention, qkv_bias=bias, out_bias=bias)
    feedforward = FeedForwardSpec(inner=inner, activation=activation, gated=False, bias=bias)
    return ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size"),
        hidden_size=width,
        layers=(LayerSpec(attention=attention, feedforward=feedforward),) * layers,
        max_positions=max_positions,
        norm=NormSpec(kind="layer", eps=reader.number("layer_norm_epsilon", 1e-5) if eps is None else eps, bias=True),
        tied_head=reader.flag("tie_word_embeddings", tied),
        dtype=dtype(reader),
        names=names,
    )


def head_dim_of(width: int, heads: int) -> int:
    if width % heads:
        raise ModelError(
            f"config.json: hidden size {width} is not a multiple of {heads} heads, and there is no `head_dim`"
        )
    return width // heads


def no_rope(reader: ConfigReader, why: str) -> None:
    if reader.override.parameters():
        raise ModelError(f"{why}: rope scaling does not apply to it")


def activation_of(reader: ConfigReader, key: str, default: Activation) -> Activation:
    """The activation function that the config names, under the name it has here."""
    names = dict[str, Activation]((name, name) for name in ACTIVATIONS) | OTHER_NAMES
    return names[reader.choice(key, default, names)]


def either(reader: ConfigReader, key: str, other: str, default: int | None = None, *, most: int = (1 << 31) - 1) -> int:
    """A size that configs give under one of two names."""
    if reader.get(other) is None:
        return reader.size(key, default, most=most)
    size = reader.size(other, most=most)
    if reader.size(key, size) != size:
        raise ModelError(f"config.json: `{key}` and `{other}` differ")
    return size


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Slope of each head (Press et al. 2021).

    For n heads, n a power of two: 2^(-8/n), 2^(-16/n), ... For other counts those of the next smaller power
    of two, then every second one of the next larger, as the authors' code has it.
    """
    power = 1 << (heads.bit_length() - 1)
    exponents = [8 * (head + 1) / power for head in range(power)]
    exponents += [4 * (2 * head + 1) / power for head in range(heads - power)]
    return tuple(2.0**-exponent for exponent in exponents)


def layer_windows(
    reader: ConfigReader, window: int | None, first: Any = 0, every: int = 1, full_every: int | None = None
) -> tuple[int | None, ...]:
    """A window for every so-many layers from `first` on; `layer_types`, where present, decides.

    full_every: the last of every so-many layers has none, all others have one.
    """
    layers = reader.size("num_hidden_layers", most=MAX_LAYERS)
    types = reader.get("layer_types")
    if types is None:
        if not isinstance(first, int) or first < 0:
            raise ModelError(f"config.json: `max_window_layers` must not be negative, it is {first!r}")
        if full_every is not None:
            return tuple(window if (layer + 1) % full_every else None for layer in range(layers))
        return tuple(window if layer >= first and (layer - first) % every == 0 else None for layer in range(layers))
    known = {"full_attention": None, "sliding_attention": window}
    if not isinstance(types, list) or len(types) != layers or any(str(kind) not in known for kind in types):
        raise ModelError("config.json: `layer_types` must name full_attention or sliding_attention for each layer")
    if window is None and "sliding_attention" in types:
        raise ModelError("config.json: `layer_types` asks for sliding_attention, but there is no sliding window")
    return tuple(known[kind] for kind in types)


def turning_layers(reader: ConfigReader, layers: int) -> list[int]:
    """Whether each layer turns queries and keys: all but every fourth, unless the config says otherwise."""
    interval = reader.size("no_rope_layer_interval", 4)
    turns = reader.get("no_rope_layers") or [int((layer + 1) % interval != 0) for layer in range(layers)]
    if not isinstance(turns, list) or len(turns) < layers:
        raise ModelError("config.json: `no_rope_layers` must have an entry, 0 or 1, for each layer")
    return turns


def dtype(reader: ConfigReader) -> str | None:
    value = reader.get("dtype") or reader.get("torch_dtype")
    reader.get("torch_dtype")
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    if isinstance(name, str) and name.startswith(("float8", "int", "uint")) and not reader.has("quantization_config"):
        raise ModelError(
            f"config.json: `dtype` {printable(name, 40)} without a `quantization_config` that says what the numbers "
            f"mean; serve a checkpoint in {', '.join(DTYPES)}"
        )
    return name if name in DTYPES else None

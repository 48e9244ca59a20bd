"""The config keys that families share: of models built like Llama, of those built like GPT-2, and of all.

Called by `families`. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.kernels.program import Activation
from tgi.models.config_reader import ConfigReader
from tgi.models.names import LLAMA_NAMES
from tgi.models.rope_config import RopeOverride, rope_spec
from tgi.models.spec import AttentionSpec, FeedForwardSpec, LayerSpec, ModelSpec, Names

ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
OTHER_NAMES: dict[str, Activation] = {
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "swish": "silu",
}
"""Names that transformers has for the same functions."""
MAX_LAYERS = 10_000
DTYPES = ("bfloat16", "float16", "float32")


def llama_like(
    reader: ConfigReader,
    override: RopeOverride | None,
    *,
    default_positions: int,
    windows: tuple[int | None, ...],
    qkv_bias: bool = False,
    attention_out_bias: bool = False,
    feedforward_bias: bool = False,
    default_head_dim: int | None = None,
    default_kv_heads: int | None = None,
    default_tied: bool = False,
    activation_key: str = "hidden_act",
    default_activation: Activation = "silu",
) -> ModelSpec:
    """The keys that Llama, Mistral, Qwen2 and Gemma 2 share.

    default_kv_heads: of a config without the key, None for as many as heads, which null means everywhere.
    """
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    given = reader.get("head_dim", default_head_dim)
    head_dim = head_dim_of(width, heads) if given is None else reader.size("head_dim", default_head_dim)
    absent = heads if default_kv_heads is None or reader.has("num_key_value_heads") else default_kv_heads
    kv_heads = reader.size("num_key_value_heads", absent)
    if heads % kv_heads:
        raise ModelError(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads evenly")
    rope, max_positions = rope_spec(
        reader, head_dim, reader.size("max_position_embeddings", default_positions), override
    )
    feedforward = FeedForwardSpec(
        inner=reader.size("intermediate_size"),
        activation=activation_of(reader, activation_key, default_activation),
        gated=True,
        bias=feedforward_bias,
    )
    attention = AttentionSpec(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        rope=rope,
        qkv_bias=qkv_bias,
        out_bias=attention_out_bias,
    )
    return ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size"),
        hidden_size=width,
        layers=tuple(
            LayerSpec(attention=replace(attention, window=window), feedforward=feedforward) for window in windows
        ),
        max_positions=max_positions,
        norm="rms",
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        tied_head=reader.flag("tie_word_embeddings", default_tied),
        dtype=dtype(reader),
        names=LLAMA_NAMES,
    )


def gpt_like(
    reader: ConfigReader,
    *,
    width: int,
    heads: int,
    layers: int,
    inner: int,
    max_positions: int,
    eps: float,
    activation: Activation,
    tied_head: bool,
    names: Names,
) -> ModelSpec:
    """What GPT-2 and its followers share: layer norms, biases everywhere, no gate, keys for every head."""
    head_dim = head_dim_of(width, heads)
    attention = AttentionSpec(
        heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, qkv_bias=True, out_bias=True
    )
    feedforward = FeedForwardSpec(inner=inner, activation=activation, gated=False, bias=True)
    return ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size"),
        hidden_size=width,
        layers=(LayerSpec(attention=attention, feedforward=feedforward),) * layers,
        max_positions=max_positions,
        norm="layer",
        norm_eps=eps,
        tied_head=tied_head,
        dtype=dtype(reader),
        names=names,
    )


def head_dim_of(width: int, heads: int) -> int:
    if width % heads:
        raise ModelError(
            f"config.json: hidden size {width} is not a multiple of {heads} heads, and there is no `head_dim`"
        )
    return width // heads


def no_rope(override: RopeOverride | None, why: str) -> None:
    if override and override.parameters():
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


def layer_windows(reader: ConfigReader, window: int | None, first: Any, every: int = 1) -> tuple[int | None, ...]:
    """A window for every so-many layers from `first` on; `layer_types`, where present, decides."""
    layers = reader.size("num_hidden_layers", most=MAX_LAYERS)
    types = reader.get("layer_types")
    if types is None:
        if not isinstance(first, int) or first < 0:
            raise ModelError(f"config.json: `max_window_layers` must not be negative, it is {first!r}")
        return tuple(window if layer >= first and (layer - first) % every == 0 else None for layer in range(layers))
    known = {"full_attention": None, "sliding_attention": window}
    if not isinstance(types, list) or len(types) != layers or any(str(kind) not in known for kind in types):
        raise ModelError("config.json: `layer_types` must name full_attention or sliding_attention for each layer")
    if window is None and "sliding_attention" in types:
        raise ModelError("config.json: `layer_types` asks for sliding_attention, but there is no sliding window")
    return tuple(known[kind] for kind in types)


def dtype(reader: ConfigReader) -> str | None:
    value = reader.get("dtype") or reader.get("torch_dtype")
    reader.get("torch_dtype")
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    return name if name in DTYPES else None

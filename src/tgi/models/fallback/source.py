"""From a checkpoint to a module of transformers, on a device without memory or with its weights; and its outline."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import torch
import transformers

from tgi.errors import ModelError
from tgi.kernels.outline import EncoderOutline, Outline
from tgi.kernels.program import CacheLayer
from tgi.models.dtypes import DTYPES
from tgi.models.families.registry import FAMILIES
from tgi.untrusted import printable

logger = logging.getLogger(__name__)

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""What models call their cache, as an argument and in their answer."""
DECODER_LAYERS = ("num_decoder_layers", "decoder_layers")
POSITIONS = (
    "max_decoder_position_embeddings", "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"
)  # fmt: skip
"""What configs call the length of the longest sequence."""
DEFAULT_POSITIONS = 2048
"""Of a model whose config does not say how long a sequence may be."""


def read_transformers_config(path: Path, *, trust_remote_code: bool) -> Any:
    """transformers' config of a directory. Raises ModelError where it does not know the model."""
    try:
        return transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever a foreign file makes the library raise
        raise ModelError(_unknown(path, error, trust_remote_code=trust_remote_code)) from error


def outline(path: Path, *, trust_remote_code: bool = False) -> Outline:
    """Sizes of the model, from config.json alone: it is built without memory. Raises ModelError."""
    config = read_transformers_config(path, trust_remote_code=trust_remote_code)
    try:
        with torch.device("meta"):
            model = _auto(config).from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(_unknown(path, error, trust_remote_code=trust_remote_code)) from error
    return outline_of(model, config)


def outline_of(model: Any, config: Any, cache: tuple[CacheLayer, ...] = ()) -> Outline:
    """The outline of a built model; cache: the layers that keep keys and values in ours."""
    text = config.get_text_config(decoder=True)
    heads = _first(text, "num_attention_heads", "n_head", "num_heads", "n_heads", "num_decoder_attention_heads") or 1
    hidden = _first(text, "hidden_size", "n_embd", "d_model", "dim") or 1
    layers = _first(text, *DECODER_LAYERS, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or 1
    kv_heads = _first(text, "num_key_value_heads", "num_kv_heads") or heads
    kv_heads = kv_heads if isinstance(kv_heads, int) else max(kv_heads)
    head_dim = _first(text, "head_dim", "d_kv") or max(hidden // heads, 1)
    linear = [module.weight.shape for module in model.modules() if isinstance(module, torch.nn.Linear)]
    vocab = model.get_output_embeddings()
    vocab_size = vocab.weight.shape[0] if vocab is not None else text.vocab_size
    return Outline(
        model_type=str(config.model_type),
        class_name=type(model).__name__,
        vocab_size=int(vocab_size),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden_size=hidden,
        widest=max((rows for rows, _ in linear if rows != vocab_size), default=4 * hidden),
        cache=cache,
        own_cache=(CacheLayer(kv_heads, head_dim),) * layers,
        max_positions=max_positions(text),
        dtype=_dtype(config),
        input_vocab_size=int(model.get_input_embeddings().weight.shape[0]),
        encoder=EncoderOutline(_input_positions(config)) if config.is_encoder_decoder else None,
    )


def max_positions(config: Any) -> int:
    """Longest sequence; where the rotary embedding changes with the length, the one for which it does not."""
    length = _first(config, *POSITIONS)
    ropes = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    for rope in [rope for rope in ropes if isinstance(rope, dict)]:
        for settings in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
            if settings.get("rope_type", settings.get("type")) in ("dynamic", "longrope"):
                original = settings.get("original_max_position_embeddings")
                original = original or getattr(config, "original_max_position_embeddings", None)
                length = min(length or DEFAULT_POSITIONS, original or length or DEFAULT_POSITIONS)
    return int(length or DEFAULT_POSITIONS)


def _input_positions(config: Any) -> int:
    """Longest input of a model's encoder."""
    encoder = getattr(config, "encoder", None) or config
    text = encoder.get_text_config() if hasattr(encoder, "get_text_config") else encoder
    return int(_first(text, "max_encoder_position_embeddings", *POSITIONS) or DEFAULT_POSITIONS)


def _auto(config: Any) -> Any:
    """transformers' factory of the models with a language head."""
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def load(path: Path, dtype: torch.dtype, device: torch.device, *, trust_remote_code: bool) -> Any:
    """The model with its weights, ready to answer. Raises ModelError for weights that are missing or left over."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = read_transformers_config(path, trust_remote_code=trust_remote_code)
    try:
        model, report = _auto(config).from_pretrained(
            str(path),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"transformers cannot load the model: {_line(error)}") from error
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"{len(missing)} tensors of {type(model).__name__} are missing from the checkpoint, such as "
            f"{printable(missing[0])}: it is incomplete, or its config.json belongs to another model"
        )
    if unused := sorted(report.get("unexpected_keys") or ()):
        logger.warning("Tensors that %s does not use: %s", type(model).__name__, ", ".join(map(printable, unused[:5])))
    return model.to(device).eval()


def accepts(function: Any, name: str) -> bool:
    """Whether a model's forward pass names this argument."""
    return name in inspect.signature(function).parameters


def _unknown(path: Path, error: Exception, *, trust_remote_code: bool) -> str:
    content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    model_type = printable(content.get("model_type"), 80)
    code = content.get("auto_map")
    if code and not trust_remote_code:
        return (
            f"Model type {model_type} is neither native here nor part of transformers {transformers.__version__}: the "
            "checkpoint brings its own code, which runs with --trust-remote-code only"
        )
    return (
        f"Unsupported model type {model_type}: it is not native here, and transformers {transformers.__version__} "
        f"has no language model for it ({_line(error)}). Native are {', '.join(sorted(FAMILIES))}"
    )


def _dtype(config: Any) -> str | None:
    name = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return name if name in DTYPES else None


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _line(error: BaseException) -> str:
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), 300)

"""From a GGUF file's metadata to the config.json that transformers would have for the model. Imports no torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from tgi.errors import ModelError
from tgi.models.gguf.file import FLOATS, GgufFile, Info
from tgi.quant.planned import ggml_bits
from tgi.untrusted import printable

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
Config = dict[str, Any]


class Metadata:
    """The values of one architecture, typed. Raises ModelError for what is missing or something else."""

    def __init__(self, file: GgufFile) -> None:
        self.file, self.values = file, file.metadata
        self.architecture = self.text("general.architecture")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._own(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(f"{self.architecture}.{key}", "a number")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number; a list, one a layer, must have the same everywhere."""
        value = self._own(key, default)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, list):
            raise ModelError(
                f"{printable(self.file.path.name)}: {self.architecture}.{key} differs from layer to layer, which is "
                "not supported"
            )
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise self._wrong(f"{self.architecture}.{key}", "a positive whole number")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values

    def _own(self, key: str, default: Any) -> Any:
        return self.values.get(f"{self.architecture}.{key}", default)

    def _wrong(self, key: str, what: str) -> ModelError:
        found = printable(self.values[key], 40) if key in self.values else "missing"
        return ModelError(f"{printable(self.file.path.name)}: `{key}` of the metadata must be {what}, it is {found}")


def make_config(files: list[GgufFile]) -> Config:
    """config.json of a model; files: its parts, of which the first has the metadata. Raises ModelError."""
    metadata = Metadata(files[0])
    name, shown = metadata.architecture, printable(metadata.architecture)
    if name not in ARCHITECTURES:
        raise ModelError(
            f"{printable(files[0].path.name)} is of architecture {shown}; of GGUF files these are read: "
            f"{', '.join(sorted(ARCHITECTURES))}. Serve the model in transformers format instead"
        )
    tensors = {stored: info for file in files for stored, info in file.tensors.items()}
    if "token_embd.weight" not in tensors:
        raise ModelError(f"{printable(files[0].path.name)} has no token_embd.weight: it is no whole language model")
    config = _common(metadata, tensors)
    config |= ARCHITECTURES[name](metadata)
    scaling = _rope_scaling(metadata, files, config)
    if scaling:
        config["rope_scaling"] = scaling
    kinds = {info.type for info in tensors.values() if len(info.shape) > 1}
    coded = kinds - set(FLOATS)
    config["torch_dtype"] = "bfloat16" if coded or len(kinds) != 1 else DTYPES[kinds.pop()]
    config["quantization_config"] = {
        "quant_method": "gguf",
        "quantised": bool(coded),
        "bits": round(bits_per_weight(tensors), 3),
        "kept_bits": {dtype: round(kept_bits(tensors, dtype), 3) for dtype in ("bfloat16", "float32")},
        "architecture": name,
        "files": [file.path.name for file in files],
    }
    return config


def bits_per_weight(tensors: Mapping[str, Info]) -> float:
    """Of all matrices, in the file."""
    matrices = [info for info in tensors.values() if len(info.shape) > 1]
    numbers = sum(math.prod(info.shape) for info in matrices)
    return 8 * sum(info.bytes for info in matrices) / max(numbers, 1)


def kept_bits(tensors: Mapping[str, Info], dtype: str) -> float:
    """Of all matrices, in memory when they are served in `dtype`."""
    sizes = [(ggml_bits(info.type, dtype), math.prod(info.shape)) for info in tensors.values() if len(info.shape) > 1]
    return sum(bits * count for bits, count in sizes) / max(sum(count for _, count in sizes), 1)


def _common(metadata: Metadata, tensors: Mapping[str, Any]) -> Config:
    width, heads = metadata.size("embedding_length"), metadata.size("attention.head_count")
    head_dim = metadata.size("attention.key_length", max(width // heads, 1))
    if metadata.size("attention.value_length", head_dim) != head_dim:
        raise ModelError("heads whose keys and values have different sizes are not supported")
    config: Config = {
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "intermediate_size": metadata.size("feed_forward_length", 4 * width),
        "num_hidden_layers": metadata.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.size("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    if metadata.has("rope.freq_base"):
        config["rope_theta"] = metadata.number("rope.freq_base")
    if metadata.has("attention.layer_norm_rms_epsilon"):
        config["rms_norm_eps"] = metadata.number("attention.layer_norm_rms_epsilon")
    turning = metadata.size("rope.dimension_count", head_dim)
    if turning != head_dim:
        config["partial_rotary_factor"] = turning / head_dim
    for key, name in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")):
        id = metadata.values.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(id, int):
            config[key] = id
    ends = [metadata.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ids = list(dict.fromkeys(id for id in ends if isinstance(id, int)))
    if len(ids) > 1:
        config["eos_token_id"] = ids
    config["attention_bias"] = "blk.0.attn_q.bias" in tensors
    return config


def _rope_scaling(metadata: Metadata, files: list[GgufFile], config: Config) -> Config | None:
    kind = metadata.text(f"{metadata.architecture}.rope.scaling.type", "none")
    original = metadata.size("rope.scaling.original_context_length", config["max_position_embeddings"])
    if (long := _floats(files, "rope_factors_long.weight")) is not None:
        config["original_max_position_embeddings"] = original
        scaling = {"rope_type": "longrope", "long_factor": long}
        return scaling | {"short_factor": _floats(files, "rope_factors_short.weight") or long}
    if (factors := _floats(files, "rope_freqs.weight")) is not None:
        return _llama3(factors, config)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise ModelError(f"rope scaling of type {printable(kind)} in a GGUF file is not supported: linear and yarn are")
    scaling = {"rope_type": kind, "factor": metadata.number("rope.scaling.factor")}
    return scaling | ({"original_max_position_embeddings": original} if kind == "yarn" else {})


def _llama3(factors: list[float], config: Config) -> Config:
    """The parameters that give these factors of frequencies: those of Llama 3.1 and 3.2."""
    factor, theta, low, high, original = max(factors), config.get("rope_theta", 10_000.0), 1.0, 4.0, 8192
    for index, found in enumerate(factors):
        turns = original / (2 * math.pi * theta ** (index / len(factors)))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        if not math.isclose(found, 1 / ((1 - smooth) / factor + smooth), rel_tol=1e-3):
            raise ModelError("rope_freqs.weight of the GGUF file is not Llama 3's scaling of positions")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _floats(files: list[GgufFile], name: str) -> list[float] | None:
    """A small vector of float32."""
    for file in files:
        if (info := file.tensors.get(name)) is not None:
            if info.type != "F32" or len(info.shape) != 1 or info.bytes > 1 << 16:
                raise ModelError(f"{printable(file.path.name)}: {name} is no vector of F32")
            raw = file.map[info.offset : info.offset + info.bytes]
            values = list(struct.unpack(f"<{len(raw) // 4}f", raw))
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise ModelError(f"{printable(file.path.name)}: {name} holds numbers that are no factors")
            return values
    return None


def _llama(metadata: Metadata) -> Config:
    if not metadata.has("expert_count"):
        return {"model_type": "llama", "hidden_act": "silu"}
    return {
        "model_type": "mixtral",
        "hidden_act": "silu",
        "num_local_experts": metadata.size("expert_count"),
        "num_experts_per_tok": metadata.size("expert_used_count"),
    }


def _qwen2(metadata: Metadata) -> Config:
    return {"model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False, "attention_bias": None}


def _experts(metadata: Metadata) -> Config:
    return {
        "num_experts": metadata.size("expert_count"),
        "num_experts_per_tok": metadata.size("expert_used_count"),
        "moe_intermediate_size": metadata.size("expert_feed_forward_length"),
        "hidden_act": "silu",
    }


def _qwen2_moe(metadata: Metadata) -> Config:
    shared = metadata.size("expert_shared_feed_forward_length")
    own = {"model_type": "qwen2_moe", "shared_expert_intermediate_size": shared, "norm_topk_prob": False}
    return own | _experts(metadata) | {"attention_bias": None}


def _gemma(metadata: Metadata) -> Config:
    return {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"}


def _gemma_scores(metadata: Metadata, largest: int) -> float:
    """What scores are divided by the root of: the size of a head, but in the largest model of a family."""
    width, heads = metadata.size("embedding_length"), metadata.size("attention.head_count")
    return width / heads if metadata.size("block_count") == largest else metadata.size("attention.key_length", 256)


def _gemma2(metadata: Metadata) -> Config:
    return {
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": metadata.size("attention.sliding_window", 4096),
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _gemma_scores(metadata, 46),
    }


def _gemma3(metadata: Metadata) -> Config:
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": metadata.size("attention.sliding_window"),
        "sliding_window_pattern": 6,
        "rope_local_base_freq": metadata.number("rope.freq_base_swa", 10_000.0),
        "rope_theta": metadata.number("rope.freq_base", 1_000_000.0),
        "query_pre_attn_scalar": _gemma_scores(metadata, 62),
    }


def _phi3(metadata: Metadata) -> Config:
    window = metadata.size("attention.sliding_window") if metadata.values.get("phi3.attention.sliding_window") else None
    return {"model_type": "phi3", "hidden_act": "silu", "sliding_window": window}


def _granite(metadata: Metadata) -> Config:
    head = metadata.size("embedding_length") // metadata.size("attention.head_count")
    return {
        "model_type": "granite",
        "hidden_act": "silu",
        "attention_multiplier": metadata.number("attention.scale", head**-0.5),
        "embedding_multiplier": metadata.number("embedding_scale", 1.0),
        "residual_multiplier": metadata.number("residual_scale", 1.0),
        "logits_scaling": metadata.number("logit_scale", 1.0),
    }


def _starcoder2(metadata: Metadata) -> Config:
    return {
        "model_type": "starcoder2",
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": metadata.number("attention.layer_norm_epsilon"),
        "use_bias": True,
        "attention_bias": None,
    }


def _plain(model_type: str, **more: Any) -> Callable[[Metadata], Config]:
    return lambda metadata: {"model_type": model_type, "hidden_act": "silu", **more}


ARCHITECTURES: dict[str, Callable[[Metadata], Config]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "granite": _granite,
    "llama": _llama,
    "olmo2": _plain("olmo2"),
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2_moe,
    "qwen3": _plain("qwen3"),
    "qwen3moe": lambda metadata: {"model_type": "qwen3_moe", "norm_topk_prob": True} | _experts(metadata),
    "smollm3": _plain("smollm3", no_rope_layer_interval=4),
    "starcoder2": _starcoder2,
}
"""llama.cpp's name -> what its config has beyond the sizes."""

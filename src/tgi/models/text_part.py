"""Checkpoints in which a language model stands beside parts for images or sound, as most of its kind are published.

The language model is served as if it were alone: its config is the object `text_config`, and its tensors lie under a
name of their own. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tgi.models.config_reader import ConfigReader
from tgi.models.names import Names

_GEMMA = {"hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8}
WITH_OTHER_PARTS: dict[str, dict[str, Any]] = {
    "gemma3": {"model_type": "gemma3_text", "vocab_size": 262_208, "num_hidden_layers": 26, **_GEMMA},
    "gemma4": {"model_type": "gemma4_text", "vocab_size": 262_144, "num_hidden_layers": 30, **_GEMMA},
    "llama4": {"model_type": "llama4_text"},
    "mistral3": {"model_type": "mistral"},
    "qwen3_5": {"model_type": "qwen3_5_text"},
}
"""`model_type` -> what transformers takes for keys that published configs of the language model lack.

Without images these compute what their language models compute alone.
"""
_SHARED = ("dtype", "quantization_config", "tie_word_embeddings", "torch_dtype")
"""Keys that the whole checkpoint's config has in place of the language model's."""
_OF_OTHERS = re.compile("image|vision|video|audio|projector|spatial_merge|^(boi|eoi|boa|eoa|mm)_")
"""Keys that say something of other parts."""
_PLACES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
"""How names of the language model's tensors begin, and how they would if it were alone."""
_ANYWHERE = ("language_model.", "model.language_model.")
ELSEWHERE = "other parts: "
"""Stands before the names of tensors of other parts."""


def text_part(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a checkpoint's language model, as it would be alone; None where there are no other parts."""
    text = config.get("text_config")
    usual = WITH_OTHER_PARTS.get(str(config.get("model_type")))
    if usual is None or not isinstance(text, dict):
        return None
    shared = {key: config[key] for key in _SHARED if config.get(key) is not None}
    return {**usual, **text, **shared, "architectures": None}


def of_other_parts(stored: str) -> bool:
    """Whether a tensor of this name belongs to another part than the language model."""
    return not stored.startswith((*_ANYWHERE, "lm_head."))


def other_parts(config: Mapping[str, Any]) -> list[str]:
    """What the parts are called that are not served."""
    return sorted(key.removesuffix("_config") for key in config if key.endswith("_config") and _OF_OTHERS.search(key))


def check_outside(config: Mapping[str, Any], *, warn: bool) -> None:
    """Look after the keys beside `text_config`, as `ConfigReader.finish` does."""
    reader = ConfigReader({key: value for key, value in config.items() if not _OF_OTHERS.search(key)})
    reader.ignore("text_config", *_SHARED)
    reader.finish(warn=warn)


def within(names: Names) -> Names:
    """The names of a language model that stands beside other parts."""
    return replace(names, beside_others=True, ignored=(*names.ignored, f"{ELSEWHERE}.*"))


def full_name(stored: str, names: Names) -> str:
    """What a stored tensor is called in the model: with the prefix of base models, which some checkpoints leave out."""
    if not names.beside_others:
        return stored if stored.startswith((names.prefix, names.head)) else names.prefix + stored
    if of_other_parts(stored):
        return ELSEWHERE + stored
    return next((alone + stored.removeprefix(begins) for begins, alone in _PLACES if stored.startswith(begins)), stored)

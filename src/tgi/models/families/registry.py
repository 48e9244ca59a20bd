"""The model families by `model_type`, and the way from config.json to a `ModelSpec`.

A family is a function in the file of its lineage, with the names of its tensors. It owns what distinguishes the
family; the arithmetic is `build.decoder`'s. A config key that changes the maths is consumed there or refused by name.
How to add one: docs/adding-a-model.md. Imports no torch.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, RopeOverride, read_config
from tgi.models.families import (
    alibi,
    bart,
    cohere,
    dbrx,
    deepseek,
    ernie,
    gemma,
    gemma4,
    gpt,
    gptj,
    granite,
    llama,
    llama4,
    mistral,
    moe,
    olmo,
    opt,
    phi,
    qwen,
    qwen_next,
    recurrent,
    stablelm,
    t5,
)
from tgi.models.spec import ModelSpec
from tgi.models.text_part import check_outside, other_parts, text_part, within
from tgi.untrusted import printable

logger = logging.getLogger(__name__)
Family = Callable[[ConfigReader], ModelSpec]
LINEAGES = (
    alibi, bart, cohere, dbrx, deepseek, ernie, gemma, gemma4, gpt, gptj, granite,
    llama, llama4, mistral, moe, olmo, opt, phi, qwen, qwen_next, recurrent, stablelm, t5,
)  # fmt: skip
FAMILIES: dict[str, Family] = {name: family for lineage in LINEAGES for name, family in lineage.FAMILIES.items()}
"""`model_type` of config.json -> family."""
WITH_ENCODER = frozenset({**bart.FAMILIES, **t5.FAMILIES})


class UnknownFamilyError(ModelError):
    """No native family has this `model_type`: transformers may compute the model."""


def spec_from_config(config: dict[str, Any], override: RopeOverride | None = None, *, warn: bool = True) -> ModelSpec:
    """The spec of a checkpoint's config.json. Raises ModelError naming what is not supported.

    warn: name keys in the log that are unknown. Each load does so once: whoever only looks does not.
    """
    part = text_part(config)
    if part is None:
        return _spec(config, override, warn=warn)
    _check_architectures(config.get("architectures"), with_encoder=True)
    check_outside(config, warn=warn)
    spec = _spec(part, override, warn=warn)
    if warn:
        others = ", ".join(map(printable, other_parts(config)))
        logger.info("Of the checkpoint the language model is served, %s; not its %s parts", spec.model_type, others)
    return replace(spec, names=within(spec.names))


def _spec(config: dict[str, Any], override: RopeOverride | None, *, warn: bool) -> ModelSpec:
    reader = ConfigReader(config, override)
    model_type = reader.get("model_type")
    if model_type is None:
        raise ModelError("config.json has no `model_type`: could not determine the model's type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UnknownFamilyError(f"Unsupported model type {printable(model_type)}; supported are {known}")
    _check_architectures(reader.get("architectures"), with_encoder=model_type in WITH_ENCODER)
    reader.get("quantization_config")  # judged by `quant`
    spec = family(reader)
    reader.finish(warn=warn)
    if spec.encoder is None and saved_without_head(config):
        return replace(spec, tied_head=True)
    return spec


def _check_architectures(given: Any, *, with_encoder: bool) -> None:
    for name in map(str, given if isinstance(given, list) else [] if given is None else [given]):
        if not _generates(name, with_encoder):
            raise ModelError(f"{printable(name)} is not a language model; this server generates text")


def saved_without_head(config: dict[str, Any]) -> bool:
    """Whether the class that a checkpoint was saved from has no head, as those of sentence-transformers: it is for
    embeddings, and where no head is stored the embedding stands in for it."""
    names = config.get("architectures")
    return bool(names) and isinstance(names, list) and all(_is_body(str(name)) for name in names)


def _is_body(architecture: str) -> bool:
    return architecture.endswith("Model") and not re.search("LMHead|MTModel|DoubleHeads|Encoder", architecture)


def _generates(architecture: str, with_encoder: bool) -> bool:
    """Whether the class that a checkpoint was saved from has a head for text, or may have lost it on the way."""
    if architecture.endswith("EncoderModel"):
        return False
    heads = ("ForConditionalGeneration", "MTModel") if with_encoder else ("ForCausalLM", "LMHead")
    return architecture.endswith("Model") or any(head in architecture for head in heads)


def read_spec(path: Path, override: RopeOverride | None = None) -> ModelSpec:
    """The spec of a checkpoint directory; reads config.json only."""
    return spec_from_config(read_config(path), override)

"""The model families by `model_type`, and the way from config.json to a `ModelSpec`.

A family is a function in the file of its lineage, with the names of its tensors. It owns what distinguishes the
family; the arithmetic is `build.decoder`'s. A config key that changes the maths is consumed there or refused by name.
How to add one: docs/adding-a-model.md. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, read_config
from tgi.models.families import (
    alibi,
    baichuan,
    bart,
    cohere,
    dbrx,
    deepseek,
    ernie,
    exaone,
    gemma,
    glm,
    gpt,
    gpt_oss,
    gptj,
    granite,
    llama,
    llama4,
    mistral,
    moe,
    nemotron,
    olmo,
    opt,
    phi,
    qwen,
    qwen_next,
    recurrent,
    stablelm,
    t5,
)
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec
from tgi.untrusted import printable

Family = Callable[[ConfigReader, RopeOverride | None], ModelSpec]
LINEAGES = (
    alibi,
    baichuan,
    bart,
    cohere,
    dbrx,
    deepseek,
    ernie,
    exaone,
    gemma,
    glm,
    gpt,
    gpt_oss,
    gptj,
    granite,
    llama,
    llama4,
    mistral,
    moe,
    nemotron,
    olmo,
    opt,
    phi,
    qwen,
    qwen_next,
    recurrent,
    stablelm,
    t5,
)
FAMILIES: dict[str, Family] = {name: family for lineage in LINEAGES for name, family in lineage.FAMILIES.items()}
"""`model_type` of config.json -> family."""
WITH_ENCODER = frozenset({**bart.FAMILIES, **t5.FAMILIES})
TITLES: dict[str, str] = {
    "apertus": "Apertus",
    "arcee": "Arcee",
    "baichuan": "Baichuan",
    "bart": "BART",
    "bloom": "BLOOM",
    "codegen": "CodeGen",
    "cohere": "Command R",
    "cohere2": "Command R7B",
    "dbrx": "DBRX",
    "deepseek_v2": "DeepSeek-V2",
    "deepseek_v3": "DeepSeek-V3 and R1",
    "ernie4_5": "ERNIE 4.5",
    "ernie4_5_moe": "ERNIE 4.5 MoE",
    "exaone4": "EXAONE 4",
    "falcon": "Falcon",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "glm": "GLM-4 (9B)",
    "glm4": "GLM-4 (0414)",
    "glm4_moe": "GLM-4-MoE (4.5 to 4.7)",
    "gpt2": "GPT-2",
    "gpt_bigcode": "StarCoder and SantaCoder (GPT-BigCode)",
    "gpt_neo": "GPT-Neo",
    "gpt_neox": "GPT-NeoX",
    "gpt_oss": "gpt-oss",
    "gptj": "GPT-J",
    "granite": "Granite",
    "granitemoe": "GraniteMoE",
    "granitemoehybrid": "Granite 4 (hybrid)",
    "helium": "Helium",
    "hunyuan_v1_dense": "HunYuan dense",
    "internlm3": "InternLM3",
    "lfm2": "LFM2",
    "llama": "Llama",
    "llama4_text": "Llama 4 (text)",
    "m2m_100": "M2M100 and NLLB",
    "mamba2": "Mamba 2",
    "marian": "Marian (OPUS-MT)",
    "mbart": "mBART",
    "ministral": "Ministral",
    "ministral3": "Ministral 3",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "mpt": "MPT",
    "mt5": "mT5 and mT0",
    "nemotron": "Nemotron",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmoe": "OLMoE",
    "opt": "OPT and Galactica",
    "pegasus": "Pegasus",
    "phi": "Phi",
    "phi3": "Phi-3 and Phi-4",
    "phimoe": "Phi-3.5-MoE",
    "qwen2": "Qwen2",
    "qwen2_moe": "Qwen2-MoE",
    "qwen3": "Qwen3",
    "qwen3_5_text": "Qwen3.5 (text)",
    "qwen3_moe": "Qwen3-MoE",
    "qwen3_next": "Qwen3-Next",
    "seed_oss": "Seed-OSS",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
    "t5": "T5 and Flan-T5",
    "umt5": "UMT5",
    "xglm": "XGLM",
}
"""What people call the models of a family."""


class UnknownFamilyError(ModelError):
    """No native family has this `model_type`: transformers may compute the model."""


def spec_from_config(config: dict[str, Any], override: RopeOverride | None = None, *, warn: bool = True) -> ModelSpec:
    """The spec of a checkpoint's config.json. Raises ModelError naming what is not supported.

    warn: name keys in the log that are unknown. Each load does so once: whoever only looks does not.
    """
    reader = ConfigReader(config)
    model_type = reader.get("model_type")
    if model_type is None:
        raise ModelError("config.json has no `model_type`: could not determine the model's type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UnknownFamilyError(f"Unsupported model type {printable(model_type)}; supported are {known}")
    architectures = reader.get("architectures", [])
    for name in map(str, architectures if isinstance(architectures, list) else [architectures]):
        if not _generates(name, model_type in WITH_ENCODER):
            raise ModelError(f"{printable(name)} is not a language model; this server generates text")
    reader.get("quantization_config")  # judged by `quant`
    spec = family(reader, override)
    reader.finish(warn=warn)
    return spec


def _generates(architecture: str, with_encoder: bool) -> bool:
    """Whether the class that a checkpoint was saved from has a head for text, or may have lost it on the way."""
    if architecture.endswith("EncoderModel"):
        return False
    heads = ("ForConditionalGeneration", "MTModel") if with_encoder else ("ForCausalLM", "LMHead")
    return architecture.endswith("Model") or any(head in architecture for head in heads)


def read_spec(path: Path, override: RopeOverride | None = None) -> ModelSpec:
    """The spec of a checkpoint directory; reads config.json only."""
    return spec_from_config(read_config(path), override)

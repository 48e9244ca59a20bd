"""Short names of well-known models: `qwen3-8b` for Qwen/Qwen3-8B.

One table: name, id on the hub, licence, parameters. A local directory or file of that name wins. Sizes are reckoned
from the parameters and what a weight takes on the native kernels; `tgi plan` knows better once it has seen config.json.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, replace

from tgi.errors import DownloadError
from tgi.hub import files
from tgi.settings.parse import Parsed
from tgi.untrusted import printable

logger = logging.getLogger(__name__)

BITS = {"bfloat16": 12.1, "int8": 8.5, "int4": 5.0}
"""Of a weight in memory by what --quantize says, head and embedding counted; bfloat16 is kept in 12 bits."""
STORED_BITS = {"bfloat16": 16.0, "mxfp4": 5.3}
"""Of a weight in the files, and in memory where they are quantised."""
SIMILAR = 0.85
"""Of difflib's ratio, from which a name counts as near."""
ROOM = 1.15
"""Of the weights' bytes: what more a model needs to be of use, for the cache and the steps."""
ROOM_BYTES = 600 << 20
"""And for the processes themselves."""


@dataclass(frozen=True)
class Known:
    """A model of the table."""

    id: str
    licence: str
    """As the hub has it."""
    billions: float
    """Of parameters, those of all experts counted."""
    stored: str = "bfloat16"

    @property
    def download_bytes(self) -> int:
        return int(self.billions * 1e9 * STORED_BITS[self.stored] / 8)

    def sizes(self) -> dict[str, int]:
        """Bytes of the weights in memory by the value of --quantize, the largest first."""
        bits = BITS if self.stored == "bfloat16" else {self.stored: STORED_BITS[self.stored]}
        return {name: int(self.billions * 1e9 * each / 8) for name, each in bits.items()}

    def fitting(self, memory: int) -> str | None:
        """The largest of the formats that a machine with so many bytes has room for; None: none of them."""
        return next((name for name, size in self.sizes().items() if size * ROOM + ROOM_BYTES <= memory), None)


APACHE, MIT, GEMMA = "apache-2.0", "mit", "gemma"
KNOWN = {
    "smollm2-135m": Known("HuggingFaceTB/SmolLM2-135M-Instruct", APACHE, 0.135),
    "smollm2-360m": Known("HuggingFaceTB/SmolLM2-360M-Instruct", APACHE, 0.362),
    "smollm2-1.7b": Known("HuggingFaceTB/SmolLM2-1.7B-Instruct", APACHE, 1.71),
    "smollm3-3b": Known("HuggingFaceTB/SmolLM3-3B", APACHE, 3.08),
    "qwen3-0.6b": Known("Qwen/Qwen3-0.6B", APACHE, 0.6),
    "qwen3-1.7b": Known("Qwen/Qwen3-1.7B", APACHE, 1.72),
    "qwen3-4b": Known("Qwen/Qwen3-4B-Instruct-2507", APACHE, 4.02),
    "qwen3-4b-thinking": Known("Qwen/Qwen3-4B-Thinking-2507", APACHE, 4.02),
    "qwen3-8b": Known("Qwen/Qwen3-8B", APACHE, 8.19),
    "qwen3-14b": Known("Qwen/Qwen3-14B", APACHE, 14.8),
    "qwen3-32b": Known("Qwen/Qwen3-32B", APACHE, 32.8),
    "qwen3-30b-a3b": Known("Qwen/Qwen3-30B-A3B-Instruct-2507", APACHE, 30.5),
    "qwen3-coder-30b": Known("Qwen/Qwen3-Coder-30B-A3B-Instruct", APACHE, 30.5),
    "qwen3-next-80b": Known("Qwen/Qwen3-Next-80B-A3B-Instruct", APACHE, 81.3),
    "qwen2.5-0.5b": Known("Qwen/Qwen2.5-0.5B-Instruct", APACHE, 0.494),
    "qwen2.5-1.5b": Known("Qwen/Qwen2.5-1.5B-Instruct", APACHE, 1.54),
    "qwen2.5-7b": Known("Qwen/Qwen2.5-7B-Instruct", APACHE, 7.62),
    "qwen2.5-coder-1.5b": Known("Qwen/Qwen2.5-Coder-1.5B-Instruct", APACHE, 1.54),
    "qwen2.5-coder-7b": Known("Qwen/Qwen2.5-Coder-7B-Instruct", APACHE, 7.62),
    "llama3.2-1b": Known("meta-llama/Llama-3.2-1B-Instruct", "llama3.2", 1.24),
    "llama3.2-3b": Known("meta-llama/Llama-3.2-3B-Instruct", "llama3.2", 3.21),
    "llama3.1-8b": Known("meta-llama/Llama-3.1-8B-Instruct", "llama3.1", 8.03),
    "llama3.3-70b": Known("meta-llama/Llama-3.3-70B-Instruct", "llama3.3", 70.6),
    "gemma3-270m": Known("google/gemma-3-270m-it", GEMMA, 0.268),
    "gemma3-1b": Known("google/gemma-3-1b-it", GEMMA, 1.0),
    "gemma2-2b": Known("google/gemma-2-2b-it", GEMMA, 2.61),
    "gemma2-9b": Known("google/gemma-2-9b-it", GEMMA, 9.24),
    "phi4-mini": Known("microsoft/Phi-4-mini-instruct", MIT, 3.84),
    "phi4-14b": Known("microsoft/phi-4", MIT, 14.7),
    "phi3.5-mini": Known("microsoft/Phi-3.5-mini-instruct", MIT, 3.82),
    "mistral-7b": Known("mistralai/Mistral-7B-Instruct-v0.3", APACHE, 7.25),
    "mistral-nemo-12b": Known("mistralai/Mistral-Nemo-Instruct-2407", APACHE, 12.2),
    "mixtral-8x7b": Known("mistralai/Mixtral-8x7B-Instruct-v0.1", APACHE, 46.7),
    "gpt-oss-20b": Known("openai/gpt-oss-20b", APACHE, 20.9, "mxfp4"),
    "gpt-oss-120b": Known("openai/gpt-oss-120b", APACHE, 117, "mxfp4"),
    "deepseek-r1-1.5b": Known("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", MIT, 1.78),
    "deepseek-r1-7b": Known("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", MIT, 7.62),
    "deepseek-r1-8b": Known("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", MIT, 8.19),
    "deepseek-r1-32b": Known("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", MIT, 32.8),
    "granite4-micro": Known("ibm-granite/granite-4.0-micro", APACHE, 3.4),
    "granite4-h-tiny": Known("ibm-granite/granite-4.0-h-tiny", APACHE, 6.94),
    "granite3.3-2b": Known("ibm-granite/granite-3.3-2b-instruct", APACHE, 2.53),
    "granite3.3-8b": Known("ibm-granite/granite-3.3-8b-instruct", APACHE, 8.17),
    "olmo2-1b": Known("allenai/OLMo-2-0425-1B-Instruct", APACHE, 1.48),
    "olmo3-7b": Known("allenai/Olmo-3-7B-Instruct", APACHE, 7.3),
    "lfm2-350m": Known("LiquidAI/LFM2-350M", "other", 0.354),
    "lfm2-1.2b": Known("LiquidAI/LFM2-1.2B", "other", 1.17),
    "tinyllama-1.1b": Known("TinyLlama/TinyLlama-1.1B-Chat-v1.0", APACHE, 1.1),
    "apertus-8b": Known("swiss-ai/Apertus-8B-Instruct-2509", APACHE, 8.05),
    "glm4-9b": Known("zai-org/GLM-4-9B-0414", MIT, 9.4),
    "seed-oss-36b": Known("ByteDance-Seed/Seed-OSS-36B-Instruct", APACHE, 36.2),
    "exaone4-1.2b": Known("LGAI-EXAONE/EXAONE-4.0-1.2B", "other", 1.28),
    "flan-t5-base": Known("google/flan-t5-base", APACHE, 0.248),
}
"""Instruction-tuned where there is a choice. Ollama's colon does as well as the last dash: `qwen3:8b`."""


def look_up(name: str) -> tuple[str, Known] | None:
    """The short name in the table's spelling with its model; None for a local path and for what is no short name.

    Raises DownloadError for the beginning of several names, `qwen3`, which says nothing of the size.
    """
    plain = name.lower().replace(":", "-").removesuffix("-latest")
    if "/" in name or files.directory(name) is not None or files.is_file(name):
        return None
    if plain in KNOWN:
        return plain, KNOWN[plain]
    begun = [known for known in KNOWN if known.startswith(f"{plain}-")]
    if len(begun) == 1:
        return begun[0], KNOWN[begun[0]]
    if begun:
        raise DownloadError(f"{printable(name)} comes in several sizes: {', '.join(begun)}")
    return None


def near(name: str) -> list[str]:
    """Short names that are nearly the given one, the nearest first."""
    return [] if "/" in name else difflib.get_close_matches(name.lower().replace(":", "-"), KNOWN, 2, SIMILAR)


def full_name(name: str) -> str:
    """The name of a model with a short name on the hub; any other name as it is. Says so in the log."""
    found = look_up(name)
    if found is None:
        if (close := near(name)) and files.directory(name) is None:
            logger.warning("%s is no short name of a model; did you mean %s?", printable(name), " or ".join(close))
        return name
    short, known = found
    logger.info("%s is %s (licence: %s)", short, known.id, known.licence)
    return known.id


def with_full_name(parsed: Parsed) -> Parsed:
    """The flags with the model's name on the hub in place of a short one. Raises DownloadError."""
    model = parsed.config.model_id
    if model is None or (name := full_name(model)) == model:
        return parsed
    return replace(parsed, config=replace(parsed.config, model_id=name))

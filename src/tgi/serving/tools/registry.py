"""The format of a model's calls, found from its chat template.

Owns the order in which formats are looked for: a family whose marks another shares comes first.
"""

from __future__ import annotations

import re

from tgi.serving.tools.format import Format
from tgi.serving.tools.formats.command_r import COMMAND_R, COMMAND_R7B
from tgi.serving.tools.formats.deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from tgi.serving.tools.formats.gemma import FUNCTION_GEMMA, GEMMA3, GEMMA4
from tgi.serving.tools.formats.generic import GENERIC
from tgi.serving.tools.formats.glm import GLM4, GLM45
from tgi.serving.tools.formats.gpt_oss import HARMONY
from tgi.serving.tools.formats.granite import GRANITE
from tgi.serving.tools.formats.hermes import HERMES
from tgi.serving.tools.formats.kimi import KIMI_K2
from tgi.serving.tools.formats.llama import LLAMA3_JSON, LLAMA_PYTHONIC, LLAMA_TAGS
from tgi.serving.tools.formats.mistral import MISTRAL, MISTRAL_TEKKEN
from tgi.serving.tools.formats.phi4_mini import PHI4_MINI
from tgi.serving.tools.formats.qwen3_coder import QWEN3_CODER

FORMATS = (
    HARMONY, KIMI_K2, DEEPSEEK_V3, DEEPSEEK_V31, QWEN3_CODER, GLM45, FUNCTION_GEMMA, GEMMA4, MISTRAL_TEKKEN, MISTRAL,
    COMMAND_R7B, PHI4_MINI, GRANITE, HERMES, COMMAND_R, LLAMA_PYTHONIC, LLAMA3_JSON, LLAMA_TAGS, GLM4, GEMMA3, GENERIC,
)  # fmt: skip
NAMES = tuple(format.name for format in FORMATS)
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TOOLS = re.compile(r"\{[{%][^%}]*\btools\b")


def by_name(name: str) -> Format:
    """Raises KeyError."""
    return {format.name: format for format in FORMATS}[name]


def knows_tools(source: str) -> bool:
    """Whether a template does anything with tools."""
    return _TOOLS.search(_COMMENT.sub("", source)) is not None


def of_template(source: str) -> Format:
    """The format of the family whose marks a template has; the generic one if it has none."""
    return next((format for format in FORMATS if format.knows(source)), GENERIC)

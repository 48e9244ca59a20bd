"""Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4 and many more: an object between `<tool_call>` tags."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.objects import Objects

HERMES = Format(
    "hermes", Objects(begin=("<tool_call>",), end="</tool_call>", around=("\n", "\n")), mentions("<tool_call>")
)

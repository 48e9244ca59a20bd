"""Qwen3-Coder: a function and its parameters in tags, without JSON."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.tagged import Tagged

QWEN3_CODER = Format(
    "qwen3_coder",
    Tagged(
        opens="<tool_call>",
        begin="<function=",
        name_end=">",
        key="<parameter=",
        key_end=">",
        value_end="</parameter>",
        end="</function>",
        closes="</tool_call>",
    ),
    mentions("<function=", "<parameter="),
)

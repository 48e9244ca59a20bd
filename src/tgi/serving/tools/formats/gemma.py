"""Gemma: FunctionGemma and Gemma 4 with bare keys between tokens, Gemma 3 as Python in a code block."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.keyed import Keyed
from tgi.serving.tools.shapes.pythonic import Pythonic

FUNCTION_GEMMA = Format(
    "function_gemma",
    Keyed(begin="<start_function_call>call:", end="<end_function_call>", quotes=("<escape>", "<escape>")),
    mentions("<start_function_call>"),
)
GEMMA4 = Format(
    "gemma4", Keyed(begin="<|tool_call>call:", end="<tool_call|>", quotes=('<|"|>', '<|"|>')), mentions("<|tool_call>")
)
GEMMA3 = Format("gemma3", Pythonic(begin="```tool_code\n", end="\n```", brackets=("", "")), mentions("```tool_code"))

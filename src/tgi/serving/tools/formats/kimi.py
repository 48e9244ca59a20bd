"""Kimi K2: a section of calls whose ids are `functions.name:number`."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.named import Named


def _parts(written: str) -> tuple[str, str | None]:
    name = written.removeprefix("functions.")
    head, colon, number = name.rpartition(":")
    return (head, f"functions.{name}") if colon and number.isdecimal() else (name, None)


KIMI_K2 = Format(
    "kimi_k2",
    Named(
        opens="<|tool_calls_section_begin|>",
        begin="<|tool_call_begin|>",
        before_name="functions.",
        after_name=":[0-9]{1,3}",
        between=("<|tool_call_argument_begin|>",),
        end="<|tool_call_end|>",
        closes="<|tool_calls_section_end|>",
        parts=_parts,
    ),
    mentions("<|tool_calls_section_begin|>"),
)

"""DeepSeek V3 and R1, with arguments in a code block, and V3.1, without."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.named import Named

_OPENS, _CLOSES = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def _parts(written: str) -> tuple[str, str | None]:
    return written.removeprefix("function").removeprefix(_SEPARATOR).strip(), None


DEEPSEEK_V3 = Format(
    "deepseek_v3",
    Named(
        opens=_OPENS,
        begin=_BEGIN,
        before_name=f"function{_SEPARATOR}",
        between=("\n```json\n",),
        end=f"\n```{_END}",
        separator="\n",
        closes=_CLOSES,
        parts=_parts,
        further=(_SEPARATOR, _END),
    ),
    mentions(_OPENS, "```json"),
)
DEEPSEEK_V31 = Format(
    "deepseek_v31",
    Named(opens=_OPENS, begin=_BEGIN, between=(_SEPARATOR,), end=_END, closes=_CLOSES),
    mentions(_OPENS),
)

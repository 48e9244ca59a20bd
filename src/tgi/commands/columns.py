"""Tables of the commands that list things: plain columns, which other programs can cut, with a head."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

GAP = "  "


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """The rows under the head, one a line. `right`: numbers of the columns whose cells end at the same place."""
    table = [head, *rows]
    widths = [max(_width(row[column]) for row in table) for column in range(len(head))]
    lines = []
    for row in table:
        cells = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(text))
            cells.append(space + text if column in right else text + space)
        lines.append(GAP.join(cells).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """An amount of time for people, in its largest unit: 42 seconds, 3 hours."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{int(seconds)} second{'' if int(seconds) == 1 else 's'}"


def _width(text: str) -> int:
    """Columns of a terminal; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)

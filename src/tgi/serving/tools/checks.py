"""What tools must be, whichever dialect brought them.

Owns their number, names and texts. Whether a schema is one is said by `schema_check`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tgi.errors import ToolError
from tgi.serving.chat.conversation import Tool
from tgi.serving.tools.schema_check import Nodes, problem

MOST_TOOLS = 512
LONGEST_DESCRIPTION = 100_000
"""Characters."""
_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)


def check_tool_count(given: int) -> None:
    """Raises ToolError, before anybody looks at them."""
    if given > MOST_TOOLS:
        raise ToolError(f"`tools` may have up to {MOST_TOOLS} tools. Given: {given}", param="tools")


def check_tools(tools: Sequence[Tool]) -> None:
    """Raises ToolError that names the first that cannot be."""
    check_tool_count(len(tools))
    nodes, names = Nodes(), set()
    for number, tool in enumerate(tools):
        place = tool.place or f"tools.{number}"
        if not _NAME.fullmatch(tool.name):
            raise ToolError(
                f"`{place}`: a name must be 1 to 128 letters, digits or any of _.:/-, it is {tool.name[:64]!r}",
                param=place,
            )
        if tool.name in names:
            raise ToolError(f"`{place}`: there are two tools of the name {tool.name!r}", param=place)
        names.add(tool.name)
        if len(tool.description or "") > LONGEST_DESCRIPTION:
            raise ToolError(f"`{place}`: a description may have up to {LONGEST_DESCRIPTION} characters", param=place)
        _check_schema(tool, place, nodes)


def _check_schema(tool: Tool, place: str, nodes: Nodes) -> None:
    if tool.parameters is None:
        return
    where = f"{place}{tool.schema_at}"
    wrong = problem(tool.parameters, nodes)
    if wrong is None and tool.parameters.get("type", "object") != "object":
        wrong = '`type` must be "object", since arguments are one'
    if wrong is not None:
        raise ToolError(f"`{where}`: {wrong}", param=where)

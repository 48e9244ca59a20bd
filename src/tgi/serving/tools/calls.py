"""The calls of one answer while it is read: their numbers, ids and names.

Owns that every call has arguments (`{}` where the model wrote none). Knows no format.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.parts import CallArguments, CallBegin
from tgi.serving.chat.scanner import Scanner


def openai_id(_: int) -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class Calls:
    """Writes calls into the parts of a scanner."""

    def __init__(
        self,
        scan: Scanner,
        tools: Sequence[Tool],
        new_id: Callable[[int], str] | None = None,
        *,
        single: bool = False,
    ) -> None:
        """`single`: calls after the first are left out (`parallel_tool_calls` false)."""
        self._scan = scan
        self._tools = {tool.name: tool for tool in tools}
        self._new_id = new_id or openai_id
        self._index = -1
        self._single = single
        self._silent = False
        """Nothing of the current call's arguments has come."""

    @property
    def any(self) -> bool:
        return self._index >= 0

    def offered(self, name: str) -> bool:
        return name in self._tools

    def begins_name(self, text: str) -> bool:
        """Whether a tool's name begins so."""
        return any(name.startswith(text) for name in self._tools)

    def properties(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's arguments, by name."""
        tool = self._tools.get(name)
        found = (tool.parameters or {}).get("properties") if tool else None
        return found if isinstance(found, Mapping) else {}

    @property
    def _hidden(self) -> bool:
        return self._single and self._index > 0

    def begin(self, name: str, id: str | None = None) -> None:
        self._scan.drop_space()
        self._scan.called = True
        self._index += 1
        self._silent = True
        if not self._hidden:
            self._scan.parts.append(CallBegin(self._index, id or self._new_id(self._index), name))

    def arguments(self, text: str) -> None:
        if text:
            self._silent = False
            if self._hidden:
                return
            self._scan.parts.append(CallArguments(self._index, text))

    def end(self) -> None:
        """The call is whole."""
        if self._silent:
            self.arguments("{}")

"""gpt-oss: every message has a channel and perhaps a recipient, a call is a message to a function."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, sequence

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
_RECIPIENT = re.compile(r"\bto=functions\.([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
LONGEST_HEADER = 1_000


@dataclass(frozen=True, slots=True)
class Channels:
    """Reads calls and reasoning alike, since both are messages."""

    @property
    def trigger(self) -> str | None:
        return None

    @property
    def opening(self) -> str:
        return ""

    @property
    def heading(self) -> str:
        return f"{CHANNEL}final{MESSAGE}"

    @property
    def markers(self) -> Sequence[str]:
        return [START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS]

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        """One call: the format has no more in a turn."""
        calls = []
        for number, tool in enumerate(tools):
            head = rules.literal(f"commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}")
            arguments = rules.add(f"arguments_{number}", rules.arguments(tool))
            calls.append(rules.add(f"call_{number}", sequence(head, arguments)))
        return sequence(rules.literal(CHANNEL), any_of(calls))

    def read(self, scan: Scanner, calls: Calls) -> Script:
        while True:
            found = yield from scan.until([START, CHANNEL, *ENDS], scan.say)
            if found is None:
                return
            if found not in ENDS:
                yield from self._message(scan, calls, found)

    def _message(self, scan: Scanner, calls: Calls, begun: str) -> Script:
        header: list[str] = [begun]
        scan.reasons = True
        marks = [MESSAGE, *ENDS]
        if (yield from scan.until(marks, header.append)) != MESSAGE:
            scan.reasons = False
            return
        head = "".join(header)
        recipient, channel = _RECIPIENT.search(head), _CHANNEL.search(head)
        ends = [*ENDS, START, CHANNEL]
        scan.reasons = False
        scan.drop_space()
        if recipient is not None:
            calls.begin(recipient[1])
            found = yield from scan.until(ends, calls.arguments)
            calls.end()
            _put_back(scan, found)
        elif channel is not None and channel[1] == "analysis":
            scan.reasons = True
            found = yield from scan.until(ends, scan.think)
            scan.reasons = False
            scan.drop_space()
            _put_back(scan, found)
        else:
            found = yield from scan.until(ends, scan.say)
            _put_back(scan, found)


def _put_back(scan: Scanner, found: str | None) -> None:
    """A message may end where the next begins."""
    if found in (START, CHANNEL):
        scan.put_back(found)

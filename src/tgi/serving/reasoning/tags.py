"""Reasoning between two tags at the beginning of an answer, whose first may be the end of the prompt."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tgi.serving.chat.scanner import Scanner, Script


@dataclass(frozen=True, slots=True)
class Tags:
    """A family's tags."""

    open: str
    close: str

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.open, self.close)

    def begun(self, prompt: str, continued: bool) -> bool:
        """Whether the prompt ends in reasoning: with the opening tag, or if an answer is continued, after it."""
        place = prompt.rfind(self.open)
        if place < 0 or place < prompt.rfind(self.close):
            return False
        return continued or not prompt[place + len(self.open) :].strip()

    def read(self, scan: Scanner, begun: bool) -> Script:
        """The script of the reasoning, if there is any; what follows is the answer."""
        if not begun:
            scan.record("")
            yield from scan.space()
            if not (yield from scan.take(self.open)):
                scan.put_back(scan.give_back())
                return
            scan.forget()
        scan.reasons = True
        yield from scan.space()
        yield from scan.until([self.close], scan.think)
        scan.reasons = False
        scan.drop_space()
        yield from scan.space()


TAGS = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|channel>thought", "<channel|>"),
    Tags("◁think▷", "◁/think▷"),
    Tags("<thought>", "</thought>"),
)


def find_tags(source: str, tokens: Collection[str]) -> Tags | None:
    """The tags of a model: those that its chat template names, else those that are tokens of its vocabulary."""
    named = next((tags for tags in TAGS if tags.close in source), None)
    return named or next((tags for tags in TAGS if tags.open in tokens and tags.close in tokens), None)

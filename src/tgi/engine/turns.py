"""Whose prompt a step computes next: a fair part for every group, in it short before long, and nobody last for ever.

Owns the accounts of who got how many prompt tokens. Two rules:

- Groups (API keys) share a step's prompt tokens equally; what one does not want goes to the others.
- Within a group the prompt with the fewest tokens left goes first: so the sum of all waits is the least. But a
  quarter of the tokens goes to the one that has waited longest, so that short ones cannot overtake it for ever.

Who gets a place in the batch is decided by `places`, how many tokens a step has by `pace`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from tgi.engine.pace import CHUNK_QUANTUM
from tgi.engine.sequence import Sequence

ELDEST_PART = 4
"""One prompt token in this many of a group goes to the prompt that has waited longest."""


@dataclass(slots=True)
class Account:
    """What a group got while it had prompts to compute."""

    served: int
    """Prompt tokens, counted from those of the least served group when this one came."""
    new: bool = True
    eldest: int = -1
    """The `order` of the sequence that has waited longest."""
    owed: float = 0.0
    """Tokens that the eldest is behind its part."""


class Turns:
    """The order of prompts in one step after the other."""

    def __init__(self) -> None:
        self._accounts: dict[int, Account] = {}

    def order(self, prompts: Iterable[Sequence], room: int) -> Generator[Turn, None, None]:
        """Who is to be computed, in order, each once; set `Turn.taken` to what it got before asking for the next.

        prompts: all that have more than a token to compute and could have a place in the batch.
        room: about how many tokens the step has for them.
        """
        lines: dict[int, list[Sequence]] = {}
        for sequence in prompts:
            lines.setdefault(sequence.group, []).append(sequence)
        self._open(lines)
        demands = {group: sum(map(remaining, line)) for group, line in lines.items()}
        for group in sorted(lines, key=lambda group: (self._accounts[group].served, not self._accounts[group].new)):
            demand = demands.pop(group)
            part = max(fair_part(room, demand, list(demands.values())), CHUNK_QUANTUM) if demands else room
            taken = yield from self._line(self._accounts[group], lines[group], demand, part, bool(demands))
            room = max(room - taken, 0)

    def _open(self, lines: dict[int, list[Sequence]]) -> None:
        """Groups without prompts are forgotten; who comes back is level with the least served, and before it."""
        present = {group: account for group, account in self._accounts.items() if group in lines}
        level = min((account.served for account in present.values()), default=0)
        self._accounts = {group: present.get(group) or Account(level) for group in lines}

    def _line(
        self, account: Account, line: list[Sequence], demand: int, part: int, shared: bool
    ) -> Generator[Turn, None, int]:
        """The turns of one group; gives the tokens they took. `shared`: other groups want tokens, too."""
        line.sort(key=_urgency)
        eldest = min(line, key=lambda sequence: sequence.order)
        if account.eldest != eldest.order:
            account.eldest, account.owed = eldest.order, 0.0
        given: list[Turn] = []
        try:
            if account.owed > 0 and line[0] is not eldest:
                line.remove(eldest)
                owed = -(-int(account.owed + 1) // CHUNK_QUANTUM) * CHUNK_QUANTUM
                given.append(Turn(eldest, max(owed, part - (demand - remaining(eldest)))))
                yield given[-1]
            left = part
            for sequence in line:
                left -= given[-1].taken if given else 0
                if left <= 0 and shared:
                    break
                given.append(Turn(sequence, left if shared else None))
                yield given[-1]
        finally:  # also where the step has no more to give, and nobody asks for the next
            taken = sum(turn.taken for turn in given)
            of_eldest = sum(turn.taken for turn in given if turn.sequence is eldest)
            account.owed = max(account.owed + (taken - of_eldest) / (ELDEST_PART - 1) - of_eldest, 0.0)
            account.served += taken
            account.new = account.new and not taken
        return taken


@dataclass(slots=True)
class Turn:
    """One sequence's chance in a step."""

    sequence: Sequence
    limit: int | None
    """Most tokens to take; None: what there is."""
    taken: int = 0
    """What it got: set by who gives it."""


def remaining(sequence: Sequence) -> int:
    """Tokens to compute, if the prefix cache has none of them."""
    return sequence.num_uncomputed


def _urgency(sequence: Sequence) -> tuple[int, int]:
    """Least first: who was there before, in order of arrival, then the shortest."""
    return (-1, sequence.order) if sequence.ahead else (remaining(sequence), sequence.order)


def fair_part(room: int, demand: int, others: list[int]) -> int:
    """How much of `room` is for one who wants `demand` beside others: equal parts, but no more than wanted."""
    wanting = len(others) + 1
    for other in sorted(others):
        if other * wanting >= room:
            break
        room -= other
        wanting -= 1
    return min(demand, -(-room // wanting))

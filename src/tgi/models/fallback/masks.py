"""Which keys a row sees, as transformers' mask functions say it: positions in, yes or no out.

Our own mask function builds no mask. It looks at what the model's function allows and hands on a stand-in that carries
the rule, so that the attention over the paged cache can follow it for each sequence by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Allows = Callable[[Any, Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""Batch, head, query position, key position -> whether the query sees the key."""


class UnhonouredError(Exception):
    """The model asks attention for something that ours does not do; the message names it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """All keys up to the row's own, the last `window` of them, or what `allows` says."""

    window: int | None = None
    allows: Allows | None = None

    def visible(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """[queries, keys] bool for positions of both."""
        if self.allows is not None:
            return _ask(self.allows, queries[:, None], keys[None, :])
        seen = keys[None, :] <= queries[:, None]
        return seen if self.window is None else seen & (keys[None, :] > queries[:, None] - self.window)


class Masks:
    """Stands in for the mask functions of one model."""

    def __init__(self, max_positions: int) -> None:
        self._last = max(max_positions, 2) - 1
        self._rules: list[Rule] = []
        self._calls = 0

    def restart(self) -> None:
        """A forward pass begins: it asks for the same masks in the same order as each before."""
        self._calls = 0

    def __call__(self, *, q_length: int, kv_length: int, mask_function: Allows, device: Any = None, **_: Any) -> Any:
        """A tensor [1, 1, queries, keys] without memory, that carries the rule."""
        if self._calls == len(self._rules):
            self._rules.append(self._find(mask_function, device))
        stand_in = torch.zeros((), dtype=torch.bool, device=device).expand(1, 1, q_length, kv_length)
        stand_in.rule = self._rules[self._calls]  # type: ignore[attr-defined]
        self._calls += 1
        return stand_in

    def _find(self, allows: Allows, device: Any) -> Rule:
        """The rule of a function, by asking it about all keys of a few rows, near and far."""
        window: int | None = None
        rows = sorted({0, 1, 2, 3, 7, 16, 17, self._last // 2, self._last})
        counts = []
        for row in rows:
            keys = torch.arange(row + 2, device=device)
            seen = _ask(allows, torch.full_like(keys, row), keys)
            if bool(seen[-1]):
                raise UnhonouredError("a mask that shows rows the tokens after them")
            count = int(seen.sum())
            if count == 0 or not bool(seen[row + 1 - count : row + 1].all()):
                return Rule(allows=allows)
            counts.append(count)
            if count <= row:
                window = count if window is None else window
        expected = [min(row + 1, window or row + 1) for row in rows]
        return Rule(window) if counts == expected else Rule(allows=allows)


def _ask(allows: Allows, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros((), dtype=torch.int64, device=keys.device)
    try:
        return torch.broadcast_to(allows(zero, zero, queries, keys), torch.broadcast_shapes(queries.shape, keys.shape))
    except UnhonouredError:
        raise
    except Exception as error:
        raise UnhonouredError(f"a mask that cannot be asked about positions ({type(error).__name__})") from error

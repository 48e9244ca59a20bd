"""A module of transformers as a body, which gives hidden states, and a head, which makes logits of some of them.

The head is the class's own code, run over a stand-in for its body: whatever it does to hidden states and logits is
done. A class that cannot be taken apart gives logits of all rows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from tgi.models.fallback.source import CACHE_NAMES, accepts


class Divided:
    """One model, whole or in two."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.split = False
        body = getattr(model, model.base_model_prefix, None) if model.base_model_prefix else None
        if body is not None and body is not model:
            self._body: Any = body
            self.split = self._divides()
        if not self.split:
            self._body = model
        self._takes_positions = accepts(self._body.forward, "position_ids")
        names = [name for name in CACHE_NAMES if accepts(self._body.forward, name)]
        self._cache_name = names[0] if names else None

    def body(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        *,
        mask: torch.Tensor | None = None,
        cache: Any = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """ids [batch, tokens] -> hidden states, or logits where it is not split, [batch, tokens, n]; and the cache."""
        arguments: dict[str, Any] = {"input_ids": ids, "use_cache": use_cache}
        if positions is not None and self._takes_positions:
            arguments["position_ids"] = positions
        if mask is not None:
            arguments["attention_mask"] = mask
        if cache is not None:
            arguments[self._cache_name or CACHE_NAMES[0]] = cache
        answer = self._body(**arguments)
        kept = next((found for name in CACHE_NAMES if (found := getattr(answer, name, None)) is not None), None)
        return answer.last_hidden_state if self.split else answer.logits, kept

    def head(self, rows: torch.Tensor) -> torch.Tensor:
        """What `body` gives of some rows [rows, n] -> logits [rows, vocabulary] float32."""
        if not self.split:
            return rows.float()
        with self._stand_in(rows):
            ids = torch.zeros((1, len(rows)), dtype=torch.int64, device=rows.device)
            return self.model(input_ids=ids, use_cache=False).logits[0].float()

    def _divides(self) -> bool:
        """Whether body and head together are the model, on a few tokens."""
        ids = torch.arange(5, device=self.model.device)[None]
        self._takes_positions, self._cache_name = False, None
        try:
            whole = self.model(input_ids=ids, use_cache=False).logits
            self._answer = type(self._body(input_ids=ids, use_cache=False))
            self.split = True
            return torch.equal(self.head(self.body(ids)[0][0]), whole[0].float())
        except Exception:
            return False
        finally:
            self.split = False

    @contextlib.contextmanager
    def _stand_in(self, rows: torch.Tensor) -> Iterator[None]:
        name = self.model.base_model_prefix
        stand_in = _Given(self._answer(last_hidden_state=rows[None]))
        self.model._modules[name] = stand_in
        try:
            yield
        finally:
            self.model._modules[name] = self._body


class _Given(torch.nn.Module):
    """Answers everything with the same."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._given = answer

    def forward(self, *_: Any, **__: Any) -> Any:
        return self._given

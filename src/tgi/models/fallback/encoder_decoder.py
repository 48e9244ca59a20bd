"""A module of transformers with an encoder: its encoder, and its decoder with the head as one body.

An encoder's results are padded before their first token, as decoders' caches are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from tgi.models.fallback.source import CACHE_NAMES, accepts

POSITIONS = ("decoder_position_ids", "position_ids")
"""What decoders call the positions of their tokens, where they may be told."""


class EncoderDecoder:
    """As `Divided`, of which it is the undivided case: its body gives logits."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._encoder = model.get_encoder()
        self._position_name = next((name for name in POSITIONS if accepts(model.forward, name)), None)
        self._cache_name = next((name for name in CACHE_NAMES if accepts(model.forward, name)), CACHE_NAMES[0])
        self._takes_mask = accepts(model.forward, "decoder_attention_mask")
        self._answer: Any = None

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [1, tokens] -> [1, tokens, n]"""
        answer = self._encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        self._answer = type(answer)
        return answer.last_hidden_state

    def body(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        *,
        encoded: torch.Tensor,
        encoder_mask: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: Any = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """ids [batch, tokens] of the decoder -> logits [batch, tokens, vocabulary], and the cache."""
        arguments: dict[str, Any] = {
            "decoder_input_ids": ids,
            "encoder_outputs": self._answer(last_hidden_state=encoded),
            "attention_mask": encoder_mask,
            "use_cache": use_cache,
        }
        if positions is not None and self._position_name is not None:
            arguments[self._position_name] = positions
        if mask is not None and self._takes_mask:
            arguments["decoder_attention_mask"] = mask
        if cache is not None:
            arguments[self._cache_name] = cache
        answer = self.model(**arguments)
        kept = next((found for name in CACHE_NAMES if (found := getattr(answer, name, None)) is not None), None)
        return answer.logits, kept

    def head(self, rows: torch.Tensor) -> torch.Tensor:
        """The logits that `body` gave, in float32."""
        return rows.float()


def padded(encoded: Sequence[torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """What the body reads of several inputs, each [1, tokens, n]; nothing without an encoder."""
    given = [one for one in encoded if one is not None]
    if not given:
        return {}
    longest = max(one.shape[1] for one in given)
    mask = torch.zeros((len(given), longest), dtype=torch.int64, device=given[0].device)
    for row, one in enumerate(given):
        mask[row, longest - one.shape[1] :] = 1
    rows = [F.pad(one, (0, 0, longest - one.shape[1], 0)) for one in given]
    return {"encoded": torch.cat(rows), "encoder_mask": mask}

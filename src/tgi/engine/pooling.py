"""Hidden states of a text -> one vector, chunk by chunk and with the same bits however the text was cut.

Rows are added one after another in float64, on the CPU: a sum that is halved like torch's would depend on the chunks.
What a chunk leaves for the next goes back to the scheduler (`plan.Pool`), so that a step can be run again and any rank
can run it.
"""

from __future__ import annotations

import numpy as np
import torch

from tgi.engine.plan import Pool

NOT_FINITE = "the model computes no numbers for this text (NaN or infinite hidden states)"
ROWS_AT_ONCE = 128
"""That exist in float64: memory does not grow with the chunk."""
SHORTEST = 1e-12
"""A vector shorter than that is no direction; it is divided by this, as sentence-transformers does."""


def pool(rows: torch.Tensor, part: Pool) -> bytes | None:
    """rows [tokens, hidden size]: a chunk's. Gives the vector in float32 where it is the last, else what to go on with.

    None: there is a NaN or an infinity in it.
    """
    total = np.frombuffer(part.before, np.float64) if part.before else None
    if part.kind == "mean":
        total = _add(total, rows)
    elif part.kind == "cls" and total is None:
        total = _numbers(rows[:1])[0]
    elif part.kind == "last" and part.ends:
        total = _numbers(rows[-1:])[0]
    if total is None:
        return b""  # of the first rows nothing is needed
    if not np.isfinite(total).all():
        return None
    return _finish(total, part) if part.ends else total.tobytes()


def _add(total: np.ndarray | None, rows: torch.Tensor) -> np.ndarray:
    """total [hidden size] + rows, in their order."""
    found = np.zeros(rows.shape[1]) if total is None else total
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = _numbers(rows[first : first + ROWS_AT_ONCE])
        found = np.add.reduce(np.concatenate([found[None], some]), axis=0)  # along this axis one after another
    return found


def _numbers(rows: torch.Tensor) -> np.ndarray:
    return rows.to("cpu", torch.float64).numpy()


def _finish(total: np.ndarray, part: Pool) -> bytes:
    vector = total / part.count if part.kind == "mean" else total
    if part.dimensions:
        vector = vector[: part.dimensions]
    if part.normalised:
        vector = vector / max(float(np.sqrt(np.sum(vector * vector))), SHORTEST)
    return vector.astype("<f4").tobytes()

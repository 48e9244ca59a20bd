"""Between the matrices of a program and the modules of a checkpoint."""

from __future__ import annotations

import torch

from tgi.errors import ModelError
from tgi.kernels.weight import Weight
from tgi.models.loader import Opened


def refuse_quantised(it: Opened) -> None:
    """Raise ModelError for a checkpoint that is in codes already."""
    if it.said is not None:
        raise ModelError(
            f"the checkpoint is quantised as {it.said.shown} by {it.said.where}: name the original, unquantised one"
        )


def rows_by_module(weight: Weight) -> dict[str, torch.Tensor]:
    """Module -> the row of the matrix [rows of the module] that each of its own is."""
    found: dict[str, dict[int, int]] = {}
    for stored in weight.stored_rows():
        rows = found.setdefault(stored.name, {})
        for number in range(stored.count):
            rows[stored.stored + number * stored.step] = stored.first + number
    return {name: torch.tensor([rows[place] for place in range(len(rows))]) for name, rows in found.items()}


def stored_weights(it: Opened, weight: Weight) -> set[str]:
    """The tensors, by their names in the files, that hold a matrix."""
    names = (it.source.stored_name(weight.tensor(name)) for name in weight.names)
    return {name for name in names if name is not None}


def stored_module(it: Opened, weight: Weight, name: str) -> str:
    """What module `name` of a matrix is called in the files."""
    stored = it.source.stored_name(weight.tensor(name))
    return name if stored is None else stored.removesuffix(weight.suffixes[0])

"""How a checkpoint is quantised, told without reading a weight. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgi.models.weight_files import tensor_shapes
from tgi.quant.checkpoint import Stored, read_stored


def stored_of(path: Path, config: Mapping[str, Any]) -> Stored | None:
    """By config.json, the files beside it or else the tensors of the first file; None: plain. Raises ModelError."""
    return read_stored(path, config, lambda: tensor_shapes(path))

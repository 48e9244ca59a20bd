"""The architecture document names real code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"
HOP = re.compile(r"^\| (\d+) \| .* \| `(tgi[\w.]+):([\w.]+)` \|$", re.MULTILINE)


def test_every_hop_names_a_file_and_a_function():
    hops = HOP.findall(DOCUMENT.read_text())
    request, model = list(range(1, 13)), list(range(1, 7))
    assert [int(number) for number, _, _ in hops] == [*request, *model]
    for _, module, name in hops:
        target = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
        assert callable(target), f"{module}:{name}"


def test_every_path_exists():
    root = DOCUMENT.parents[1]
    for path in re.findall(
        r"`((?:src/tgi|models|engine|kernels|quant|memory|docs)/[\w./]+\.py)`", DOCUMENT.read_text()
    ):
        assert (root / path).exists() or (root / "src/tgi" / path).exists(), path

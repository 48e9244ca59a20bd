"""The engine's start in words."""

from __future__ import annotations

import typing

import pytest

from tgi.launcher.engine_process import WAITS_FOR, waits_for
from tgi.messages import EngineLoading


@pytest.mark.parametrize(
    ("loading", "says"),
    [
        (None, "its process starts"),
        (EngineLoading("start"), "it loads its libraries"),
        (EngineLoading("load"), "it reads the weights"),
        (EngineLoading("load", 3 << 29, 3 << 30), "it has read 1.50 GiB of 3.00 GiB of weights"),
        (EngineLoading("allocate"), "it reserves the KV cache"),
        (EngineLoading("warmup"), "it computes a first step"),
    ],
)
def test_what_the_launcher_waits_for(loading: EngineLoading | None, says: str) -> None:
    assert waits_for(loading) == says


def test_every_phase_has_words() -> None:
    phases = typing.get_args(typing.get_type_hints(EngineLoading)["phase"])
    assert set(WAITS_FOR) == set(phases)

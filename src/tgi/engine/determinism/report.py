"""What a verification says, line by line as JSON: how far it is, what each check found, the whole.

Written by `main` in a process with torch, read by `launcher.verify` in one without. Imports no torch.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tgi.child_lines import Failed


class Started(msgspec.Struct, tag="started"):
    """A check begins."""

    name: str
    what: str


class Check(msgspec.Struct, tag="check"):
    """One way of computing the same requests, against each of them alone."""

    name: str
    what: str
    """The condition in words."""
    verdict: Literal["equal", "differs", "not run"]
    compared: int = 0
    """Rows of logits compared byte by byte, each with its token and log-probabilities."""
    different: int = 0
    """Rows from the first difference of a request to its end."""
    largest_difference: float = 0.0
    """Between two logits, in rows that have the same text before them."""
    detail: str = ""
    """How the condition was met, or why it was not, or where the first difference is."""
    seconds: float = 0.0


class Report(msgspec.Struct, tag="report"):
    """The whole, and `tgi verify-determinism --json`."""

    model_id: str
    model_type: str
    device: str
    dtype: str
    quantize: str | None
    activation_dtype: str | None
    """What quantised layers round activations to; None: there are none."""
    kv_cache_dtype: str | None
    kernels: dict[str, str]
    threads: int
    seed: int
    """Of the random prompts: --seed repeats them."""
    checks: list[Check] = []

    @property
    def passed(self) -> bool:
        """Nothing differed, and something was compared."""
        verdicts = {check.verdict for check in self.checks}
        return "equal" in verdicts and "differs" not in verdicts


Line = Started | Check | Report | Failed

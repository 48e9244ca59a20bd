"""The outline of a checkpoint for processes that do not import torch, asked of a short-lived one that does.

That reads config.json, and runs the checkpoint's own code only where it is trusted.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from tgi import children
from tgi.errors import ModelError
from tgi.kernels.outline import Outline

COMMAND = "tgi.models.fallback.print_outline"
TIMEOUT_S = 300.0


def ask(path: Path, *, trust_remote_code: bool) -> Outline:
    """The outline of a checkpoint directory, from a short-lived process. Raises ModelError."""
    command = children.python(COMMAND, str(path), *(["--trust-remote-code"] if trust_remote_code else []))
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"transformers needed more than {TIMEOUT_S:.0f} s to describe {path}") from error
    if result.returncode != 0:
        words = result.stderr.strip().rpartition("\n")[2] or f"exit status {result.returncode}"
        raise ModelError(words)
    return msgspec.json.decode(result.stdout.strip().rpartition("\n")[2], type=Outline)

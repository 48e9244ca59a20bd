"""`python -m tgi.models.making.main`, a `Job` as JSON on stdin: lines of `job` on stdout.

A process of its own, because it needs torch.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec
import torch

from tgi import logs
from tgi.child_lines import Failed
from tgi.child_lines import say as tell
from tgi.errors import StartupError
from tgi.models.making import calibrated, gguf, own
from tgi.models.making.job import ROUNDINGS, Job, Made, Progress
from tgi.models.making.report import Report, Say
from tgi.models.weight_files import in_directory

REPORT_S = 0.2
"""Seconds between two lines about the same."""


def main() -> int:
    """Exit status 0 when there is a checkpoint, 1 when a line has said why not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    logs.configure(job.log_level, json_output=job.json_output, stream=sys.stderr)
    torch.set_num_threads(job.threads)
    began = time.monotonic()
    try:
        report = make(job, _Progress())
    except StartupError as error:
        tell(Failed(str(error)))
        return 1
    except OSError as error:
        tell(Failed(f"the checkpoint cannot be written: {error.strerror or error}: {error.filename or job.target}"))
        return 1
    source = Path(job.source)
    original = sum((source / name).stat().st_size for name in in_directory(source).names)
    tell(Made(report.bytes, original, report.matrices, report.bits, time.monotonic() - began))
    return 0


def make(job: Job, say: Say) -> Report:
    """Do the job. Raises StartupError and OSError."""
    if job.gguf is not None:
        return gguf.make(job, say)
    return (own if job.method in ROUNDINGS else calibrated).make(job, say)


class _Progress:
    """Says the first, and then one in each fifth of a second."""

    def __init__(self) -> None:
        self._what, self._last = "", 0.0

    def __call__(self, done: float, total: float, what: str) -> None:
        now = time.monotonic()
        if what != self._what or now - self._last >= REPORT_S or done >= total:
            self._what, self._last = what, now
            tell(Progress(done, total, what))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tgi.engine.quality.main`, a `Task` as JSON on stdin: lines of `report` on stdout.

A process of its own for each format, because it needs torch, and so that each is measured in fresh memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import msgspec

from tgi import hardware, logs
from tgi.child_lines import Failed, say
from tgi.engine.quality.report import Part, Task
from tgi.errors import StartupError

REPORT_S = 0.2


def main() -> int:
    """Exit status 0 when the format was measured, 1 when a line has said why not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    logs.configure(task.engine.log_level, stream=sys.stderr)
    os.environ["OMP_NUM_THREADS"] = str(task.engine.threads or hardware.cpu_count())  # read once, when torch comes
    from tgi.engine.quality.measure import measure

    last = 0.0

    def hear(part: Part) -> None:
        nonlocal last
        now = time.monotonic()
        if part.done == 0 or now - last >= REPORT_S:
            last = now
            say(part)

    try:
        say(measure(task, hear))
    except StartupError as error:
        say(Failed(str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

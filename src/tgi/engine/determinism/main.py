"""`python -m tgi.engine.determinism.main --seed N`, an `EngineConfig` as JSON on stdin: lines of `report` on stdout.

A process of its own, because it needs torch. Started by `launcher.verify`.
"""

from __future__ import annotations

import argparse
import signal
import sys

import msgspec

from tgi import logs
from tgi.child_lines import Failed, say
from tgi.engine.determinism.checks import verify
from tgi.errors import StartupError
from tgi.settings.config import EngineConfig


def main() -> int:
    """Exit status 0 when all checks were made, whatever they found."""
    parser = argparse.ArgumentParser(description="Started by `tgi verify-determinism`, not by hand.")
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the launcher too, which says so
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineConfig)
    logs.configure(config.log_level, json_output=config.json_output, stream=sys.stderr)
    try:
        verify(config, arguments.seed, say)
    except StartupError as error:
        say(Failed(str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`tgi` as a chat starts it: it ends with the process that started it, however that one ends.

A chat that is killed cannot stop its server. The engine process looks after its own parent in the same way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

LOOK_S = 1.0
PATIENCE_S = 10.0
"""For a stop in good order, after which it is an end at once."""


def tie(parent: int) -> None:
    """Stop this process when `parent` is no longer its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    tie(int(sys.argv.pop(1)))
    from tgi.commands.entry import main

    sys.exit(main())

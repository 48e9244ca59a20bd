"""A server that does not outlive the replica that started it: `python -m tgi.ray.child PARENT -- flags of tgi serve`.

The kernel ends this process when its parent is gone, however that went; the server's engine sees the same of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from tgi import children

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, _, *flags = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the replica that this server belongs to is gone")
    children.become("tgi", "serve", *flags)


if __name__ == "__main__":
    main()

"""`text-generation-launcher` with a scripted engine in place of the real one.

The variable SLOW_LOAD makes reading the tokenizer last so many seconds.
"""

import functools
import os
import sys
import time

from tgi.commands import cli
from tgi.launcher import supervisor
from tgi.serving.service import Service

if __name__ == "__main__":
    supervisor.serve = functools.partial(supervisor.serve, engine_module="tests.e2e.scripted_engine")
    if seconds := os.environ.get("SLOW_LOAD"):
        Service.load = lambda *_: time.sleep(float(seconds))
    sys.exit(cli.launcher_main())

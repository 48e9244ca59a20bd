"""`text-generation-launcher` with a scripted engine in place of the real one."""

import functools
import sys

from tgi.launcher import cli, supervisor

if __name__ == "__main__":
    supervisor.serve = functools.partial(supervisor.serve, engine_module="tests.e2e.scripted_engine")
    sys.exit(cli.launcher_main())

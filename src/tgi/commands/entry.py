"""Where the commands of the package begin: with a quiet end for a Ctrl-C that comes while they are still imported.

Python's own answer to it is a traceback. Until `ending.command` handles signals the one of Ctrl-C is left to the
system, which ends this process as it ends any other.
"""

import signal

if (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):  # not where it is ignored, as in a script's background
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # now, before the imports that take their time


def main() -> int:
    """`tgi`."""
    from tgi.commands.cli import main as command

    return command()


def launcher_main() -> int:
    """`text-generation-launcher`."""
    from tgi.commands.cli import launcher_main as command

    return command()


def server_main() -> int:
    """`text-generation-server`."""
    from tgi.commands.cli import server_main as command

    return command()


def benchmark_main() -> int:
    """`text-generation-benchmark`."""
    from tgi.commands.cli import benchmark_main as command

    return command()

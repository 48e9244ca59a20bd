"""Text generation inference: a server with TGI's contract, and the same engine without one.

    from tgi import LLM, SamplingParams

Names are imported when first used, so that `import tgi` costs nothing and brings no torch.
"""

import sys


def _leave_directory_out() -> None:
    """For `python -m tgi`: take the directory it is started in, which may be a model's, off the import path.

    Python puts it there first. While it looks for the module, `sys.argv` starts with "-m" and has its other words
    from the end of `sys.orig_argv`.
    """
    if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
        name = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
        if name.partition(".")[0] == __name__:
            del sys.path[0]


_leave_directory_out()  # before the first import that could be a file of that directory

TYPE_CHECKING = False
if TYPE_CHECKING:  # and no import of typing, which takes longer than all else here
    from typing import Any

    from tgi.messages import Grammar
    from tgi.offline import LLM
    from tgi.offline_async import AsyncLLM
    from tgi.serving.types import SamplingParams

    __version__: str

__all__ = ["LLM", "AsyncLLM", "Grammar", "SamplingParams", "__version__"]

_WHERE = {
    "LLM": "tgi.offline",
    "AsyncLLM": "tgi.offline_async",
    "Grammar": "tgi.messages",
    "SamplingParams": "tgi.serving.types",
}


def __getattr__(name: str) -> "Any":
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'tgi' has no attribute {name!r}")


def _version() -> str:
    """As pip has it. Looked up when asked for: the library for it costs processes that need no version their start."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("text-generation-inference")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0.0.0"

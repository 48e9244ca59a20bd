"""Text generation inference: a server with TGI's contract, and the same engine without one.

    from tgi import LLM, SamplingParams

Names are imported when first used, so that `import tgi` costs nothing and brings no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tgi.offline import LLM
    from tgi.serving.types import SamplingParams

try:
    __version__ = version("text-generation-inference")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["LLM", "SamplingParams", "__version__"]

_WHERE = {"LLM": "tgi.offline", "SamplingParams": "tgi.serving.types"}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tgi' has no attribute {name!r}")

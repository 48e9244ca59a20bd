"""The garbage collector of a process that serves for long.

A full collection walks every object that start-up left behind, tens of milliseconds in the middle of
a token. Called once by each process when it is ready to serve.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

YOUNG_OBJECTS = 5_000
"""Between two collections of the young: python's 700 are reached within a few steps of many streams."""
COLLECTIONS = (5, 400)
"""Of the young before one that takes in those that have survived once, and of those before one of all: what one
request has made, a million objects at the most, is walked in parts that nobody notices."""


def settle() -> None:
    """Leave what exists now out of all later collections, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *COLLECTIONS)
    _give_back()


def _give_back() -> None:
    """Hand memory that loading has freed back to the system, where the C library can: tens of megabytes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collections meanwhile: imports make hundreds of thousands of objects and hardly any garbage.

    A fifth of the time that torch takes to be imported goes into walking them again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

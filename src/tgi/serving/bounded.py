"""Run someone else's code for a bounded time without stalling the event loop.

Chat templates come with models and can loop for ever; a thread cannot be killed, but an exception
can be raised in it. Called by `service`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class _Expired(BaseException):
    """Raised inside the thread; not an Exception, so that no handler of the function swallows it."""


async def run_bounded(function: Callable[[], Result], seconds: float) -> Result:
    """The function's result or exception, from a thread of its own.

    Raises TimeoutError after `seconds`, or CancelledError, and makes the thread end at its next
    Python instruction.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def deliver(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        with contextlib.suppress(_Expired):
            try:
                result, error = function(), None
            except Exception as raised:
                result, error = None, raised
            loop.call_soon_threadsafe(deliver, result, error)

    thread = threading.Thread(target=run, daemon=True, name="bounded")
    thread.start()
    try:
        return await asyncio.wait_for(future, seconds)
    finally:
        if thread.is_alive() and (future.cancelled() or not future.done()):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Expired))


def run_bounded_here(function: Callable[[], Result], seconds: float) -> Result:
    """The same for code outside of an event loop, which waits. Raises TimeoutError after `seconds`."""
    with ThreadPoolExecutor(1) as thread:  # the caller's own may have a loop
        return thread.submit(asyncio.run, run_bounded(function, seconds)).result()

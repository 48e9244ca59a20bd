"""Calls into the `tokenizers` library whose every failure is an Exception.

The library panics where a pattern of the tokenizer needs too many steps for a text, and for some
damaged files; a panic is a BaseException and would pass every `except Exception`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class TokenizerError(Exception):
    """The library cannot do this; the message is its own, in one line."""


def guarded(function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """The function's result. Raises TokenizerError for whatever the library raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise TokenizerError(_one_line(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # it cannot be imported
            raise
        raise TokenizerError(_one_line(error)) from None


@contextlib.contextmanager
def without_panics() -> Iterator[None]:
    """Within the block what this process writes to standard error is kept, and thrown away where the library fails.

    A panic writes its place in the library's source there before anybody can catch it. For the load of a tokenizer,
    while nothing else has much to say.
    """
    try:
        before = os.dup(2)
    except OSError:  # closed: nothing is written anywhere
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:
            kept.truncate(0)
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            os.write(2, kept.read())


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "retry-limit" in text:
        return "a pattern of the model's tokenizer needs too many steps for it"
    return text if len(text) <= 300 else f"{text[:300]}..."

"""The API keys of a server: those on the command line and those in a file.

Owns the form of the file. What a key opens is `tgi.api.server.access`'s affair. Read before anything is logged, so
that no key gets into the log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tgi.errors import ArgumentError
from tgi.settings.parse import Parsed


def with_keys_of_file(parsed: Parsed) -> Parsed:
    """The flags with all keys in `api_key`, each once. Raises ArgumentError."""
    config = parsed.config
    keys = list(config.api_key)
    if config.api_key_file is not None:
        keys += read_keys(Path(config.api_key_file))
    if any(not key.strip() for key in keys):
        raise ArgumentError("`api_key` cannot be empty")
    return replace(parsed, config=replace(config, api_key=tuple(dict.fromkeys(keys))))


def read_keys(path: Path) -> list[str]:
    """A key a line; empty lines and those that begin with # do not count. Raises ArgumentError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ArgumentError(f"`api_key_file` {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArgumentError(f"`api_key_file` {path} is not a text file with a key a line") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ArgumentError(f"`api_key_file` {path} has no key in it: write one a line, or leave the flag out")
    return keys

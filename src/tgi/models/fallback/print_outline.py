"""Prints the outline of a checkpoint as JSON; `describe.ask` runs it, in a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tgi.errors import ModelError
from tgi.models.fallback.source import outline


def main() -> int:
    """Exit status 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(description="Describe a checkpoint that no family does.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trust-remote-code", action="store_true")
    arguments = parser.parse_args()
    try:
        found = outline(arguments.directory, trust_remote_code=arguments.trust_remote_code)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Write tokenizer.json for a checkpoint that has only another tokenizer format.

A short-lived command of its own, because it needs transformers and serving must not load that:

    python -m tgi.launcher.convert_tokenizer DIRECTORY

Run by `serving.tokenizer.ensure_fast_tokenizer`. Code of the checkpoint is never executed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def convert(directory: Path) -> Path:
    """Write `directory`/tokenizer.json, whole or not at all. Raises ValueError when there is no fast form."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast form")
    target = directory / "tokenizer.json"
    unfinished = target.with_suffix(".json.part")
    fast.save(str(unfinished))
    unfinished.replace(target)
    return target


def main() -> int:
    """Exit status 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(description="Write tokenizer.json for a checkpoint without one.")
    parser.add_argument("directory", type=Path)
    try:
        print(convert(parser.parse_args().directory))
    except Exception as error:  # whatever a foreign file makes the library raise
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Write tokenizer.json for a checkpoint that has only another tokenizer format.

A short-lived command of its own, because it needs transformers and serving must not load that:

    python -m tgi.hub.convert_tokenizer DIRECTORY

`ensure_fast_tokenizer` runs it. Code of the checkpoint is never executed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tgi import children
from tgi.errors import ModelError
from tgi.hub import piece_table, tekken
from tgi.json_files import read_json
from tgi.serving.special_tokens import ROLES
from tgi.serving.tokenizer import SLOW_FILES


def ensure_fast_tokenizer(model_path: str | Path, timeout: float = 600.0) -> Path:
    """Give the directory's tokenizer.json, converting another tokenizer format into it if need be.

    The conversion needs transformers, so it runs as a short-lived command. Raises ModelError.
    """
    file = Path(model_path) / "tokenizer.json"
    if file.is_file() or not any((Path(model_path) / name).is_file() for name in SLOW_FILES):
        return file
    command = children.python(__name__, str(model_path))
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"converting the tokenizer of {model_path} took more than {timeout:.0f} s") from error
    if result.returncode != 0 or not file.is_file():
        reason = result.stderr.strip().rpartition("\n")[2] or f"exit status {result.returncode}"
        raise ModelError(f"the tokenizer of {model_path} cannot be converted to tokenizer.json: {reason}")
    return file


def convert(directory: Path) -> Path:
    """Write `directory`/tokenizer.json, atomically. Raises ValueError when there is no fast form."""
    if (directory / tekken.FILE).is_file():
        fast, roles = tekken.convert(directory / tekken.FILE)
        texts = {"tokenizer.json": fast.to_str()}
    else:
        tokenizer = _load(directory)
        roles = {role: str(token) for role, token in tokenizer.special_tokens_map.items() if role in ROLES}
        fast = getattr(tokenizer, "backend_tokenizer", None)
        found = piece_table.texts_of(tokenizer) if fast is None else {"tokenizer.json": fast.to_str()}
        if found is None:
            raise ValueError(f"{type(tokenizer).__name__} has no fast form")
        texts = found
    if not (directory / "special_tokens_map.json").exists():  # classes know roles that no file tells
        texts = {"special_tokens_map.json": json.dumps(roles, ensure_ascii=False)} | texts
    for name, text in texts.items():  # tokenizer.json comes last: where it is, all is done
        unfinished = directory / f"{name}.part"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(directory / name)
    return directory / "tokenizer.json"


def _load(directory: Path) -> Any:
    """The tokenizer as transformers builds it; where that is the checkpoint's own class, its SentencePiece model."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    own = "auto_map" in read_json(directory / "tokenizer_config.json")
    if not own or not (directory / "tokenizer.model").is_file():
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)


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

"""The text that shows rounding what inputs the matrices of a model get: the bundled one, or a file of the user's."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tgi.errors import ModelError

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).with_name("calibration.txt")
BUNDLED_LONG = Path(__file__).with_name("calibration-long.txt")
"""Some 15,000 tokens of many kinds, written for this: for checkpoints that are made once."""
LONGEST = 512
"""Tokens that are used of a text: more change little, and each costs time at every start."""
FEWEST = 16
"""Fewer say nothing."""


def calibration_ids(model: Path, text: str | None, vocabulary: int) -> list[int]:
    """The first tokens of a text as the model reads it.

    text: a file in UTF-8; None: the bundled one. vocabulary: rows of the embedding. Random tokens stand in for the
    bundled text where the model has no tokenizer.json, or none of its words. Raises ModelError for a file that cannot
    be read or holds too little.
    """
    tokenizer = model / "tokenizer.json"
    if tokenizer.is_file():
        ids = _tokens(tokenizer, _text(Path(text) if text is not None else BUNDLED), vocabulary)
        if len(ids) >= FEWEST:
            logger.info("Rounding is calibrated on %d tokens of %s", len(ids), text or "the bundled text")
            return ids
        if text is not None:
            raise ModelError(f"the calibration text {text} has {len(ids)} tokens; give one of at least {FEWEST}")
    elif text is not None:
        raise ModelError(f"{model} has no tokenizer.json to read the calibration text {text} with")
    logger.warning(
        "Rounding is calibrated on random tokens, and a little worse: the model has %s",
        "no words of the bundled text" if tokenizer.is_file() else "no tokenizer.json",
    )
    return torch.randint(vocabulary, (LONGEST // 2,), generator=torch.Generator().manual_seed(0)).tolist()


def calibration_texts(model: Path, text: str | None, vocabulary: int, tokens: int) -> list[list[int]]:
    """The first `tokens` tokens of a text in pieces of up to `LONGEST`, for work that takes its time.

    text: as in `calibration_ids`; None: the longer one of those that are bundled. Raises ModelError for a text that
    cannot be read or holds too little, and for a model without a tokenizer.json.
    """
    tokenizer, path = model / "tokenizer.json", Path(text) if text is not None else BUNDLED_LONG
    if not tokenizer.is_file():
        raise ModelError(f"{model} has no tokenizer.json to read the calibration text with")
    ids = _tokens(tokenizer, _text(path, tokens), vocabulary, tokens)
    pieces = [ids[begin : begin + LONGEST] for begin in range(0, len(ids), LONGEST)]
    pieces = [piece for piece in pieces if len(piece) >= FEWEST]
    if not pieces:
        raise ModelError(f"the calibration text {path.name} has {len(ids)} tokens; give one of some thousand")
    logger.info("Calibrating on %d tokens of %s", sum(map(len, pieces)), text or "the bundled text")
    return pieces


def _text(path: Path, tokens: int = LONGEST) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(tokens * 64)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the calibration text {path} cannot be read as UTF-8: {error}") from error


def _tokens(tokenizer: Path, text: str, vocabulary: int, most: int = LONGEST) -> list[int]:
    try:
        reader = Tokenizer.from_file(str(tokenizer))
        reader.no_truncation()
        reader.no_padding()
        ids = reader.encode(text).ids
    except Exception as error:  # the library has no class of its own for files it cannot read
        raise ModelError(f"{tokenizer} cannot be read: {error}") from error
    return [token for token in ids if token < vocabulary][:most]

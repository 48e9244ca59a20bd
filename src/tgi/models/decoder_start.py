"""What generation_config.json says of a model with an encoder: with which tokens answers begin, which never come, and
what this server does not do. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.models.config_reader import ConfigReader
from tgi.models.families.seq2seq import decoder_start, start_ids
from tgi.models.spec import ModelSpec

FILE = "generation_config.json"
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
}
"""Key -> values that ask for nothing."""


def decoder_ids(path: Path, spec: ModelSpec) -> tuple[int, ...]:
    """The start token, and the one that is forced to come first where there is such; empty without an encoder.

    As in transformers, config.json (`ModelSpec.decoder_start`) is asked for the forced token only where there is no
    generation_config.json. Raises ModelError.
    """
    return () if spec.encoder is None else _decoder_ids(path, spec.decoder_start, spec.vocab_size)


def decoder_ids_of_config(path: Path, config: dict[str, Any], vocab_size: int) -> tuple[int, ...]:
    """The same of a model with an encoder that no family describes."""
    given = read_json(path / FILE).get("decoder_start_token_id") if (path / FILE).exists() else None
    reader = ConfigReader(config if given is None else {**config, "decoder_start_token_id": given})
    return _decoder_ids(path, decoder_start(reader, None), vocab_size)


def _decoder_ids(path: Path, ids: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    if (path / FILE).exists():
        given = read_json(path / FILE)
        start = given.get("decoder_start_token_id")
        ids = start_ids(ids[0] if start is None else start, given.get("forced_bos_token_id"), FILE)
    if beyond := [id for id in ids if id >= vocab_size]:
        raise ModelError(f"The decoder would begin with token {beyond[0]}, the model has {vocab_size}: see {FILE}")
    return ids


def never_generated(path: Path) -> tuple[int, ...]:
    """Tokens that answers must not hold: single ones among `bad_words_ids`, such as the padding of Marian."""
    words = _generation(path).get("bad_words_ids")
    lists = [word for word in words if isinstance(word, list)] if isinstance(words, list) else []
    return tuple(word[0] for word in lists if len(word) == 1 and type(word[0]) is int and word[0] >= 0)


def not_done(path: Path) -> list[str]:
    """What is asked for and not done, as it stands there."""
    given = _generation(path)
    return [f"{key} = {given[key]}" for key, allowed in NOT_DONE.items() if given.get(key) not in allowed]


def _generation(path: Path) -> dict[str, Any]:
    """What transformers would generate with."""
    return read_json(path / (FILE if (path / FILE).exists() else "config.json"))

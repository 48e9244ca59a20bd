"""What the decoder of a model with an encoder begins with, by generation_config.json. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.models.families.seq2seq import start_ids
from tgi.models.spec import ModelSpec

FILE = "generation_config.json"


def decoder_ids(path: Path, spec: ModelSpec) -> tuple[int, ...]:
    """The start token, and the one that is forced to come first where there is such; empty without an encoder.

    As in transformers, config.json (`ModelSpec.decoder_start`) is asked for the forced token only where there is no
    generation_config.json. Raises ModelError.
    """
    if spec.encoder is None:
        return ()
    ids = spec.decoder_start
    if (path / FILE).exists():
        given = read_json(path / FILE)
        start = given.get("decoder_start_token_id")
        ids = start_ids(ids[0] if start is None else start, given.get("forced_bos_token_id"), FILE)
    if beyond := [id for id in ids if id >= spec.vocab_size]:
        raise ModelError(f"The decoder would begin with token {beyond[0]}, the model has {spec.vocab_size}: see {FILE}")
    return ids

"""The calibration text: which tokens a model sees of it, and what files are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tests.models.checkpoints import make_checkpoint
from tgi.errors import ModelError
from tgi.hub.prepare import demo_directory
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.select import select
from tgi.models.loader import LoadedModel, load_model
from tgi.quant.calibration import BUNDLED, LONGEST, calibration_ids

DEMO = demo_directory()
VOCABULARY = 1 << 20


def test_the_bundled_text_is_read_with_the_models_tokenizer() -> None:
    ids = calibration_ids(DEMO, None, VOCABULARY)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    assert ids == tokenizer.encode(BUNDLED.read_text(encoding="utf-8")).ids[:LONGEST]
    assert 200 < len(ids) <= LONGEST
    assert max(calibration_ids(DEMO, None, 50)) < 50, "tokens beyond the embedding are left out"


def test_a_file_of_the_users(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("Ein eigener Text, lang genug. " * 400, encoding="utf-8")
    ids = calibration_ids(DEMO, str(text), VOCABULARY)
    assert len(ids) == LONGEST and ids != calibration_ids(DEMO, None, VOCABULARY)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"\xff\xfe\x00" * 50, "cannot be read as UTF-8"), (b"Hi.", "tokens")],
)
def test_files_that_do_not_serve_are_refused(content: bytes | None, why: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(ModelError, match=why):
        calibration_ids(DEMO, str(text), VOCABULARY)


def test_without_a_tokenizer_random_tokens_stand_in(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        ids = calibration_ids(tmp_path, None, 300)
    assert "no tokenizer.json" in caplog.text and len(set(ids)) > 100 and max(ids) < 300
    assert ids == calibration_ids(tmp_path, None, 300)
    assert len(calibration_ids(DEMO, None, 2)) > 100, "a vocabulary in which the text has no words"
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        calibration_ids(tmp_path, str(BUNDLED), 300)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        calibration_ids(tmp_path, None, 300)


def weights_of(loaded: LoadedModel) -> list[torch.Tensor]:
    return [layer.rows(torch.arange(layer.out_features)) for layer in loaded.step._layers.values()]


def test_the_text_decides_what_weights_round_to(tmp_path: Path) -> None:
    """The same text gives the same bits whatever the number of threads; another text others."""
    make_checkpoint(tmp_path, "llama", vocab_size=384, tie_word_embeddings=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    text = tmp_path / "mine.txt"
    text.write_text("1 2 3 4 5 6 7 8 9 10 " * 30)

    def load(quantize: str, threads: int = 2, file: Path | None = None) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        backend = select(torch.device("cpu"), torch.bfloat16, threads=threads)
        if not isinstance(backend, NativeBackend):
            pytest.skip("the native kernels were not built")
        return weights_of(load_model(tmp_path, "bfloat16", backend, quantize=quantize, calibration=file and str(file)))

    def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return all(map(torch.equal, one, other))

    for quantize in ("int8", "int6", "int5", "int4"):
        first = load(quantize)
        assert same(first, load(quantize, threads=1))
        assert not same(first, load(quantize, file=text))

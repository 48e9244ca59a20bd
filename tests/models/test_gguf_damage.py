"""Damaged GGUF files: a sentence that says what is wrong, or what the file still says, and never anything else."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from tests.models.checkpoints import make_checkpoint
from tests.models.test_gguf import logits, write
from tgi.errors import DownloadError, ModelError
from tgi.hub.gguf import make_model
from tgi.models.gguf.file import GgufFile


@pytest.fixture(scope="module")
def bytes_of_a_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf")
    make_checkpoint(path / "source", "llama", hidden_size=64, intermediate_size=128)
    return write(path / "source", path / "model.gguf", "llama", "Q4_0").read_bytes()


def test_damaged_files_are_refused_in_a_sentence(bytes_of_a_file: bytes, tmp_path: Path) -> None:
    """Bytes changed at random, counts made huge, files cut: an error of ours, or a model that runs."""
    seed = random.SystemRandom().randrange(1 << 32)
    draw, file = random.Random(seed), tmp_path / "m.gguf"
    header = len(bytes_of_a_file) - sum(info.bytes for info in whole(bytes_of_a_file, file).tensors.values())
    refused = 0
    for trial in range(300):
        content = bytearray(bytes_of_a_file)
        if trial % 3 == 0:
            del content[draw.randrange(len(content)) :]
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(max(1, min(header, len(content)) - 8)) if content else 0
            if trial % 3 == 1:
                content[at : at + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, (1 << 40).to_bytes(8, "little")])
            elif content:
                content[at] = draw.randrange(256)
        file.unlink()
        file.write_bytes(content)
        try:
            logits(Path(make_model([file], "m", [tmp_path / "cache"]).path))
        except (ModelError, DownloadError) as error:
            assert "\n" not in str(error), f"seed {seed}, trial {trial}"
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, trial {trial}") from error
    assert refused > 150


def whole(content: bytes, file: Path) -> GgufFile:
    file.write_bytes(content)
    return GgufFile(file)


def field(number: int, size: int = 8) -> bytes:
    return number.to_bytes(size, "little")


def key(name: str, kind: int) -> bytes:
    return field(len(name)) + name.encode() + field(kind, 4)


VALUES, TENSORS = b"GGUF" + field(3, 4) + field(0), b"GGUF" + field(3, 4) + field(1) + field(0) + field(1) + b"t"
TWO_TENSORS = b"GGUF" + field(3, 4) + field(2) + field(0)
ONE_TENSOR = field(1) + b"t" + field(1, 4) + field(8) + field(0, 4) + field(0)
HEADERS = {
    "nothing": (b"", "shorter"),
    "something else": (b"GGML" + field(0) * 4, "does not begin"),
    "big-endian": (b"GGUF" + b"\0\0\0\3" + field(0) * 3, "big-endian"),
    "version 1": (b"GGUF" + field(1, 4) + field(0) * 3, "version 1"),
    "many tensors": (b"GGUF" + field(3, 4) + field(1 << 60) + field(0), "claims"),
    "many values": (VALUES + field(1 << 50), "claims"),
    "a long text": (VALUES + field(1) + key("a", 8) + field(1 << 62), "more bytes"),
    "arrays of arrays": (VALUES + field(1) + key("a", 9) + field(9, 4) + field(1) + field(9, 4), "array of type 9"),
    "a long array": (VALUES + field(1) + key("a", 9) + field(0, 4) + field(1 << 55), "claims"),
    "twice": (VALUES + field(2) + (key("a", 0) + b"\1") * 2, "twice"),
    "no type": (VALUES + field(1) + key("a", 99) + b"\1\1\1\1\1", "type 99"),
    "many dimensions": (TENSORS + field(99, 4) + field(8) * 4, "99 dimensions"),
    "unknown type": (TENSORS + field(1, 4) + field(8) + field(77, 4) + field(0), "type 77"),
    "beyond the end": (TENSORS + field(1, 4) + field(8) + field(0, 4) + field(1 << 40), "ends beyond"),
    "a tensor twice": (TWO_TENSORS + ONE_TENSOR * 2 + bytes(99), "twice"),
    "beside the grid": (TENSORS + field(1, 4) + field(8) + field(0, 4) + field(4) + bytes(256), "not aligned"),
    "no alignment": (VALUES + field(1) + key("general.alignment", 4) + field(0, 4), "alignment"),
    "no rows": (TENSORS + field(1, 4) + field(0) + field(0, 4) + field(0), "shape"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(name: str, tmp_path: Path) -> None:
    content, words = HEADERS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words) as caught:
            whole(content.ljust(24 if content else 0, b"\0"), tmp_path / "m.gguf")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20, "what is claimed is not allocated"
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)

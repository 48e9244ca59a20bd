"""Quantised checkpoints that are made here: they load, have the bits they should have, and go on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import FAMILIES, make_checkpoint
from tests.models.driver import Driver
from tests.models.tiny import write_tiny
from tgi.errors import ModelError
from tgi.hub.prepare import demo_directory
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.select import select
from tgi.models.loader import load_model
from tgi.models.making import main
from tgi.models.making.job import ROUNDINGS, Job
from tgi.models.making.output import UNFINISHED, Output

CPU = torch.device("cpu")
IDS = list(range(5, 45))


def make(source: Path, target: Path, method: str, **settings: object) -> Path:
    keep = ("tokenizer.json",) if (source / "tokenizer.json").is_file() else ()
    job = Job(source=str(source), target=str(target), method=method, keep=keep, **settings)  # type: ignore[arg-type]
    main.make(job, lambda done, total, what: None)
    return target


def tiny(path: Path, case: str, **config: object) -> Path:
    if case in FAMILIES:
        make_checkpoint(path, case, vocab_size=384, **config)
    else:
        write_tiny(path, case, **config)
    (path / "tokenizer.json").write_bytes((demo_directory() / "tokenizer.json").read_bytes())
    return path


def logits(
    path: Path, threads: int | None, quantize: str | None = None, dtype: str = "float32", ids: list[int] = IDS
) -> torch.Tensor:
    backend = select(CPU, getattr(torch, dtype), threads=threads)
    return Driver(load_model(path, dtype, backend, quantize=quantize), backend).run(ids)


def need_native() -> None:
    if not isinstance(select(CPU, torch.float32, threads=1), NativeBackend):
        pytest.skip("the native kernels were not built")


@pytest.mark.parametrize("method", ROUNDINGS)
def test_stored_codes_are_those_of_rounding_on_the_fly(method: str, tmp_path: Path) -> None:
    need_native()
    source = tiny(tmp_path / "whole", "qwen2", tie_word_embeddings=True, intermediate_size=208)
    target = make(source, tmp_path / "coded", method)
    assert torch.equal(logits(target, 2), logits(source, 2, method))
    assert torch.equal(logits(target, 2, method), logits(target, 1)), "the flag may say what it is"
    reference, native = logits(target, None), logits(target, 2)
    assert (reference - native).std() < 0.05 * native.std(), "activations that lie between two codes"
    size, original = ((path / "model.safetensors").stat().st_size for path in (target, source))
    assert size < 0.45 * original  # of float32
    with pytest.raises(ModelError, match=rf"int3|contradicts the checkpoint, which is quantised as {method}"):
        logits(target, 1, "int8" if method != "int8" else "int4")


# Fused and interleaved qkv, transposed matrices, experts of their own and in one tensor, latents.
SHAPED = ["gpt2", "phi3", "gpt_neox", "mixtral", "gpt_bigcode", "deepseek_v3"]


@pytest.mark.parametrize("case", SHAPED)
def test_matrices_of_any_shape(case: str, tmp_path: Path) -> None:
    need_native()
    source = tiny(tmp_path / "whole", case)
    target = make(source, tmp_path / "coded", "int4")
    assert torch.equal(logits(target, 2), logits(source, 2, "int4"))


def test_what_cannot_be_made(tmp_path: Path) -> None:
    need_native()
    source = tiny(tmp_path / "whole", "llama")
    made = make(source, tmp_path / "made", "int8")
    with pytest.raises(ModelError, match="quantised as int8"):
        make(made, tmp_path / "again", "int4")
    with pytest.raises(ModelError, match="is not empty"):
        make(source, made, "int8")
    with pytest.raises(ModelError, match="already rounded"):
        load_model(made, None, select(CPU, torch.float32), calibration=str(made / "config.json"))


def test_shards_and_an_interrupted_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_native()
    source = tiny(tmp_path / "whole", "llama")
    target, original = tmp_path / "coded", Output.write

    def fail(self: Output, key: str, tensors: dict[str, torch.Tensor]) -> None:
        if "layers.1" in key:
            raise KeyboardInterrupt
        original(self, key, tensors)

    monkeypatch.setattr(Output, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        make(source, target, "int5")
    assert not (target / "config.json").exists() and (target / UNFINISHED).is_dir()
    with pytest.raises(ModelError, match="unfinished quantisation"):
        make(source, target, "int6")
    monkeypatch.setattr(Output, "write", original)
    monkeypatch.setattr("tgi.models.making.output.SHARD_BYTES", 40_000)
    make(source, target, "int5")
    assert len(list(target.glob("model-*.safetensors"))) > 1 and not (target / UNFINISHED).exists()
    assert torch.equal(logits(target, 1), logits(source, 1, "int5"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ({"scheme": "int3"}, "`scheme` = 'int3'"),
        ({"version": 1}, "of version 1"),
        ({"scheme": "int8"}, "shape"),
        ({"scheme": "int5"}, "upper"),
    ],
)
def test_settings_of_others(damage: dict[str, object], why: str, tmp_path: Path) -> None:
    need_native()
    made = make(tiny(tmp_path / "whole", "llama"), tmp_path / "made", "int4")
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"] |= damage
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=why):
        logits(made, 1)

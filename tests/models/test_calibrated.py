"""GPTQ and AWQ checkpoints that are made here: they load, are near the original, and go on after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.test_making import CPU, logits, make, tiny
from tgi.errors import ModelError
from tgi.kernels.weight import Weight
from tgi.models.loader import opened
from tgi.models.making import calibrated, stream
from tgi.models.making.folds import find_folds, folded_tensors
from tgi.models.making.modules import rows_by_module, stored_module
from tgi.models.making.output import UNFINISHED, Output
from tgi.models.making.stream import Inputs
from tgi.quant.calibration import calibration_texts
from tgi.quant.reader import ModelWeights

CASES = ["llama", "qwen3-windows-biases", "gemma2", "phi3", "mixtral", "gpt2"]
WIDE = {"hidden_size": 64, "intermediate_size": 96}
"""Multiples of a group of 32."""


def settings_of(case: str) -> dict[str, int]:
    if case in ("gpt2", "gemma2"):
        return {"n_embd": 64, "n_head": 4} if case == "gpt2" else {"hidden_size": 64, "intermediate_size": 96}
    return WIDE


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_is_made_is_nearer_than_the_nearest_codes(
    case: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a part of the text that it was not made with, and loaded by both backends."""
    source = tiny(tmp_path / "whole", case, **settings_of(case))
    ids = calibration_texts(source, None, 384, 8192)[-1][:200]
    target = make(source, tmp_path / "made", method, group=32, tokens=2048)
    plain = logits(source, None, ids=ids)
    error = (logits(target, None, ids=ids) - plain).square().mean()
    monkeypatch.setattr(calibrated, "FEWEST", 1 << 30)
    nearest = make(source, tmp_path / "nearest", method, group=32, tokens=64)
    assert error < 0.9 * (logits(nearest, None, ids=ids) - plain).square().mean()
    torch.testing.assert_close(logits(target, 1), logits(target, None), rtol=1e-3, atol=2e-3)
    settings = json.loads((target / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == method and settings["group_size"] == 32 and settings["bits"] == 4


@pytest.mark.parametrize(("bits", "act_order", "symmetric"), [(2, True, False), (3, False, True), (8, True, True)])
def test_settings_of_gptq(bits: int, act_order: bool, symmetric: bool, tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole", "llama", **WIDE)
    flags = {"bits": bits, "act_order": act_order, "symmetric": symmetric}
    target = make(source, tmp_path / "made", "gptq", group=32, tokens=512, **flags)
    tensors = load_file(target / "model.safetensors")
    order = tensors["model.layers.0.mlp.down_proj.g_idx"]
    assert torch.equal(order, torch.arange(96, dtype=torch.int32) // 32) is not act_order
    if symmetric:
        zeros = tensors["model.layers.0.mlp.down_proj.qzeros"]
        assert len(zeros.unique()) <= 3
    if bits == 8:
        ids = calibration_texts(source, None, 384, 512)[0][:200]
        plain = logits(source, None, ids=ids)
        assert (logits(target, None, ids=ids) - plain).std() < 0.02 * plain.std()
    assert json.loads((target / "quantize_config.json").read_text())["desc_act"] is act_order


@pytest.mark.parametrize("case", ["qwen2", "gemma2", "olmo", "phi3", "gpt2", "qwen3"])
def test_folds_leave_the_model_what_it_was(case: str, tmp_path: Path) -> None:
    """Columns times random scales, and what gives their inputs divided by them."""
    source = tiny(tmp_path / "whole", case)
    expected = logits(source, None)
    generator = torch.Generator().manual_seed(3)
    with opened(source, None, CPU) as it:
        tensors = load_file(source / "model.safetensors")
        folds = find_folds(it.program)
        for weight, fold in folds.items():
            scales = torch.rand(weight.columns, generator=generator) + 0.5
            if fold.rows is not None:
                scales = torch.rand(fold.matrix.rows, generator=generator)[fold.rows] + 0.5  # type: ignore[union-attr]
                coded = {
                    f"{stored_module(it, fold.matrix, m)}.scales": torch.ones(1, len(rows))
                    for m, rows in rows_by_module(fold.matrix).items()
                }  # type: ignore[arg-type]
                for name, tensor in folded_tensors(it, fold, scales, coded).items():
                    if name.endswith(".scales"):
                        weights = tensors[name.replace(".scales", ".weight")]
                        weights *= tensor.float().view((1, -1) if fold.matrix.transposed else (-1, 1))
                    else:
                        tensors[name] = tensor
            else:
                tensors |= folded_tensors(it, fold, scales, {})
            for name in weight.names:
                matrix = tensors[f"{stored_module(it, weight, name)}.weight"]
                matrix *= scales.view(-1, 1) if weight.transposed else scales
    assert len(folds) >= (0 if case == "olmo" else 2), "olmo's norms have no weights"
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(logits(source, None), expected, rtol=1e-2, atol=1e-2)


def test_rows_count_by_the_size_of_the_sums_they_are_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As norms divide by it; what follows a norm at once counts alike."""
    source = tiny(tmp_path / "whole", "llama", **WIDE)
    texts, given = calibration_texts(source, None, 384, 64), []

    def inputs_of(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Inputs]:
        found: dict[str, Inputs] = {}

        def note(weight: Weight, matrix: torch.Tensor, inputs: Inputs) -> torch.Tensor:
            found[weight.names[0]] = inputs
            return matrix

        monkeypatch.setattr(stream, "counts", lambda sums: change(sums))
        with opened(source, None, CPU) as it:
            stream.stream(it.program, ModelWeights(it.source, torch.float32), texts, note, lambda done: None)
        return found

    def noted(sums: torch.Tensor) -> torch.Tensor:
        given.append(sums)
        return torch.ones(len(sums))

    original = stream.counts
    plain, weighed = inputs_of(noted), inputs_of(original)
    names = [name for name in plain if name.endswith(("o_proj", "down_proj"))]
    assert len(names) == len(given) >= 4
    for name, inputs in plain.items():
        if name in names:
            sizes = given[names.index(name)].square().mean(1)
            roots = ((1 / sizes) / (1 / sizes).mean()).sqrt().unsqueeze(1)
            torch.testing.assert_close(weighed[name].rounded, inputs.rounded * roots)
            torch.testing.assert_close(weighed[name].original, inputs.original * roots)
        else:
            assert torch.equal(weighed[name].rounded, inputs.rounded) and inputs.missing is None
    odd = torch.ones((5, 8))
    odd[0], odd[1] = 1000, 0
    found = original(odd)
    assert found[0] < 1e-5 < found[2]
    assert [float(found[1]), float(found.mean())] == pytest.approx([10 * float(found[2]), 1])


def test_what_outputs_should_have_more() -> None:
    """Both orders of multiplying, with and without what is missing in the sum."""
    for rows in (8, 40):
        matrix, x, y, sums = (torch.randn(shape) for shape in ((rows, 24), (50, 24), (50, 24), (50, rows)))
        for missing in (None, sums):
            more = (y - x) @ matrix.T + (0 if missing is None else missing)
            found = calibrated.missing_moment(matrix, Inputs(x, y, missing))
            torch.testing.assert_close(found, more.T @ x / 50, rtol=1e-4, atol=1e-5)


def test_an_interrupted_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny(tmp_path / "whole", "llama", **WIDE)
    for method in ("gptq", "awq"):
        whole = make(source, tmp_path / f"{method}-whole", method, group=32, tokens=512)
        target, written, original = tmp_path / method, [], Output.write

        def write(self: Output, key: str, tensors: dict[str, torch.Tensor], w=written, original=original) -> None:
            if len(w) == 4:
                raise KeyboardInterrupt
            w.append(key)
            original(self, key, tensors)

        monkeypatch.setattr(Output, "write", write)
        with pytest.raises(KeyboardInterrupt):
            make(source, target, method, group=32, tokens=512)
        assert not (target / "config.json").exists() and (target / UNFINISHED).is_dir()
        with pytest.raises(ModelError, match="unfinished quantisation"):
            make(source, target, method, group=64, tokens=512)

        def write_more(self: Output, key: str, tensors: dict[str, torch.Tensor], w=written, original=original) -> None:
            w.append(key)
            original(self, key, tensors)

        monkeypatch.setattr(Output, "write", write_more)
        make(source, target, method, group=32, tokens=512)
        assert len(written) == len(set(written)), "nothing is made twice"
        assert not (target / UNFINISHED).exists()
        found, expected = (load_file(path / "model.safetensors") for path in (target, whole))
        assert found.keys() == expected.keys()
        same = [float((found[name] == expected[name]).float().mean()) for name in found]
        assert min(same) > 0.9, "inputs behind codes that were read again differ in their last bits"


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny(tmp_path / "whole", "llama", **WIDE)
    whole = make(source, tmp_path / "one", "gptq", group=32, tokens=512)
    monkeypatch.setattr("tgi.models.making.output.SHARD_BYTES", 40_000)
    target = make(source, tmp_path / "many", "gptq", group=32, tokens=512)
    assert len(list(target.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(target, None), logits(whole, None))


def test_what_cannot_be_made(tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole", "llama", **WIDE)
    made = make(source, tmp_path / "made", "gptq", group=32, tokens=512)
    with pytest.raises(ModelError, match="quantised as gptq"):
        make(made, tmp_path / "again", "awq")
    with pytest.raises(ModelError, match="is not empty"):
        make(source, made, "gptq")
    with pytest.raises(ModelError, match="no matrix can be kept"):
        make(source, tmp_path / "none", "awq", group=128)
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        make(source, tmp_path / "text", "gptq", group=32)

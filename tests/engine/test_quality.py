"""What `tgi quantize-report` measures: losses and divergences against the formulas, intervals, rows and the plot."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from tgi.commands.quality_table import Peer, interval, peers_of, row_of, save_plot, table
from tgi.commands.quantize_report import formats_of, help_topics
from tgi.engine.quality.measure import KEPT, Reference, measure
from tgi.engine.quality.report import Part, Task
from tgi.errors import ArgumentError
from tgi.hub.prepare import demo_directory
from tgi.settings.config import EngineConfig
from tgi.settings.parse import UsageError


def test_divergence_is_that_of_the_whole_distributions(tmp_path: Path) -> None:
    """Of two distributions whose likeliest tokens are kept: a little less than the sum over all, and 0 for the same."""
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn((6, 3 * KEPT), generator=generator)
    first = torch.log_softmax(logits, -1)
    second = torch.log_softmax(logits + 0.5 * torch.randn(logits.shape, generator=generator), -1)
    path = tmp_path / "reference"
    writer = Reference(path, write=True)
    assert writer.divergence(first) == [0.0] * 6
    writer.divergence(second)
    writer.close()
    reader = Reference(path, write=False)
    found = torch.tensor(reader.divergence(second))
    exact = (first.double().exp() * (first.double() - second.double())).sum(1)
    assert (found <= exact + 1e-6).all() and (found > 0.9 * exact).all()
    assert max(map(abs, reader.divergence(second))) < 1e-6


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Paired losses of neighbours that go together, 5 % more in truth."""
    draw, hits = random.Random(3), 0
    for _ in range(200):
        base, other, drift = [], [], 0.0
        for _ in range(4096):
            drift = 0.8 * drift + draw.gauss(0, 0.1)
            base.append(draw.gauss(3, 1))
            other.append(base[-1] + math.log(1.05) + drift)
        low, middle, high = interval([other[:2000], other[2000:]], [base[:2000], base[2000:]])
        assert low < middle < high
        hits += low < 0.05 < high
    assert 175 <= hits <= 199


def test_a_model_is_measured(tmp_path: Path) -> None:
    """Losses are those of the logits, whole texts at once; a rounded model is slower or faster, and elsewhere."""
    torch.set_num_threads(1)
    texts = (tuple(range(20, 90)), tuple(range(60, 100)))
    config = EngineConfig(model_path=str(demo_directory()), model_id="demo", device="cpu", threads=1, dtype="float32")
    parts: list[Part] = []
    reference = str(tmp_path / "reference")
    base = measure(Task(config, texts, reference, True, 0.2), parts.append)
    assert [len(losses) for losses in base.losses] == [69, 39] and base.divergences == []
    assert base.decode_tps.keys() == {1, 16} and min(base.decode_tps.values()) > 0 and (base.prefill_tps or 0) > 0
    assert {part.what for part in parts} >= {"loading", "text", "prefill", "decoding 1", "decoding 16"}
    again = measure(Task(config, texts, reference, False, 0), parts.append)
    assert again.losses == base.losses and again.decode_tps == {} and again.prefill_tps is None
    assert max(abs(value) for text in again.divergences for value in text) < 1e-5
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(demo_directory(), dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([texts[0]])).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(texts[0][1:]), reduction="none")
    torch.testing.assert_close(torch.tensor(base.losses[0]).float(), expected, rtol=1e-3, atol=1e-3)


def test_rows_and_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tgi.engine.quality.report import Measured

    path = demo_directory()
    base = Measured(1000, 2000, 5000, 1.5, "bfloat16", None, [[2.0] * 200], [], 100.0, {1: 10.0, 16: 90.0})
    other = Measured(
        1000, 500, 3000, 0.5, "bfloat16", "int4", [[2.1] * 200], [[0.01] * 200], 150.0, {1: 30.0, 16: 200.0}
    )
    row = row_of("int4", str(path), other, base)
    assert row.change == pytest.approx(math.expm1(0.1)) and row.bits == 4 and row.divergence == pytest.approx(0.01)
    assert row.file_bytes == (path / "model.safetensors").stat().st_size
    rows = [row_of("unquantised", str(path), base, base), row]
    assert table("demo", rows).row_count == 2
    plot = tmp_path / "plot.svg"
    save_plot(plot, "demo", rows, [Peer("other Q4", 0.2, {1: 12.0, 16: 50.0})])
    assert "<svg" in plot.read_text()


def test_flags_that_mean_nothing(tmp_path: Path) -> None:
    assert formats_of("int8, int4,int8,unquantised") == ["int8", "int4"]
    assert formats_of(str(tmp_path)) == [str(tmp_path)]
    with pytest.raises(UsageError, match="int9"):
        formats_of("int9")
    peers = tmp_path / "peers.json"
    peers.write_text(json.dumps([{"name": "x", "change": 0.1, "decode": {"1": 5.0}}]))
    assert peers_of(peers)[0].decode == {1: 5.0}
    peers.write_text('[{"name": 3}]')
    with pytest.raises(ArgumentError, match="--peers"):
        peers_of(peers)
    assert sum(map(len, help_topics())) > 10_000

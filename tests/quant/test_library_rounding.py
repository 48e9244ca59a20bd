"""`--quantize` with other libraries' values: against their formulas in numpy, and against bitsandbytes where it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.checkpoints import make_checkpoint
from tests.models.driver import Driver
from tests.quant.writers import FP4, NF4
from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.select import select
from tgi.kernels.weight import Weight
from tgi.memory.cost import weight_bytes
from tgi.models.build.decoder import build
from tgi.models.families.registry import read_spec
from tgi.models.loader import load_model
from tgi.quant.library_rounding import dynamic_values, nearest, nested, round_as
from tgi.settings.flags import LIBRARY_ROUNDINGS

BOOKS = {"bitsandbytes-nf4": NF4, "bitsandbytes-fp4": FP4}


def drawn(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Fresh weights, of which a few are large, a row all zeros, and one of alternating ends."""
    generator = torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 32))
    weight = torch.randn((rows, columns), generator=generator) * 0.03
    weight[:, 3] *= 20
    weight[2] = 0
    weight[5] = torch.tensor([-1.0, 1.0]).repeat(columns)[:columns]
    return weight.to(dtype)


def pieces_of(matrix: torch.Tensor, rows: int = 16):
    def read() -> Iterator[tuple[int, torch.Tensor]]:
        for first in range(0, len(matrix), rows):
            yield first, matrix[first : first + rows]

    return read


def rounded(method: str, matrix: torch.Tensor, names: tuple[str, ...] = ("m",)) -> list[CodedWeight]:
    rows, columns = matrix.shape
    weight = Weight(names, (rows // len(names),) * len(names), columns)
    return [coded for _, coded in round_as(method, weight, pieces_of(matrix))]


def dequantised(method: str, matrix: torch.Tensor, names: tuple[str, ...] = ("m",)) -> np.ndarray:
    return torch.cat([coded.dequantise() for coded in rounded(method, matrix, names)]).numpy()


def dynamic_table() -> np.ndarray:
    """bitsandbytes' 8-bit type: a sign, zeros that count powers of ten, a one, and a fraction in the bits left."""
    values = [0.0, 1.0]
    for zeros in range(7):
        bits = 6 - zeros
        edges = 0.1 + 0.9 * np.arange((1 << bits) + 1) / (1 << bits)
        for mean in (edges[1:] + edges[:-1]) / 2:
            values += [mean * 10.0**-zeros, -mean * 10.0**-zeros]
    return np.sort(np.array(values))


def nested_scales(peaks: np.ndarray) -> np.ndarray:
    table, mean, found = dynamic_table(), peaks.mean(dtype=np.float64), np.empty(len(peaks))
    for begin in range(0, len(peaks), 256):
        block = peaks[begin : begin + 256] - mean
        largest = np.abs(block).max()
        codes = np.abs(block[:, None] / (largest or 1) - table).argmin(1)
        found[begin : begin + 256] = table[codes] * largest + mean
    return found


def assert_mostly_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """All but scales that lie between two of the table's, as far as float32 and float64 can tell."""
    assert np.isclose(found, wanted, rtol=1e-5, atol=1e-6).mean() > 0.98


@pytest.mark.parametrize("method", BOOKS)
@pytest.mark.parametrize("columns", [320, 96, 36])
def test_four_bits(method: str, columns: int) -> None:
    """Blocks of 64 of the flattened matrix, in whole rows or across them; scales in 8 bits about the mean."""
    matrix, book = drawn(208, columns), np.array(BOOKS[method])
    flat = matrix.float().numpy().ravel().astype(np.float64)
    blocks = flat.reshape(-1, 64)
    peaks = np.abs(blocks).max(1)
    distances = np.abs(blocks[:, :, None] / np.where(peaks, peaks, 1)[:, None, None] - book)
    codes = torch.cat([coded.codes for coded in rounded(method, matrix)]).numpy().reshape(-1, 64, 1)
    chosen = np.take_along_axis(distances, codes.astype(np.int64), 2)[..., 0]
    np.testing.assert_allclose(chosen, distances.min(2), atol=1e-6)  # of two as near either
    wanted = book[codes[..., 0]] * nested_scales(peaks)[:, None]
    assert_mostly_close(dequantised(method, matrix), wanted.reshape(208, columns))


def test_each_stored_matrix_has_its_own_mean_of_scales() -> None:
    small, large = drawn(32, 128), drawn(32, 128) * 50
    both = dequantised("bitsandbytes-nf4", torch.cat((small, large)), ("q", "k"))
    alone = [dequantised("bitsandbytes-nf4", matrix) for matrix in (small, large)]
    np.testing.assert_array_equal(both, np.concatenate(alone))


@pytest.mark.parametrize("method", ["bitsandbytes", "eetq"])
def test_eight_bits_by_row(method: str) -> None:
    matrix = drawn(48, 100)
    values = matrix.float().numpy().astype(np.float64)
    scales = np.abs(values).max(1, keepdims=True) / 127
    codes = dequantised(method, matrix) / np.where(scales, scales, 1)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    assert np.abs(codes).max() <= 127.001 and not codes[2].any()
    assert (np.abs(codes * scales - values) <= scales * 0.50001).all()


def test_fp8_by_row() -> None:
    matrix = drawn(48, 100)
    scales = matrix.float().abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    wanted = (matrix.float() / scales).nan_to_num().to(torch.float8_e4m3fn).float() * scales
    np.testing.assert_array_equal(dequantised("fp8", matrix), wanted.numpy())


def test_the_tables() -> None:
    np.testing.assert_allclose(dynamic_values().numpy(), dynamic_table(), rtol=1e-6)
    assert len(dynamic_table()) == 256
    peaks = torch.rand(1000)
    assert_mostly_close(nested(peaks).numpy(), nested_scales(peaks.numpy()))
    assert nested(torch.zeros(3)).tolist() == [0, 0, 0]


def test_as_bitsandbytes_does() -> None:
    """Where it is installed, which the tests do not ask for: all codes, and all scales but a few its lookup misses."""
    functional = pytest.importorskip("bitsandbytes.functional")
    for kind in ("nf4", "fp4"):
        for dtype in (torch.bfloat16, torch.float32):
            matrix = drawn(256, 576, dtype)
            packed, state = functional.quantize_4bit(matrix, quant_type=kind, compress_statistics=True)
            codes = torch.stack((packed.flatten() >> 4, packed.flatten() & 15), -1).view(256, 576)
            found = rounded(f"bitsandbytes-{kind}", matrix)
            mine, theirs = torch.cat([coded.codes for coded in found]), codes.clone()
            if kind == "fp4":  # of zeros, which have a sign
                mine, theirs = (torch.where(codes == 8, 0, codes) for codes in (mine, theirs))
            assert torch.equal(mine, theirs)
            wanted = functional.dequantize_4bit(packed, state).float()
            mine = torch.cat([coded.dequantise() for coded in found]).to(dtype).float()
            assert torch.isclose(mine, wanted, rtol=1e-2, atol=1e-6).float().mean() > 0.98
    matrix = drawn(64, 576, torch.float16)
    codes, *_ = functional.int8_vectorwise_quant(matrix)
    (coded,) = rounded("bitsandbytes", matrix[:16])
    assert torch.equal(coded.codes.int() - 128, codes[:16].int())


def test_nearest_takes_ties_down() -> None:
    assert nearest(torch.tensor([0.5, -0.5, 0.51, 7.0, -7.0]), (0.0, 1.0, -1.0)).tolist() == [0, 2, 1, 1, 2]


@pytest.mark.parametrize("method", LIBRARY_ROUNDINGS)
def test_a_model_computes_with_the_rounded_weights(method: str, tmp_path: Path) -> None:
    """On both backends what a checkpoint of the dequantised weights gives; the head stays as it is."""
    make_checkpoint(tmp_path, "llama", hidden_size=64, intermediate_size=96)
    results = []
    for threads in (None, 1):
        backend = select(torch.device("cpu"), torch.float32, threads=threads)
        driver = Driver(load_model(tmp_path, "float32", backend, quantize=method), backend)
        results.append(driver.run(list(range(5, 45))))
    plain = Driver(load_model(tmp_path, "float32", backend), backend).run(list(range(5, 45)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)
    error = (results[0] - plain).abs().mean() / plain.abs().mean()
    assert 1e-4 < error < (0.9 if method in BOOKS else 0.3)  # random weights are the worst case for four bits


@pytest.mark.parametrize("method", LIBRARY_ROUNDINGS)
def test_a_plan_knows_what_is_kept_packed(method: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama", hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    backend = select(torch.device("cpu"), torch.bfloat16, threads=1)
    if not isinstance(backend, NativeBackend):
        pytest.skip("the native kernels were not built")
    loaded = load_model(tmp_path, "bfloat16", backend, quantize=method)
    planned = weight_bytes(build(read_spec(tmp_path)), "bfloat16", backend.footprint, method)
    assert loaded.step.weight_bytes == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize("quantize", ["marlin", "gptq", "awq"])
def test_formats_that_nothing_rounds_to(quantize: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    with pytest.raises(ModelError, match=f"--quantize {quantize}.*int4"):
        load_model(tmp_path, None, select(torch.device("cpu"), torch.float32), quantize=quantize)

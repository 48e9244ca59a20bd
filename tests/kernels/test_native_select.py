"""Who is chosen for a CPU, and what is said where the native kernels cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.kernels.native_levels import open_level
from tgi.kernels.native import library
from tgi.kernels.native.backend import NativeBackend, make_backend
from tgi.kernels.native.library import NativeUnavailable, load
from tgi.kernels.reference.backend import ReferenceBackend
from tgi.kernels.select import select

CPU = torch.device("cpu")


def test_native_kernels_need_threads_a_block_of_32_and_a_type_they_compute():
    open_level("portable")
    assert isinstance(select(CPU, torch.bfloat16, threads=1), NativeBackend)
    for backend in (
        select(CPU, torch.bfloat16),
        select(CPU, torch.bfloat16, 16, threads=1),
        select(CPU, torch.float64, threads=1),
    ):
        assert isinstance(backend, ReferenceBackend)
        assert set(backend.kernels.values()) == {"reference"}


def test_the_chosen_level_is_named():
    open_level("portable")
    backend = select(CPU, torch.float32, threads=1)
    assert set(backend.kernels.values()) == {f"native {load().level}"}
    assert {"step", "linear", "attention", "rms_norm"} <= set(backend.kernels)


def test_missing_libraries_leave_the_reference_and_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    with caplog.at_level(logging.WARNING):
        backend = select(CPU, torch.bfloat16, threads=1)
    assert isinstance(backend, ReferenceBackend)
    assert "were not built" in caplog.text


def test_a_library_of_other_sources_is_refused(monkeypatch):
    open_level("portable")
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    with pytest.raises(NativeUnavailable, match="install the package again"):
        load("portable")


def test_a_level_that_cannot_run_is_refused_by_name():
    open_level("portable")
    with pytest.raises(NativeUnavailable, match="cannot run level neon"):
        load("neon")


def test_a_broken_library_is_refused(monkeypatch, tmp_path: Path):
    (tmp_path / "libtgi_portable.so").write_bytes(b"not a library")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    with pytest.raises(NativeUnavailable, match="cannot be loaded"):
        load()
    assert make_backend(1) is None

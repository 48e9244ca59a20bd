"""Loading the native library that suits this processor, and the declarations of its C interface.

Owns the choice of the instruction-set level and the ctypes signatures of csrc/tgi.h; what the calls mean
stands there. A plain C interface costs about a microsecond a call, frees the GIL and is tied to no version
of torch. Imports no torch.
"""

from __future__ import annotations

import ctypes
import platform
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

ABI = 20
LEVELS = ("portable", "avx2", "avx2_vnni", "avx512", "avx512_bf16", "avx512_amx", "neon", "neon_dotprod", "neon_i8mm")
"""Of each kind of processor from the least to the most demanding."""


class LinearApart(ctypes.Structure):
    """`tgi_linear_apart`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int32) for name in ("scale_group", "scale_type", "zero", "zero_bits", "minimums")),
        ("book", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
    ]


class LinearShape(ctypes.Structure):
    """`tgi_linear_shape`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int32) for name in ("format", "in", "out", "group", "rotated", "activations", "bias")),
        ("apart", ctypes.POINTER(LinearApart)),
    ]


class Feedback(ctypes.Structure):
    """`tgi_feedback`."""

    _fields_: ClassVar = [
        ("factors", ctypes.c_void_p),
        ("importance", ctypes.c_void_p),
        ("rounded_error", ctypes.c_double),
        ("plain_error", ctypes.c_double),
    ]


_POINTER, _INT, _LONG, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "tgi_abi": (_INT, ()),
    "tgi_level": (ctypes.c_char_p, ()),
    "tgi_levels": (ctypes.c_char_p, ()),
    "tgi_pool_create": (_POINTER, (_INT,)),
    "tgi_pool_destroy": (None, (_POINTER,)),
    "tgi_pool_size": (_INT, (_POINTER,)),
    "tgi_arena_create": (_POINTER, ()),
    "tgi_arena_destroy": (None, (_POINTER,)),
    "tgi_arena_used": (_SIZE, (_POINTER,)),
    "tgi_format": (_INT, (ctypes.c_char_p,)),
    "tgi_linear_create": (_POINTER, (_POINTER, ctypes.POINTER(LinearShape))),
    "tgi_linear_bytes": (_SIZE, (_POINTER,)),
    "tgi_linear_finish": (_INT, (_POINTER, _POINTER, _POINTER)),
    "tgi_feedback_factors": (None, (_POINTER, _POINTER, _INT, _POINTER)),
    "tgi_linear_pack": (None, (_POINTER, _POINTER, _POINTER, _INT, _LONG, _LONG, _INT, _INT, ctypes.POINTER(Feedback))),
    "tgi_linear_pack_codes": (None, (*[_POINTER] * 8, _INT, _INT)),
    "tgi_linear_codes": (None, (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT)),
    "tgi_linear_set_bias": (None, (_POINTER, _POINTER, _INT, _INT)),
    "tgi_linear_rows": (None, (_POINTER, _POINTER, _POINTER, _INT, _POINTER)),
    "tgi_huge_pages": (None, (_POINTER, _SIZE)),
    "tgi_key_bytes": (_SIZE, (_POINTER,)),
    "tgi_value_bytes": (_SIZE, (_POINTER,)),
    "tgi_op_bytes": (_SIZE, (_INT,)),
    "tgi_program_create": (_POINTER, (_POINTER, _POINTER, _INT, _POINTER, _INT, _INT)),
    "tgi_program_destroy": (None, (_POINTER,)),
    "tgi_program_run": (_INT, (_POINTER, _POINTER, _INT, _POINTER)),
    "tgi_program_profile": (None, (_POINTER, _POINTER)),
    "tgi_program_bytes": (_SIZE, (_POINTER,)),
    "tgi_store_kv": (None, (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER)),
    "tgi_attention": (None, (_POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER)),
    "tgi_rank": (None, (_POINTER, _POINTER, _INT, _LONG, _INT, _POINTER, _POINTER, _POINTER)),
    "tgi_log_mass": (None, (_POINTER, _POINTER, _INT, _LONG, _POINTER, _POINTER, _POINTER)),
    "tgi_pick": (None, (_POINTER, _POINTER, _INT, _LONG, _POINTER, _POINTER, _POINTER, _POINTER)),
    "tgi_mask": (None, (_POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _LONG)),
    "tgi_best_allowed": (
        None,
        (_POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER, _LONG, _POINTER, _POINTER, _POINTER),
    ),
    "tgi_measure_read": (_LONG, (_POINTER, _POINTER, _SIZE)),
    "tgi_measure_arithmetic": (_LONG, (_POINTER, _INT, _LONG)),
    "tgi_linear_run": (None, (_POINTER, _POINTER, _POINTER, _INT, _POINTER, _INT)),
}


class NativeUnavailable(Exception):
    """Why the native kernels cannot be used here, as a sentence."""


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded level and its functions, which are called as `library.call.tgi_...`."""

    level: str
    call: ctypes.CDLL


def load(level: str | None = None) -> Library:
    """The best level that was built and that this processor runs, or `level` by name.

    Raises NativeUnavailable if there is none.
    """
    probe = path_of("portable")
    if not probe.exists():
        raise NativeUnavailable("the native kernels were not built (a C++ compiler was missing or failed at install)")
    runnable = _runnable(probe)
    if level is not None and level not in runnable:
        raise NativeUnavailable(f"this processor cannot run level {level}; it runs {', '.join(runnable)}")
    for name in [level] if level else runnable:
        path = path_of(name)
        if path.exists():
            return Library(name, _open(path))
    raise NativeUnavailable(f"the native kernels were not built for {level or runnable[0]}")


def path_of(level: str) -> Path:
    """Where the library of a level is, if it was built."""
    return Path(__file__).parent / f"libtgi_{level}.so"


def levels_here(machine: str | None = None) -> list[str]:
    """The levels of this kind of processor, whether or not built; machine: as `platform.machine()` says."""
    machine = (machine or platform.machine()).lower()
    prefix = "avx" if machine in ("x86_64", "amd64") else "neon" if machine in ("aarch64", "arm64") else "none"
    return [level for level in LEVELS if level == "portable" or level.startswith(prefix)]


def runnable() -> list[str]:
    """Levels this processor runs, best first; empty where nothing was built that could tell."""
    try:
        return _runnable(path_of("portable"))
    except NativeUnavailable:
        return []


def _runnable(probe: Path) -> list[str]:
    """Levels that this processor runs, best first, asked of the library that runs everywhere."""
    try:
        levels = ctypes.CDLL(str(probe)).tgi_levels
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(f"{probe.name} cannot be loaded: {error}") from error
    levels.restype = ctypes.c_char_p
    return levels().decode().split()


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(f"{path.name} cannot be loaded: {error}") from error
    if library.tgi_abi() != ABI:
        raise NativeUnavailable(f"{path.name} was built from other sources; install the package again")
    return library


# At exit nothing is destroyed: a step might still run on a thread that the interpreter leaves behind.


class Pool:
    """The team of threads that runs everything native of one engine. Ends when nobody refers to it."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library = library
        self.threads = threads
        self.handle = library.call.tgi_pool_create(threads)
        if not self.handle:
            raise MemoryError(f"{threads} threads could not be started")
        weakref.finalize(self, library.call.tgi_pool_destroy, self.handle).atexit = False


class Arena:
    """Memory of packed weights, freed when neither it nor a layer in it is referred to."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.handle = library.call.tgi_arena_create()
        if not self.handle:
            raise MemoryError("no memory for weights")
        weakref.finalize(self, library.call.tgi_arena_destroy, self.handle).atexit = False

    @property
    def used(self) -> int:
        """Bytes handed out."""
        return self.library.call.tgi_arena_used(self.handle)

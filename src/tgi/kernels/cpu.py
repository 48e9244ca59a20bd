"""The operations of a CPU with the native library: packed weights, its own cache layout, whole steps.

Owns the choice between native and reference for each entry of `Ops`. A compiled decoder makes one native
call a step; a model that is not compiled calls these entries one by one, of which the small ones stay
torch's. Called by `ops.select`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import torch

from tgi.kernels import reference
from tgi.kernels.native import cache
from tgi.kernels.native.library import Arena, Library, NativeUnavailable, Pool, load
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.program import NativeProgram
from tgi.kernels.native.vocabulary import NativeVocabulary
from tgi.kernels.ops import Ops
from tgi.kernels.program import Program

logger = logging.getLogger(__name__)

BLOCK_SIZE = cache.BLOCK_SIZE
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Serving types of the native kernels: of weights and cache; what lies between two operations is float32."""


class NativeKernels:
    """`ops.Native`: one pool of threads and one arena of weights."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library = library
        self.pool = Pool(library, threads)
        self.arena = Arena(library)
        self.vocabulary = NativeVocabulary(self.pool)

    @property
    def weight_bytes(self) -> int:
        return self.arena.used

    def pack(
        self,
        format: str,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        activations: str = "int8",
    ) -> PackedLinear:
        return PackedLinear(
            self.pool,
            self.arena,
            format,
            in_features,
            out_features,
            bias=bias,
            activations=activations,
        )

    def compile(self, program: Program) -> NativeProgram:
        return NativeProgram(self.pool, program)


def make_ops(threads: int, level: str | None = None) -> Ops | None:
    """The native operations, or None with a log line where they cannot be used."""
    try:
        library = load(level)
    except NativeUnavailable as reason:
        logger.warning("Native CPU kernels are not used, everything is slower: %s", reason)
        return None
    native = NativeKernels(library, threads)
    plain = reference.make_ops(BLOCK_SIZE)
    name = f"native {library.level}"
    return replace(
        plain,
        allocate_cache=partial(cache.allocate_cache, library),
        cache_bytes=partial(cache.cache_bytes, library),
        store_kv=partial(cache.store_kv, library),
        plan_attention=cache.plan_attention,
        attention=partial(cache.attention, native.pool),
        # in a compiled decoder all of them are native
        kernels=dict.fromkeys((*plain.kernels, "step", "vocabulary"), name),
        native=native,
    )

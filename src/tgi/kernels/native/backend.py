"""`NativeBackend`: programs on the CPU's native library: packed weights, its own cache layout, a step in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from tgi.kernels.footprint import Footprint
from tgi.kernels.native import cache, footprint
from tgi.kernels.native.library import Arena, Library, NativeUnavailable, Pool, load
from tgi.kernels.native.step import NativeStep
from tgi.kernels.native.vocabulary import NativeVocabulary
from tgi.kernels.program import Program
from tgi.kernels.reference.backend import OPERATIONS
from tgi.kernels.types import CacheShape, KVCache, Vocabulary, WeightReader, cache_dtype_name

logger = logging.getLogger(__name__)

BLOCK_SIZE = cache.BLOCK_SIZE
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Serving dtypes: of weights and cache; values between operations are float32."""


class NativeBackend:
    """See `Backend`. One pool of threads, and an arena of weights for each program."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library, self.device, self.block_size = library, torch.device("cpu"), BLOCK_SIZE
        self.pool = Pool(library, threads)
        self.vocabulary: Vocabulary = NativeVocabulary(self.pool)
        names = (*OPERATIONS.split(), "step", "vocabulary")
        self.kernels: Mapping[str, str] = dict.fromkeys(names, f"native {library.level}")
        self.footprint: Footprint = footprint
        self.packs_codes = True
        self.cache_dtypes = frozenset(map(cache_dtype_name, cache.TYPES))

    def load(self, program: Program, weights: WeightReader) -> NativeStep:
        return NativeStep(self.pool, Arena(self.library), program, weights)

    def allocate_cache(self, shape: CacheShape, num_blocks: int, num_states: int = 0) -> KVCache:
        return cache.allocate_cache(self.library, shape, num_blocks, num_states)

    def cache_bytes(self, shape: CacheShape, num_blocks: int) -> int:
        return cache.cache_bytes(self.library, shape, num_blocks)

    def settle(self) -> None:
        # After each small operation torch's own team would spin on the cores of the native one.
        torch.set_num_threads(1)


def make_backend(threads: int, level: str | None = None) -> NativeBackend | None:
    """The native backend, or None with a log line where it cannot be used."""
    try:
        return NativeBackend(load(level), threads)
    except NativeUnavailable as reason:
        logger.warning("Native CPU kernels are not used, everything is slower: %s", reason)
        return None

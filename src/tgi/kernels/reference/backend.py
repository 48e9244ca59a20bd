"""`ReferenceBackend`: programs in torch operations, over a cache [blocks, block_size, kv_heads, head_dim]."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from tgi.kernels.footprint import Footprint
from tgi.kernels.formats import DTYPE_BYTES
from tgi.kernels.host_memory import lazy_zeros, state_stores
from tgi.kernels.program import CacheLayer, Program
from tgi.kernels.reference import footprint
from tgi.kernels.reference.cache import width
from tgi.kernels.reference.loading import load_matrices
from tgi.kernels.reference.step import ReferenceStep
from tgi.kernels.reference.vocabulary import TorchVocabulary
from tgi.kernels.types import DEFAULT_BLOCK_SIZE, CacheShape, KVCache, Vocabulary, WeightReader

OPERATIONS = (
    "embedding linear add scale soft_cap rms_norm layer_norm rotary activation gated_activation store_kv attention"
)


class ReferenceBackend:
    """See `Backend`."""

    def __init__(self, device: torch.device, block_size: int | None = None) -> None:
        self.device = device
        self.block_size = block_size or DEFAULT_BLOCK_SIZE
        self.vocabulary: Vocabulary = TorchVocabulary()
        self.kernels: Mapping[str, str] = dict.fromkeys(OPERATIONS.split(), "reference")
        self.footprint: Footprint = footprint
        self.packs_codes = False
        self.cache_dtypes = frozenset(DTYPE_BYTES)

    def load(self, program: Program, weights: WeightReader) -> ReferenceStep:
        matrices = load_matrices(program, weights, self.device, ReferenceBackend(torch.device("cpu")))
        return ReferenceStep(program, weights, self.block_size, self.device, matrices)

    def allocate_cache(self, shape: CacheShape, num_blocks: int, num_states: int = 0) -> KVCache:
        """Zeros, so that no NaN lurks in blocks not yet used; memory of a CPU is taken when they are."""

        def store(layer: CacheLayer) -> torch.Tensor:
            dims = (num_blocks, self.block_size, layer.kv_heads, width(layer.head_dim, shape.dtype))
            if self.device.type != "cpu":
                return torch.zeros(dims, dtype=shape.dtype, device=self.device)
            return lazy_zeros(math.prod(dims) * shape.dtype.itemsize).view(shape.dtype).view(dims)

        keys = [store(layer) for layer in shape.layers]
        values = [own if layer.shared else store(layer) for layer, own in zip(shape.layers, keys, strict=True)]
        states = state_stores(shape.states, num_states, self.device)
        return KVCache(shape, num_blocks, self.block_size, keys, values, states)

    def cache_bytes(self, shape: CacheShape, num_blocks: int) -> int:
        numbers = sum(layer.stores * layer.kv_heads * width(layer.head_dim, shape.dtype) for layer in shape.layers)
        return num_blocks * self.block_size * numbers * shape.dtype.itemsize

    def settle(self) -> None:
        """Steps use all of torch's threads."""

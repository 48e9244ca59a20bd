"""What backends share: the batch a step reads, the KV cache, and the protocols of a backend and of what it loads.

A backend runs programs. `reference` in torch is the definition of correct and runs on every device; `native` runs a
whole step in one call of the C++ library. Neither the engine nor the models ask which one it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.footprint import Footprint
from tgi.kernels.formats import CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.outline import Outline
from tgi.kernels.program import CacheLayer, Program
from tgi.kernels.weight import Vector, Weight

DEFAULT_BLOCK_SIZE = 32


def cache_dtype(name: str) -> torch.dtype:
    """The dtype of a cache by its name in `--kv-cache-dtype`."""
    return getattr(torch, name.replace("fp8", "float8"))


def cache_dtype_name(dtype: torch.dtype) -> str:
    """The same the other way round."""
    return str(dtype).removeprefix("torch.").replace("float8", "fp8")


@dataclass(slots=True)
class EncoderKeys:
    """Where the cache has what the encoder left of each sequence's input."""

    block_tables: torch.Tensor  # [sequences, max_blocks] int64, padded with 0
    lens: list[int]  # tokens of each input
    contexts: torch.Tensor  # [sequences] int64, lens on the device


@dataclass(slots=True)
class Paging:
    """Where the rows of a batch stand in their sequences and in the paged cache.

    Rows of one sequence are contiguous and in order of position. Tensors are on the model's device;
    the lists repeat what the host knows, so that no kernel has to ask the device for a length.
    """

    positions: torch.Tensor  # [tokens] int64, position of the row in its sequence
    slots: torch.Tensor  # [tokens] int64, block * block_size + offset where the row's K and V go
    block_tables: torch.Tensor  # [sequences, max_blocks] int64, padded with 0
    query_lens: list[int]  # rows of each sequence
    context_lens: list[int]  # position after the last row: keys each sequence attends to
    query_starts: torch.Tensor  # [sequences + 1] int64
    contexts: torch.Tensor  # [sequences] int64, context_lens on the device
    encoder: EncoderKeys | None = None  # of a model with an encoder, but in the encoder itself
    state_reads: torch.Tensor | None = None  # [sequences] int64, slots of states before the rows; -1: at the beginning
    state_writes: torch.Tensor | None = None  # [sequences] int64, slots for those after them


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What the KV cache must hold, whatever its layout."""

    layers: tuple[CacheLayer, ...]
    dtype: torch.dtype
    states: tuple[int, ...] = ()
    """Numbers of each state, see `Program.states`."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """The paged keys and values of all layers. Opaque outside `kernels`: each backend has its own layout."""

    shape: CacheShape
    num_blocks: int
    block_size: int
    keys: list[torch.Tensor] = field(repr=False)  # one a layer
    values: list[torch.Tensor] = field(repr=False)
    states: list[torch.Tensor] = field(default_factory=list, repr=False)  # [slots, numbers] float32, one a state


Masks: TypeAlias = npt.NDArray[np.uint32]
"""Which tokens rows may choose [rows, words]: a bit for each, the first in the lowest bit of the first word."""


class Vocabulary(Protocol):
    """Work on rows of logits [rows, vocab] float32. A row's result depends on that row alone, bit for bit."""

    def rank(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and ids [rows, count] of the best by (value descending, id ascending); a NaN is before all."""
        ...

    def rank_and_mass(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`rank`, and the `log_mass` of each row."""
        ...

    def best_and_mass(self, logits: torch.Tensor) -> tuple[list[int], list[float]]:
        """The first id of `rank` and the `log_mass` of each row."""
        ...

    def log_mass(self, logits: torch.Tensor, best: torch.Tensor, divisors: torch.Tensor | None = None) -> torch.Tensor:
        """log(sum(exp(logits / divisor - best logit / divisor))) [rows] float64; NaN if the best is not finite.

        best: the ids [rows] of the best logits; divisors [rows] float32. Relative to the best logit, since
        huge logits would swallow it.
        """
        ...

    def pick(
        self, logits: torch.Tensor, uniform: torch.Tensor, divisors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From softmax(logits / divisor) the first id whose cumulative probability exceeds `uniform` [rows] float64.

        ids [rows] int64 and their log-probabilities [rows] float64, NaN where no token can be picked.
        """
        ...

    def mask(self, logits: torch.Tensor, rows: Sequence[int], masks: Masks) -> None:
        """-inf in place to what `masks[i]` does not allow `logits[rows[i]]`."""
        ...

    def best_allowed(
        self, logits: torch.Tensor, rows: Sequence[int], masks: Masks, *, with_masses: bool
    ) -> tuple[list[int], list[float], list[float]]:
        """Of these rows, were they masked: the first id of `rank`, its logit, and the `log_mass` if it is wanted."""
        ...


class WeightReader(Protocol):
    """The weights of one checkpoint as a backend takes them: see `quant.reader`."""

    @property
    def dtype(self) -> torch.dtype:
        """The serving dtype: of plain weights, vectors and biases."""
        ...

    @property
    def activations(self) -> str:
        """What layers of codes round activations to by row and group: int8, or float32: leave them unrounded."""
        ...

    @property
    def calibration(self) -> Sequence[int]:
        """Token ids of a text that shows rounding what inputs matrices get; none: rounding asks for no text."""
        ...

    @property
    def keeps_codes(self) -> bool:
        """Whether codes that come for a matrix of floats may be kept as they are, by a backend that can hold them."""
        ...

    @property
    def stored_codes(self) -> bool:
        """Whether the checkpoint has codes, which may differ among the stored parts of a matrix."""
        ...

    def format_of(self, weight: Weight) -> CodeFormat | None:
        """The codes in which the matrix is to be kept; None: floats of the serving dtype."""
        ...

    def pieces(
        self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """The matrix from its first row to its last: (first row, rows [count, columns]) of each piece.

        Floats may have any strides and are valid until the next piece. rounded: a matrix to be kept as codes comes as
        codes; False: the caller rounds by itself what a checkpoint has as floats. inputs: what rounding with error
        feedback may know. Raises ModelError.
        """
        ...

    def bias(self, weight: Weight) -> torch.Tensor | None:
        """[rows] of the serving dtype; None if it has none."""
        ...

    def vector(self, vector: Vector) -> torch.Tensor:
        """[size] of the serving dtype, or float32 where something is added."""
        ...


class CompiledStep(Protocol):
    """A loaded program. Called under `torch.inference_mode`; rows are those of `Paging`."""

    @property
    def program(self) -> Program | Outline:
        """What is computed, or, where other code does, what there is to know of it."""
        ...

    device: torch.device
    dtype: torch.dtype

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take on the device."""
        ...

    @property
    def hidden_size(self) -> int:
        """Numbers of a row of hidden states; 0: `forward` gives logits, of a model that cannot be taken apart."""
        ...

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        """Run the encoder over whole inputs: token_ids [tokens] int64 of sequences that begin at position 0.

        Leaves in the slots of `paging` what `forward` finds through `Paging.encoder`. Only where the program has one.
        """
        ...

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        """token_ids [tokens] int64 -> hidden states [tokens, hidden size] after the last norm, before the head.

        Writes the rows' keys and values to `paging.slots` of `cache`.
        """
        ...

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """hidden [rows, hidden size] -> logits [rows, vocabulary] float32.

        out: memory of that shape on a CPU, which may be used for the result.
        """
        ...

    def profile(self) -> dict[str, float]:
        """Seconds spent in each kind of operation since the first call of this; empty where it is not known."""
        ...


class Backend(Protocol):
    """One way of running programs on one device."""

    device: torch.device
    block_size: int
    """Tokens of one block of the KV cache."""
    vocabulary: Vocabulary
    kernels: Mapping[str, str]
    """Operation -> implementation, for the log and `EngineInfo`."""
    footprint: Footprint
    cache_dtypes: frozenset[str]
    """The dtypes that the cache may have, by their names in `--kv-cache-dtype`."""
    packs_codes: bool
    """Weights in codes stay codes in memory; else they are dequantised."""

    def load(self, program: Program, weights: WeightReader) -> CompiledStep:
        """Read the weights and bind the program to the device.

        Raises ModelError for what the checkpoint lacks or the backend cannot run.
        """
        ...

    def allocate_cache(self, shape: CacheShape, num_blocks: int, num_states: int = 0) -> KVCache:
        """An empty cache, with so many slots for states. Memory errors of the device pass through."""
        ...

    def cache_bytes(self, shape: CacheShape, num_blocks: int) -> int:
        """Bytes that `allocate_cache` takes."""
        ...

    def settle(self) -> None:
        """Loading is over and only steps follow: threads that no step needs are given up."""
        ...

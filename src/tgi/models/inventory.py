"""Which tensors a checkpoint has, and which its program needs: told from names and headers, before a weight is read.

Imports no torch. `weights` reads the tensors, and is the one to be believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tgi.errors import ModelError
from tgi.kernels.program import Program
from tgi.models.names import Names
from tgi.models.safetensors_header import StoredTensor, read_tensors
from tgi.models.spec import ModelSpec
from tgi.models.text_part import full_name
from tgi.models.weight_files import FORMATS, in_directory, read_index, some
from tgi.untrusted import printable


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is and what is needed, each in the order of names."""

    stored: Mapping[str, StoredTensor | None] = field(repr=False)
    """Full name -> what the header says; None where only the name is known."""
    found: tuple[str, ...]
    """Stored and used."""
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    """Stored, and nobody knows what for: another model's."""
    ignored: tuple[str, ...]
    """Stored, and known to carry nothing that the model needs."""
    misshapen: tuple[str, ...]
    """A sentence for each tensor of another shape."""

    def check(self) -> None:
        """Raise ModelError unless the tensors are those of the model."""
        if self.missing:
            raise ModelError(
                f"{_count(len(self.missing), 'tensor')} of the model {_is(len(self.missing))} missing from the "
                f"checkpoint: {some(self.missing)}. It is incomplete, or its config.json belongs to another model: "
                "fetch it again"
            )
        if self.unused:
            raise ModelError(f"The checkpoint has tensors that the model does not use: {some(self.unused, 5)}")
        if self.misshapen:
            raise ModelError(self.misshapen[0])


def read_stored(path: Path, names: Names | None = None) -> dict[str, StoredTensor]:
    """The tensors of a directory by their full names; names: of the family, for what is left out of them.

    Raises ModelError where there are no safetensors files, for damaged or truncated ones, for tensors stored twice and
    for an index that names what is not there.
    """
    chosen = in_directory(path)
    if not chosen.names or not all(name.endswith(FORMATS[0]) for name in chosen.names):
        raise ModelError(f"{printable(path)} has no *.safetensors files")
    tensors: dict[str, StoredTensor] = {}
    files: dict[str, str] = {}
    for file in chosen.names:
        for stored, tensor in read_tensors(path / file).items():
            if stored in tensors:
                where = f"{printable(files[stored])} and {printable(file)}"
                raise ModelError(f"Tensor {printable(stored)} is stored twice: in {where}")
            tensors[stored], files[stored] = tensor, file
    for stored, file in read_index(path / chosen.index).items() if chosen.index else ():
        if files.get(stored) != file:
            raise ModelError(
                f"{chosen.index} says that tensor {printable(stored)} is in {printable(file)}, but it is not there"
            )
    return {_full_name(stored, names): tensor for stored, tensor in tensors.items()}


def read_names(index: Path, names: Names | None = None) -> dict[str, None]:
    """The full names of the tensors that an index of shards names. Raises ModelError."""
    return {_full_name(stored, names): None for stored in read_index(index)}


def _full_name(stored: str, names: Names | None) -> str:
    return stored if names is None else full_name(stored, names)


def compare(stored: Mapping[str, StoredTensor | None], spec: ModelSpec, program: Program) -> Inventory:
    """What a checkpoint of plain weights with these tensors has of what the program needs."""
    names = spec.names
    needed = dict(_needed(program))
    for one in filter(None, (spec, spec.encoder)):
        if one.sinusoidal_positions:
            needed.pop(f"{one.names.positions}.weight", None)
    head, table = f"{names.head}.weight", f"{names.embedding}.weight"
    if names.head_bias is not None:  # stored as one row, or not at all
        needed.pop(f"{names.embedding if spec.tied_head else names.head}.bias", None)
        needed |= {names.head_bias: spec.vocab_size} if names.head_bias in stored else {}
    if spec.tied_head and table not in stored and head in stored:
        needed[head] = needed.pop(table)
    ignored = [re.compile(pattern) for pattern in names.ignored]
    rest = sorted(name for name in stored if name not in needed)
    if spec.tied_head and head in rest:
        rest.remove(head)  # used if its numbers are others than the embedding's
        needed[head] = needed.get(table, needed.get(head, ()))
    known = [name for name in rest if any(pattern.fullmatch(name) for pattern in ignored)]
    return Inventory(
        stored=stored,
        found=tuple(sorted(name for name in needed if name in stored)),
        missing=tuple(sorted(name for name in needed if name not in stored)),
        unused=tuple(name for name in rest if name not in known),
        ignored=tuple(known),
        misshapen=tuple(_misshapen(stored, needed)),
    )


def compare_modules(stored: Mapping[str, StoredTensor | None], spec: ModelSpec, program: Program) -> Inventory:
    """The same of a quantised checkpoint, module by module: which tensors a module has is known to its format alone."""
    plain = compare(stored, spec, program)
    modules = {_module(name): name for name in (*plain.missing, *plain.found)}
    by_module = {name: module for name in plain.unused if (module := _owner(name, modules)) is not None}
    covered = {modules[module] for module in by_module.values()}
    return replace(
        plain,
        found=tuple(sorted({*plain.found, *(covered & set(plain.missing))})),
        missing=tuple(name for name in plain.missing if name not in covered),
        unused=tuple(name for name in plain.unused if name not in by_module),
        misshapen=(),
    )


def _module(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def _owner(name: str, modules: Mapping[str, str]) -> str | None:
    """The module that a tensor of a format belongs to: `a.b` has `a.b.qweight`, `a.b_blocks`, `a.b.weight.absmax`."""
    for end in range(len(name) - 1, 0, -1):
        if name[end] in "._" and name[:end] in modules:
            return name[:end]
    return None


def _needed(program: Program) -> Iterator[tuple[str, tuple[int, ...] | int]]:
    """Names of stored tensors with their shapes; of vectors, how many numbers they have."""
    for weight in program.weights():
        yield from weight.stored_shapes()
    for vector in program.vectors():
        for name in vector.names:
            yield name, vector.size // len(vector.names)


def _misshapen(stored: Mapping[str, StoredTensor | None], needed: Mapping[str, tuple[int, ...] | int]) -> Iterator[str]:
    for name, wanted in needed.items():
        tensor = stored.get(name)
        if tensor is None:
            continue
        if (math.prod(tensor.shape) if isinstance(wanted, int) else tensor.shape) != wanted:
            shape = [wanted] if isinstance(wanted, int) else list(wanted)
            yield f"Tensor {name} has shape {list(tensor.shape)}, the model needs {shape}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _is(number: int) -> str:
    return "is" if number == 1 else "are"

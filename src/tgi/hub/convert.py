"""`python -m tgi.hub.convert DIRECTORY`: .bin or .pt weights -> safetensors beside them.

A short-lived process of its own, because it needs torch, which serving must not load. Reads with
`torch.load(weights_only=True)` alone: a checkpoint that holds anything but tensors is refused. One file at a time,
memory-mapped, and one tensor at a time into the new file. Prints a line for each file; the last line on standard
error says in a sentence what went wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgi.errors import DownloadError, ModelError
from tgi.hub import files
from tgi.untrusted import check_file, printable

if TYPE_CHECKING:
    import torch

DTYPE_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names of dtypes -> those of safetensors."""
_WRAPPERS = ("state_dict", "module", "model")


def main() -> int:
    """Exit status 0, or 1 with the reason as last line on standard error."""
    import torch

    torch.set_num_threads(1)  # files are only copied
    try:
        convert_directory(Path(sys.argv[1]))
    except DownloadError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the converted weights cannot be written: {error.strerror}: {error.filename or ''}", file=sys.stderr)
        return 1
    return 0


def convert_directory(directory: Path) -> None:
    """Write `model.safetensors`, or shards and an index, for the .bin or .pt files of a directory.

    A tensor that the checkpoint shares between names is written under each of them, so that the
    result says all that the original said. Raises `DownloadError`.
    """
    sources = files.in_directory(directory).names
    weight_map: dict[str, str] = {}
    total = 0
    with _all_or_nothing(directory) as temporary:
        for number, name in enumerate(sources, 1):
            began = time.monotonic()
            target = target_name(number, len(sources))
            tensors = load_tensors(directory / name)
            if twice := weight_map.keys() & tensors.keys():
                raise DownloadError(f"{printable(name)} holds {printable(min(twice))}, which another file holds too")
            weight_map |= dict.fromkeys(tensors, target)
            total += sum(tensor.nbytes for tensor in tensors.values())
            write_safetensors(temporary(target), tensors)
            took = timedelta(seconds=int(time.monotonic() - began))
            print(f"Convert: [{number}/{len(sources)}] -- Took: {took}", flush=True)
        if len(sources) > 1:
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
            temporary("model.safetensors.index.json").write_text(text)


def target_name(number: int, count: int) -> str:
    """`model.safetensors`, or the usual name of a shard."""
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint file, memory-mapped where its format allows."""
    import torch

    try:
        check_file(path)
    except ModelError as error:
        raise DownloadError(str(error)) from None
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before zip files cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DownloadError(
            f"{path.name} holds more than tensors, which could run code when it is read; it is refused. "
            "Use a version of the model with *.safetensors files"
        ) from None
    except Exception as error:  # a damaged file makes the reader fail in ways of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DownloadError(
            f"{printable(path.name)} cannot be read, it is damaged or cut off: {printable(reason)}"
        ) from None
    return dict(_named_tensors(_unwrap(loaded), path.name))


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write one file, a tensor at a time."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": DTYPE_NAMES[_dtype_name(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.numel():
                file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


@contextlib.contextmanager
def _all_or_nothing(directory: Path) -> Iterator[Callable[[str], Path]]:
    """Gives temporary paths for file names; they take their names together when the block succeeds.

    A half-converted model must never look like a model.
    """
    written: dict[Path, Path] = {}

    def temporary(name: str) -> Path:
        target = directory / name
        written[target] = target.with_name(f".{name}.{os.getpid()}.tmp")
        return written[target]

    try:
        yield temporary
        for target, path in written.items():
            path.replace(target)
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)


def _unwrap(loaded: Any) -> Any:
    """Some trainers put the tensors one level down."""
    if isinstance(loaded, dict):
        for name in _WRAPPERS:
            if isinstance(loaded.get(name), dict):
                return loaded[name]
    return loaded


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _named_tensors(loaded: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if not isinstance(loaded, dict) or not loaded:
        raise DownloadError(f"{name} is not a dictionary of tensors")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.is_sparse:
            raise DownloadError(f"{name}: entry {printable(repr(key))} is not a plain tensor")
        if _dtype_name(value) not in DTYPE_NAMES:
            raise DownloadError(f"{name}: {printable(key)} has type {value.dtype}, which safetensors cannot hold")
        yield key, value.detach()


if __name__ == "__main__":
    sys.exit(main())

"""What a checkpoint says of its quantisation, and whether `--quantize` agrees with it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.settings.flags import LIBRARY_ROUNDINGS, ROUNDINGS
from tgi.untrusted import printable, read_json

METHODS = ("awq", "bitsandbytes", "compressed-tensors", "fp8", "gguf", "gptq", "hqq", "mxfp4", "tgi", "torchao")
"""What `formats` reads."""
SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files of older writers -> the method where they do not name it."""
ALIASES = {
    "compressed_tensors": "compressed-tensors",
    "fbgemm_fp8": "fp8",
    "quark": "fp8",
    "marlin": "gptq",
    "auto-round": "gptq",
    "auto_round": "gptq",
    "intel/auto-round": "gptq",
}
"""Names of writers whose tensors are those of another method."""
SIGNS = (
    (".qweight", "gptq"),
    (".weight_packed", "compressed-tensors"),
    (".weight.absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".weight_scale_inv", "fp8"),
    (".W_q", "hqq"),
    ("._weight_qdata", "torchao"),
)
"""Ends of names of tensors -> the method they belong to, for a checkpoint without settings."""
Shapes = Mapping[str, tuple[int, ...]]
"""Tensor -> its shape."""
INSTEAD = (
    "serve the original, unquantised checkpoint (with --quantize int8 to int4 where memory is short), or a GPTQ or "
    "AWQ version of the model"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The quantisation of a checkpoint."""

    method: str
    """gptq, awq, bitsandbytes ..., without aliases."""
    settings: Mapping[str, Any]
    where: str
    """What says so, for messages."""

    @property
    def scheme(self) -> str | None:
        """The value of `--quantize` whose codes `tgi quantize` has stored; None for any other method."""
        if self.method != "tgi":
            return None
        scheme = self.settings.get("scheme")
        if scheme not in ROUNDINGS:
            raise ModelError(f"{self.where} has `scheme` = {printable(repr(scheme))}: {', '.join(ROUNDINGS)} are read")
        return scheme

    @property
    def shown(self) -> str:
        """For messages."""
        return printable(self.scheme or self.method)

    @property
    def flags(self) -> tuple[str, ...]:
        """Values of `--quantize` that ask for what it is."""
        if self.scheme is not None:
            return (self.scheme,)
        if self.method == "gptq":
            return ("gptq", "marlin")
        if self.method == "bitsandbytes":
            if not self.settings.get("load_in_4bit", self.settings.get("_load_in_4bit")):
                return ("bitsandbytes",)
            return (f"bitsandbytes-{self.settings.get('bnb_4bit_quant_type', 'fp4')}", "bitsandbytes")
        return (self.method,)


def read_stored(path: Path, config: Mapping[str, Any], shapes: Callable[[], Shapes]) -> Stored | None:
    """What config.json, the files beside it or else the tensors say; None for plain weights.

    shapes: of the checkpoint's tensors, or of some. Raises ModelError.
    """
    for key in ("quantization_config", "compression_config"):
        if settings := config.get(key):
            return stored(settings, f"`{key}` of config.json")
    for name, method in SIDE_FILES.items():
        if (path / name).is_file():
            return stored(read_json(path / name), name, method)
    return from_tensors(shapes())


def stored(settings: Any, where: str, method: str | None = None) -> Stored:
    """The same of one object of settings. method: where it names none."""
    if not isinstance(settings, dict):
        raise ModelError(f"{where} is not an object, so the checkpoint's quantisation is unknown")
    name = settings.get("quant_method", method)
    if name is None and ("config_groups" in settings or "sparsity_config" in settings):
        name = "compressed-tensors"
    if not isinstance(name, str):
        raise ModelError(f"{where} has no `quant_method`: say there how the checkpoint is quantised")
    name = name.lower()
    if name in ("auto-round", "auto_round", "intel/auto-round") and "awq" in str(settings.get("packing_format", "")):
        return Stored("awq", settings, where)
    return Stored(ALIASES.get(name, name), settings, where)


def from_tensors(shapes: Shapes) -> Stored | None:
    """What names and shapes of tensors tell; of layouts that differ in more than these it is the commonest one."""
    for name, shape in shapes.items():
        for end, method in SIGNS:
            if name.endswith(end):
                scales = shapes.get(f"{name.removesuffix(end)}.scales")
                if method == "gptq" and scales and shape[-1:] != scales[-1:]:
                    method = "awq"
                return Stored(method, {}, f"tensor {printable(name)}")
    return None


def check_method(stored: Stored | None) -> None:
    """Raise ModelError for a quantisation that nothing reads."""
    if stored is not None and stored.method not in METHODS:
        raise ModelError(
            f"The checkpoint is quantised as {printable(stored.method)} by {stored.where}; formats supported: "
            f"{', '.join(METHODS)}. What helps: {INSTEAD}"
        )


def rounding(quantize: str | None, stored: Stored | None) -> str | None:
    """The rounding that the server's matrices are in: on the fly as `--quantize` asks, or what `tgi quantize` stored.

    None: floats, or what the checkpoint has.
    Raises ModelError where the flag and the checkpoint contradict each other.
    """
    if quantize is None or (stored is not None and quantize in stored.flags):
        return None if stored is None else stored.scheme
    if stored is not None and stored.settings.get("quantised") is False:
        stored = None  # a GGUF file of floats
    if stored is not None:
        raise ModelError(
            f"--quantize {quantize} contradicts the checkpoint, which is quantised as {stored.shown} by "
            f"{stored.where}: leave --quantize out to serve it, or name an unquantised checkpoint"
        )
    if quantize == "marlin":
        raise ModelError(
            "--quantize marlin names a layout of GPTQ checkpoints, and the checkpoint is not quantised: use --quantize "
            "int4 or int8"
        )
    if quantize not in (*ROUNDINGS, *LIBRARY_ROUNDINGS):
        raise ModelError(
            f"--quantize {quantize}: the checkpoint is not quantised, and ordinary weights are rounded to "
            f"{', '.join((*ROUNDINGS, *LIBRARY_ROUNDINGS))} only: give one of these, or name a checkpoint that is "
            f"stored as {quantize}"
        )
    return quantize

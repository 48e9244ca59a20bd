"""Which file knows a stored format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tgi.quant.formats.awq import Awq
from tgi.quant.formats.base import StoredFormat
from tgi.quant.formats.bitsandbytes import BitsAndBytes
from tgi.quant.formats.compressed_tensors import CompressedTensors
from tgi.quant.formats.fp8 import Fp8
from tgi.quant.formats.gguf import Gguf
from tgi.quant.formats.gptq import Gptq
from tgi.quant.formats.hqq import Hqq
from tgi.quant.formats.microscaling import Mxfp4
from tgi.quant.formats.own import Own
from tgi.quant.formats.torchao import TorchAo

FORMATS: dict[str, Callable[[Mapping[str, Any]], StoredFormat]] = {
    "awq": Awq,
    "bitsandbytes": lambda _: BitsAndBytes(),
    "compressed-tensors": CompressedTensors,
    "fp8": Fp8,
    "gguf": lambda _: Gguf(),
    "gptq": Gptq,
    "hqq": lambda _: Hqq(),
    "mxfp4": lambda _: Mxfp4(),
    "tgi": Own,
    "torchao": lambda _: TorchAo(),
}
"""Method, one of `checkpoint.METHODS` -> its format, made from the checkpoint's settings."""

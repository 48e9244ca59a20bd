"""Writes a matrix in each stored format, from the published layouts and apart from the readers.

A writer gives the tensors of a module by the end of their names, the settings for config.json, and the matrix that the
codes stand for, in float32. It draws codes at random, so that all of them occur; bits are laid out one by one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Written:
    tensors: Tensors
    settings: dict[str, Any]
    matrix: torch.Tensor  # [rows, columns] float32


Writer = Callable[[int, int, np.random.Generator], Written]


def stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """codes [n, count] -> words [n, count bits / 32] int32, code after code from the lowest bit on."""
    each = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(each.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little").view(np.int32)


def whole_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The same with only whole codes in a word."""
    per = 32 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per)))
    words = [
        [sum(int(code) << bits * i for i, code in enumerate(row[k : k + per])) for k in range(0, len(row), per)]
        for row in padded
    ]
    return np.array(words, dtype=np.uint64).astype(np.uint32).view(np.int32)


def scales_of(rng: np.random.Generator, *shape: int, dtype: str = "float16") -> np.ndarray:
    return (rng.uniform(0.2, 1.8, shape) * 0.02).astype(dtype).astype(np.float32)


def by_column(values: np.ndarray, of_column: np.ndarray) -> np.ndarray:
    """values [rows, groups] -> [rows, columns]"""
    return values[:, of_column]


def half(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).half()


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def gptq(
    bits: int = 4, group: int = 32, *, act_order: bool = False, symmetric: bool = False, version: str = "gptq"
) -> Writer:
    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size = columns if group < 0 else group
        groups = -(-columns // size)
        of_column = np.arange(columns) // size
        if act_order:
            rng.shuffle(of_column)
        codes = rng.integers(0, 1 << bits, (rows, columns))
        least = 0 if version == "gptq_v2" else 1  # a zero point of 0 cannot be written less one
        points = rng.integers(least, 1 << bits, (rows, groups))
        if symmetric:
            points[:] = 1 << (bits - 1)
        scales = scales_of(rng, rows, groups)
        tensors = {
            "qweight": tensor(stream(codes, bits).T),
            "qzeros": tensor(stream(points.T - least, bits)),
            "scales": half(scales.T),
            "g_idx": tensor(of_column.astype(np.int32)),
        }
        matrix = (codes - by_column(points, of_column)).astype(np.float32) * by_column(scales, of_column)
        settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": symmetric}
        return Written(tensors, settings | {"checkpoint_format": version}, tensor(matrix))

    return write


def marlin(group: int = 128) -> Writer:
    """As marlin's own `pack` does: a permutation of 1024 codes, then of eight in a word."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size = columns if group < 0 else group
        codes, scales = rng.integers(0, 16, (columns, rows)), scales_of(rng, columns // size, rows)
        order: list[int] = []
        for i in range(32):
            ones = []
            for block in (0, 1):
                for row in (2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4 + 4), 2 * (i % 4 + 4) + 1):
                    ones.append(16 * row + i // 4 + 8 * block)
            for j in range(4):
                order.extend(one + 256 * j for one in ones)
        permutation = np.array(order).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].ravel()
        tiled = codes.reshape(columns // 16, 16, rows // 16, 16).transpose(0, 2, 1, 3).reshape(columns // 16, rows * 16)
        tiled = tiled.reshape(-1, permutation.size)[:, permutation].reshape(tiled.shape)
        if size < columns:
            scale_order = [i + 8 * j for i in range(8) for j in range(8)]
        else:
            scale_order = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
        stored = scales.reshape(-1, len(scale_order))[:, scale_order].reshape(scales.shape)
        tensors = {
            "B": tensor(whole_codes(tiled, 4)),
            "s": half(stored),
            "workspace": torch.zeros(16, dtype=torch.int32),
        }
        matrix = ((codes - 8) * np.repeat(scales, size, 0)).T.astype(np.float32)
        settings = {"quant_method": "gptq", "bits": 4, "group_size": group, "is_marlin_format": True}
        return Written(tensors, settings, tensor(matrix))

    return write


def awq(group: int = 32, *, gemv: bool = False) -> Writer:
    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        groups = columns // group
        codes, points = rng.integers(0, 16, (rows, columns)), rng.integers(0, 16, (rows, groups))
        scales = scales_of(rng, rows, groups)
        matrix = (codes - points.repeat(group, 1)).astype(np.float32) * scales.repeat(group, 1)
        settings = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemv" if gemv else "gemm"}

        def pack(values: np.ndarray) -> torch.Tensor:  # eight rows to a word, in the order 0 2 4 6 1 3 5 7
            eight = values.T.reshape(values.shape[1], -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
            return tensor(whole_codes(eight.reshape(values.shape[1], -1), 4))

        if not gemv:
            tensors = {"qweight": pack(codes), "qzeros": pack(points), "scales": half(scales.T)}
            return Written(tensors, settings, tensor(matrix))
        times = 1 if group >= 128 else 2 if group == 64 else 4
        words = math.ceil(math.ceil(groups / 8) / times) * times
        padded = np.pad(points, ((0, 0), (0, 8 * words - groups)))
        tensors = {
            "qweight": tensor(whole_codes(codes, 4)),
            "qzeros": tensor(whole_codes(padded, 4)),
            "scales": half(np.pad(scales, ((0, 0), (0, 8 * words - groups)))),
        }
        return Written(tensors, settings, tensor(matrix))

    return write


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FP4 = (0.0, 0.0052083333, 0.6666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
FP4 += tuple(-value for value in FP4)


def four_bits(
    kind: str = "nf4", block: int = 64, *, nested: bool = False, storage: torch.dtype = torch.uint8
) -> Writer:
    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        count = rows * columns
        codes, blocks = rng.integers(0, 16, count), -(-count // block)
        book = np.array(NF4 if kind == "nf4" else FP4, dtype=np.float32)
        state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "float16", "shape": [rows, columns]}
        pairs = (codes[::2] << 4 | codes[1::2]).astype(np.uint8)
        tensors: Tensors = {"weight": tensor(pairs).view(storage).view(-1, 1), "weight.quant_map": tensor(book)}
        scales = scales_of(rng, blocks, dtype="float32")
        if nested:
            outer = 128  # small, so that there are several
            table, names = np.linspace(-1, 1, 256, dtype=np.float32), rng.integers(0, 256, blocks).astype(np.uint8)
            absmax = scales_of(rng, -(-blocks // outer), dtype="float32")
            scales = table[names] * absmax.repeat(outer)[:blocks] + np.float32(0.03)
            tensors |= {"weight.absmax": tensor(names), "weight.nested_absmax": tensor(absmax)}
            tensors |= {"weight.nested_quant_map": tensor(table)}
            state |= {"nested_blocksize": outer, "nested_offset": float(np.float32(0.03)), "nested_dtype": "float32"}
        else:
            tensors["weight.absmax"] = tensor(scales)
        text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8).copy()
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = tensor(text)
        matrix = (book[codes] * scales.repeat(block)[:count]).reshape(rows, columns)
        settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
        return Written(tensors, settings, tensor(matrix))

    return write


def eight_bits(rows: int, columns: int, rng: np.random.Generator) -> Written:
    codes, scb = rng.integers(-127, 128, (rows, columns)), scales_of(rng, rows, dtype="float32") * 127
    tensors = {"weight": tensor(codes.astype(np.int8)), "SCB": tensor(scb)}
    tensors["weight_format"] = torch.tensor(0, dtype=torch.uint8)
    matrix = codes.astype(np.float32) * (scb / np.float32(127))[:, None]
    return Written(tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensor(matrix))


def floats(
    kind: str = "channel", name: str = "weight_scale", method: str = "fp8", dtype: torch.dtype = torch.float8_e4m3fn
) -> Writer:
    """kind: tensor, channel or block."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        values = tensor(rng.normal(size=(rows, columns)).astype(np.float32) * 30).to(dtype)
        settings: dict[str, Any] = {"quant_method": method, "activation_scheme": "static"}
        shape = {"tensor": (1, 1), "channel": (rows, 1), "block": (-(-rows // 128), -(-columns // 128))}[kind]
        scales = tensor(scales_of(rng, *shape, dtype="float32"))
        full = scales
        if kind == "block":
            settings["weight_block_size"] = [128, 128]
            full = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        scheme = {
            "num_bits": 8,
            "type": "float",
            "strategy": kind,
            "block_structure": [128, 128] if kind == "block" else None,
        }
        if method == "compressed-tensors":
            settings = {
                "quant_method": method,
                "format": "float-quantized",
                "config_groups": {"group_0": {"weights": scheme}},
            }
        stored = scales[0, 0].clone() if kind == "tensor" else scales
        tensors = {"weight": values, name: stored, "input_scale": torch.tensor([0.5])}
        return Written(tensors, settings, values.float() * full)

    return write


def compressed(
    bits: int = 4,
    group: int | None = 32,
    *,
    symmetric: bool = True,
    packed: bool = True,
    act_order: bool = False,
    pack: Callable[[np.ndarray, int], np.ndarray] = stream,
) -> Writer:
    """group: None for a scale a row. pack: `whole_codes` as versions before 0.20 of the library did."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size, half_range = group or columns, 1 << (bits - 1)
        groups = columns // size
        of_column = np.arange(columns) // size
        if act_order:
            rng.shuffle(of_column)
        codes = rng.integers(-half_range, half_range, (rows, columns))
        points = (
            np.zeros((rows, groups), dtype=np.int64)
            if symmetric
            else rng.integers(-half_range, half_range, (rows, groups))
        )
        scales = tensor(scales_of(rng, rows, groups)).bfloat16()
        tensors: Tensors = {"weight_scale": scales}
        if packed:
            tensors["weight_packed"] = tensor(pack(codes + half_range, bits))
            tensors["weight_shape"] = torch.tensor([rows, columns])
        else:
            tensors["weight"] = tensor(codes.astype(np.int8))
        if not symmetric and packed:
            tensors["weight_zero_point"] = tensor(pack((points + half_range).T, bits).T)
        elif not symmetric:
            tensors["weight_zero_point"] = tensor(points.astype(np.int8))
        if act_order:
            tensors["weight_g_idx"] = tensor(of_column.astype(np.int32))
        scheme = {
            "num_bits": bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "group" if group else "channel",
            "group_size": group,
        }
        settings = {"quant_method": "compressed-tensors", "format": "pack-quantized" if packed else "int-quantized"}
        settings |= {"config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}}, "ignore": ["lm_head"]}
        matrix = (codes - by_column(points, of_column)).astype(np.float32) * by_column(
            scales.float().numpy(), of_column
        )
        return Written(tensors, settings, tensor(matrix))

    return write


E2M1 = np.array([sign * value for sign in (1, -1) for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6)], dtype=np.float32)


def microscaling(kind: str = "mxfp4") -> Writer:
    """mxfp4, or of compressed-tensors: ct-mxfp4, ct-nvfp4."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        group = 16 if kind == "ct-nvfp4" else 32
        codes, groups = rng.integers(0, 16, (rows, columns)), columns // group
        pairs = tensor((codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8))
        exponents = rng.integers(118, 126, (rows, groups)).astype(np.uint8)
        scales = np.exp2(exponents.astype(np.float32) - 127)
        settings = {"quant_method": "compressed-tensors", "format": f"{kind.removeprefix('ct-')}-pack-quantized"}
        tensors: Tensors = {"weight_packed": pairs, "weight_scale": tensor(exponents)}
        if kind == "mxfp4":
            tensors = {"_blocks": pairs.view(rows, groups, 16), "_scales": tensor(exponents)}
            settings = {"quant_method": "mxfp4"}
        if kind == "ct-nvfp4":
            stored = tensor(scales_of(rng, rows, groups) * 1000).to(torch.float8_e4m3fn)
            whole = torch.tensor([700.0])
            tensors = {"weight_packed": pairs, "weight_scale": stored, "weight_global_scale": whole}
            scales = (stored.float() / whole).numpy()
        return Written(tensors, settings, tensor(E2M1[codes] * scales.repeat(group, 1)))

    return write


def hqq(bits: int = 4, group: int = 32) -> Writer:
    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        count = rows * columns // group
        codes = rng.integers(0, 1 << bits, (count, group))
        scales, zeros = (
            scales_of(rng, count, 1),
            rng.uniform(0, 1 << bits, (count, 1)).astype(np.float16).astype(np.float32),
        )
        step, packed = count * bits // 8, np.zeros((count * bits // 8, group), dtype=np.int64)
        for part in range(8 // bits):
            packed |= codes[part * step : (part + 1) * step] << (8 - bits * (part + 1))
        tensors = {"W_q": tensor(packed.astype(np.uint8)), "scale": half(scales), "zero": half(zeros)}
        tensors |= {name: torch.tensor(value) for name, value in (("nbits", bits), ("group_size", group), ("axis", 1))}
        tensors["shape"] = torch.tensor([rows, columns])
        matrix = ((codes.astype(np.float32) - zeros) * scales).reshape(rows, columns)
        return Written(tensors, {"quant_method": "hqq"}, tensor(matrix))

    return write


def torchao_int8(group: int | None = None, *, zeros: bool = False, bits: int = 8) -> Writer:
    """Int8Tensor, and IntxUnpackedToInt8Tensor with zero points. group: None for a scale a row."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size, half_range = group or columns, 1 << (bits - 1)
        codes = rng.integers(-half_range, half_range, (rows, columns))
        scales, points = scales_of(rng, rows, columns // size), np.zeros((rows, columns // size), dtype=np.int64)
        tensors = {"_weight_qdata": tensor(codes.astype(np.int8)), "_weight_scale": half(scales)}
        if zeros:
            points = rng.integers(-half_range, half_range, points.shape)
            tensors["_weight_zero_point"] = tensor(points.astype(np.int8))
        matrix = (codes - points.repeat(size, 1)).astype(np.float32) * scales.repeat(size, 1)
        return Written(tensors, {"quant_method": "torchao", "quant_type": {"default": {}}}, tensor(matrix))

    return write


def torchao_int4(group: int = 32) -> Writer:
    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        codes = rng.integers(-8, 8, (rows, columns))
        scales, offsets = (scales_of(rng, columns // group, rows) for _ in range(2))
        low, high = codes[:, ::2] & 15, codes[:, 1::2] & 15
        tensors = {
            "_weight_qdata": tensor((low | high << 4).astype(np.uint8)).view(torch.int8),
            "_weight_scale": half(scales),
            "_weight_zero_point": half(offsets),
        }
        matrix = codes.astype(np.float32) * scales.T.repeat(group, 1) + offsets.T.repeat(group, 1)
        return Written(tensors, {"quant_method": "torchao"}, tensor(matrix))

    return write


def torchao_floats(kind: str) -> Writer:
    """Float8Tensor, which differs from other fp8 in its names."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        written = floats("channel" if kind == "channel" else "tensor")(rows, columns, rng)
        tensors = {"_weight_qdata": written.tensors["weight"], "_weight_scale": written.tensors["weight_scale"]}
        return Written(tensors, {"quant_method": "torchao"}, written.matrix)

    return write


WRITERS: dict[str, Writer] = {
    **{f"gptq {bits} bits": gptq(bits) for bits in (2, 3, 4, 8)},
    "gptq 3 bits act-order": gptq(3, 64, act_order=True),
    "gptq groups of 64": gptq(4, 64),
    "gptq groups of 128 act-order": gptq(4, 128, act_order=True),
    "gptq one group": gptq(4, -1),
    "gptq symmetric 8 bits": gptq(8, -1, symmetric=True),
    "gptq symmetric": gptq(4, 128, symmetric=True),
    "gptq v2": gptq(4, 32, version="gptq_v2"),
    "gptq v2 3 bits": gptq(3, 32, version="gptq_v2"),
    "marlin": marlin(),
    "marlin one group": marlin(-1),
    "awq": awq(),
    "awq 64": awq(64),
    "awq 128": awq(128),
    "awq gemv": awq(32, gemv=True),
    "awq gemv 64": awq(64, gemv=True),
    "awq gemv 128": awq(128, gemv=True),
    "nf4": four_bits(),
    "nf4 nested": four_bits(nested=True),
    "nf4 blocks across rows": four_bits(block=512),
    "nf4 in bfloat16": four_bits(storage=torch.bfloat16),
    "fp4": four_bits("fp4", 128),
    "fp4 nested": four_bits("fp4", nested=True),
    "bitsandbytes int8": eight_bits,
    "fp8 tensor": floats("tensor"),
    "fp8 channel": floats("channel"),
    "fp8 e5m2": floats("channel", dtype=torch.float8_e5m2),
    "fp8 block": floats("block", "weight_scale_inv"),
    "fp8 quark": floats("tensor", method="quark"),
    "ct int8": compressed(8, None, packed=False),
    "ct int8 groups with zeros": compressed(8, 64, packed=False, symmetric=False),
    "ct packed 4": compressed(),
    "ct packed 4 zeros": compressed(4, 64, symmetric=False),
    "ct packed 4 act-order": compressed(4, 32, symmetric=False, act_order=True),
    "ct packed 8": compressed(8, None),
    "ct packed 3": compressed(3, 32, symmetric=False),
    "ct packed 3 whole": compressed(3, 32, symmetric=False, pack=whole_codes),
    "ct packed 5": compressed(5, 32),
    "ct packed 6 whole": compressed(6, 32, symmetric=False, pack=whole_codes),
    "ct packed 7": compressed(7, 64, symmetric=False),
    "ct fp8": floats("channel", method="compressed-tensors"),
    "ct fp8 tensor": floats("tensor", method="compressed-tensors"),
    "ct fp8 block": floats("block", method="compressed-tensors"),
    "ct mxfp4": microscaling("ct-mxfp4"),
    "ct nvfp4": microscaling("ct-nvfp4"),
    "mxfp4": microscaling(),
    **{f"hqq {bits} bits": hqq(bits) for bits in (1, 2, 4, 8)},
    "torchao int8": torchao_int8(),
    "torchao int8 groups": torchao_int8(64, zeros=True),
    "torchao intx": torchao_int8(32, zeros=True, bits=5),
    "torchao int4": torchao_int4(),
    "torchao fp8 channel": torchao_floats("channel"),
    "torchao fp8 tensor": torchao_floats("tensor"),
}

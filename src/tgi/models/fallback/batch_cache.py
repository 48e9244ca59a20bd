"""Caches of transformers, of one sequence each, joined to a padded batch of them and taken apart again.

Keys and values get zeros before their first token, as a prompt padded on the left would have; states have no length.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

LENGTHS = ("keys", "values")
"""Attributes of a layer whose second last dimension counts tokens."""


BOTH = ("self_attention_cache", "cross_attention_cache")
"""The caches in that of a decoder that also attends to an encoder's results."""


class UnknownCacheError(Exception):
    """A cache whose parts are not known: its sequences run one by one."""


def join(caches: Sequence[Any]) -> Any:
    """One cache of all sequences, which have the last token in common. Raises UnknownCacheError."""
    if all(hasattr(cache, name) for cache in caches for name in BOTH):
        both = copy.copy(caches[0])
        for name in BOTH:
            setattr(both, name, join([getattr(cache, name) for cache in caches]))
        return both
    _check(caches)
    joined = copy.copy(caches[0])
    joined.layers = [_join_layers([cache.layers[i] for cache in caches]) for i in range(len(caches[0].layers))]
    return joined


def part(joined: Any, row: int, length: int, input_length: int = 0) -> Any:
    """The cache of one sequence of `length` tokens again; input_length: tokens of the encoder's input."""
    if all(hasattr(joined, name) for name in BOTH):
        both = copy.copy(joined)
        for name, tokens in zip(BOTH, (length, input_length), strict=True):
            setattr(both, name, part(getattr(joined, name), row, tokens))
        return both
    alone = copy.copy(joined)
    alone.layers = [_part_of_layer(layer, row, length) for layer in joined.layers]
    return alone


def _check(caches: Sequence[Any]) -> None:
    if any(not isinstance(getattr(cache, "layers", None), list) for cache in caches):
        raise UnknownCacheError("a cache without layers")


def _join_layers(layers: Sequence[Any]) -> Any:
    joined = copy.copy(layers[0])
    for name, value in vars(layers[0]).items():
        setattr(joined, name, _join_values(name, [vars(layer)[name] for layer in layers], value))
    return joined


def _join_values(name: str, values: list[Any], first: Any) -> Any:
    if isinstance(first, torch.Tensor) and first.dim() > 1:
        if name in LENGTHS:
            longest = max(value.shape[-2] for value in values)
            values = [F.pad(value, (0, 0, longest - value.shape[-2], 0)) for value in values]
        if any(value.shape != values[0].shape or value.shape[0] != 1 for value in values):
            raise UnknownCacheError(f"`{name}` of different shapes")
        return torch.cat(values)
    if isinstance(first, dict):
        return {key: _join_values(name, [value[key] for value in values], first[key]) for key in first}
    if isinstance(first, int) and not isinstance(first, bool) and "length" in name:
        return max(values)
    if isinstance(first, torch.Tensor | list):
        if first is not values[-1] and not _same(first, values):
            raise UnknownCacheError(f"`{name}`")
        return first
    if any(value != first for value in values):
        raise UnknownCacheError(f"`{name}` of different values")
    return first


def _same(first: Any, values: list[Any]) -> bool:
    if isinstance(first, torch.Tensor):
        return all(value.shape == first.shape and torch.equal(value, first) for value in values)
    return all(value == first for value in values)


def _part_of_layer(layer: Any, row: int, length: int) -> Any:
    alone = copy.copy(layer)
    for name, value in vars(layer).items():
        setattr(alone, name, _part_of_value(name, value, row, length))
    return alone


def _part_of_value(name: str, value: Any, row: int, length: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() > 1:
        mine = value[row : row + 1]
        # a copy, since others go on in the rest
        return mine[..., max(mine.shape[-2] - length, 0) :, :].clone() if name in LENGTHS else mine.clone()
    if isinstance(value, dict):
        return {key: _part_of_value(name, item, row, length) for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and "length" in name:
        return min(value, length) if name.startswith("cumulative") else value
    return value

"""Whether a way of computing a model gives what the model gives: three sequences together and in pieces, against each
alone.

Made at every load, before the first request.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch

from tgi.kernels.types import Backend, CacheShape, CompiledStep, EncoderKeys, KVCache, Paging

STEPS = (
    (9, 20, 0),
    (1, 9, 10),
    (1, 1, 1),
    (0, 1, 1),
    (1, 1, 12),
    (0, 7, 1),
    (1, 1, 1),
    (0, 1, 0),
)
"""Tokens of each sequence in each step: prompts, chunks, single tokens, and sequences that come late or pause. Two have
one length for a while."""
LENGTHS = tuple(map(sum, zip(*STEPS, strict=True)))
INPUTS = (11, 38, 23)
"""Tokens that an encoder reads for each."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}
"""Greatest distance of logits, in norms: below it the roundings of different orders of adding, far above what a dropped
argument does."""


class Oracle:
    """The model as transformers runs it: one sequence at a time, without a cache."""

    def __init__(self, model: Any) -> None:
        self._generator = torch.Generator().manual_seed(20)
        size = model.get_input_embeddings().weight.shape[0]
        self.inputs: list[torch.Tensor] = []
        """What the encoder reads, if there is one."""
        if model.config.is_encoder_decoder:
            self.inputs = [self._ids(model, size, length) for length in INPUTS]
            size = min(size, model.get_output_embeddings().weight.shape[0])
        self.sequences = [self._ids(model, size, length) for length in LENGTHS]
        self.logits = [self._alone(model, number) for number in range(len(LENGTHS))]

    def _ids(self, model: Any, size: int, length: int) -> torch.Tensor:
        """Random ones; padding, which some classes mask, is none of them."""
        ids = torch.randint(size, (length,), generator=self._generator)
        pad = getattr(model.config, "pad_token_id", None)
        return ids if pad is None else torch.where(ids == pad, (pad + 1) % size, ids)

    def _alone(self, model: Any, number: int) -> torch.Tensor:
        ids = self.sequences[number][None].to(model.device)
        if not self.inputs:
            return model(input_ids=ids, use_cache=False).logits[0].float()
        given = self.inputs[number][None].to(model.device)
        mask = torch.ones_like(given)
        return model(input_ids=given, attention_mask=mask, decoder_input_ids=ids, use_cache=False).logits[0].float()


def difference(step: CompiledStep, backend: Backend, oracle: Oracle) -> float:
    """Greatest relative distance of logits over the three sequences."""
    size = backend.block_size
    blocks = -(-max(LENGTHS) // size)
    cache = backend.allocate_cache(CacheShape(step.program.cache, step.dtype), 2 * len(LENGTHS) * blocks)
    tables = [[len(LENGTHS) * block + number for block in range(blocks)] for number in range(len(LENGTHS))]
    inputs = [[len(LENGTHS) * blocks + block for block in table] for table in tables]
    done, found = [0] * len(LENGTHS), [[] for _ in LENGTHS]
    for counts in STEPS:
        rows = [number for number, count in enumerate(counts) if count]
        lens = [counts[number] for number in rows]
        starts = [done[number] for number in rows]
        ids = torch.cat([oracle.sequences[n][s : s + c] for n, s, c in zip(rows, starts, lens, strict=True)])
        paging = _paging([tables[number] for number in rows], starts, lens, size, step.device)
        if oracle.inputs:
            _encode(step, oracle, [number for number in rows if not done[number]], inputs, cache)
            given = [inputs[number] for number in rows]
            counts_in = [INPUTS[number] for number in rows]
            paging.encoder = EncoderKeys(torch.tensor(given), counts_in, torch.tensor(counts_in, device=step.device))
        logits = step.logits(step.forward(ids.to(step.device), paging, cache))
        for number, part in zip(rows, logits.split(lens), strict=True):
            found[number].append(part)
            done[number] += len(part)
    distances = []
    for number, parts in enumerate(found):
        wanted = oracle.logits[number][: done[number]]
        gap = torch.cat(parts) - wanted
        distances.append(float((gap.norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-9)).max()))
    return max(distances)


def _encode(step: CompiledStep, oracle: Oracle, new: list[int], tables: list[list[int]], cache: KVCache) -> None:
    if new:
        lens = [INPUTS[number] for number in new]
        paging = _paging([tables[number] for number in new], [0] * len(new), lens, cache.block_size, step.device)
        step.encode(torch.cat([oracle.inputs[number] for number in new]).to(step.device), paging, cache)


def _paging(tables: list[list[int]], starts: list[int], lens: list[int], size: int, device: torch.device) -> Paging:
    contexts = [start + count for start, count in zip(starts, lens, strict=True)]
    spans = [(table, range(s, e)) for table, s, e in zip(tables, starts, contexts, strict=True)]
    positions = [position for _, span in spans for position in span]
    slots = [table[position // size] * size + position % size for table, span in spans for position in span]
    return Paging(
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        block_tables=torch.tensor(tables, device=device),
        query_lens=lens,
        context_lens=contexts,
        query_starts=torch.tensor([0, *accumulate(lens)], device=device),
        contexts=torch.tensor(contexts, device=device),
    )

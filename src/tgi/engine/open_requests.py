"""The unfinished samples of every request, and how a request becomes samples.

Owns their register and the counts by group. Does not know which of them run (`scheduler`). Imports no torch.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

from tgi.engine.plan import has_penalty
from tgi.engine.sequence import Sequence
from tgi.messages import EmbedRequest, GenerateRequest, Sampling


class OpenRequests:
    """Request id -> index -> sequence."""

    def __init__(self, decoder_ids: tuple[int, ...] = ()) -> None:
        """decoder_ids: see `Scheduler`."""
        self._decoder_ids = decoder_ids
        self._requests: dict[int, dict[int, Sequence]] = {}
        self._by_id: dict[int, Sequence] = {}
        self._ids = count(random.getrandbits(48))  # two schedulers of one worker never give the same id
        self._added = 0
        self.groups: Counter[int] = Counter()
        """Group -> unfinished sequences; only groups that have some."""

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence that has not had its last event."""
        return list(self._by_id.values())

    def find(self, sequence_id: int) -> Sequence | None:
        """The sequence with this id; None if it is finished."""
        return self._by_id.get(sequence_id)

    def of(self, request_id: int) -> list[Sequence]:
        """The unfinished samples of a request; none for an unknown id."""
        return list(self._requests.get(request_id, {}).values())

    def add(
        self, request: GenerateRequest, *, prefix_caching: bool, paced: bool, shares_blocks: bool = True
    ) -> Sequence:
        """The first sample of the request, which has the others as followers."""
        # Samples share blocks even when prefixes of other requests are not to be reused.
        salt = f"s{request.cache_salt}" if prefix_caching else f"r{request.request_id}"
        decoder_ids = request.decoder_ids or self._decoder_ids
        prompt_ids, encoder_ids = (decoder_ids, request.prompt_ids) if decoder_ids else (request.prompt_ids, [])
        samples = [
            Sequence(
                id=next(self._ids),
                request_id=request.request_id,
                index=index,
                token_ids=list(prompt_ids),
                num_prompt=len(prompt_ids),
                encoder_ids=encoder_ids,
                num_unencoded=len(encoder_ids),
                sampling=request.sampling,
                counts_tokens=has_penalty(request.sampling) or request.grammar is not None,
                grammar=request.grammar,
                ready=request.grammar is None,
                seed=seed,
                arrival=request.arrival,
                order=self._added,
                label=request.label,
                group=request.group,
                cache_salt=salt,
                cacheable=shares_blocks and not encoder_ids and (prefix_caching or len(request.seeds) > 1),
                paced=paced,
            )
            for index, seed in enumerate(request.seeds)
        ]
        self._enter(samples)
        samples[0].followers = samples[1:]
        return samples[0]

    def add_embedding(
        self, request: EmbedRequest, *, prefix_caching: bool, paced: bool, shares_blocks: bool = True
    ) -> Sequence:
        """The sequence that becomes a vector."""
        sequence = Sequence(
            id=next(self._ids),
            request_id=request.request_id,
            index=0,
            token_ids=list(request.prompt_ids),
            num_prompt=len(request.prompt_ids),
            sampling=Sampling(max_new_tokens=0),
            seed=0,
            arrival=request.arrival,
            order=self._added,
            group=request.group,
            cache_salt=f"s{request.cache_salt}",
            cacheable=shares_blocks and prefix_caching,
            paced=paced,
            embed=request,
        )
        self._enter([sequence])
        return sequence

    def _enter(self, samples: list[Sequence]) -> None:
        self._requests[samples[0].request_id] = {sample.index: sample for sample in samples}
        self._by_id |= {sample.id: sample for sample in samples}
        self._added += 1
        self.groups[samples[0].group] += len(samples)

    def remove(self, sequence: Sequence) -> None:
        del self._by_id[sequence.id]
        samples = self._requests[sequence.request_id]
        del samples[sequence.index]
        if not samples:
            del self._requests[sequence.request_id]
        self.groups[sequence.group] -= 1
        if not self.groups[sequence.group]:
            del self.groups[sequence.group]

"""From logits to tokens: one call a step for all sequences that sample.

Order of TGI: watermark, repetition penalty, frequency and presence penalty, logit bias, the ban on
ending before `min_new_tokens`, grammar; temperature, top-k, top-p, typical-p; pick. Rows of the same kind are
worked on together:

    plain     greedy, nothing to warp: best token and normaliser
    whole     temperature alone: one number against the cumulative probabilities in order of id
    narrowed  top-k, top-p, typical-p: decided among the most likely tokens; a row for which these
              do not suffice is masked exactly and continues as "whole"

The random number is a function of (seed, position) and is always held against the cumulative
probabilities in order of token id, so that a token depends on its own distribution alone: not on the
batch, nor on the way it was computed. Knows nothing of stop conditions, which are the scheduler's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgi.engine.grammar.masks import RowMasks
from tgi.engine.plan import Draw
from tgi.engine.sampling import processors
from tgi.engine.sampling.logprobs import Alternatives, alternatives, prompt_logprobs, ranked_logprobs
from tgi.engine.sampling.philox import uniforms
from tgi.engine.sampling.processors import SamplerState
from tgi.engine.sampling.warpers import CANDIDATES, Candidates, has_warper, kept_tokens, narrow, needs_whole_row
from tgi.engine.sampling.watermark import Watermark
from tgi.kernels.reference.vocabulary import TorchVocabulary, pick_among, row_sums
from tgi.kernels.types import Vocabulary
from tgi.messages import Sampling, Token

__all__ = ["Sampler", "prompt_logprobs"]

NOTHING_LEFT = "No token can be chosen: penalties, logit_bias, min_new_tokens and grammar leave no finite logit"


@dataclass(slots=True)
class _Choice:
    """Tokens chosen for a group of rows; the log-probability is NaN where none can be chosen."""

    ids: Tensor  # [rows] int64
    logprobs: Tensor  # [rows] float64
    tops: list[Alternatives]


class Sampler:
    """Chooses the next token of each row. Remembers counts of open sequences and a cache of green lists."""

    def __init__(
        self,
        vocab_size: int,
        device: torch.device,
        watermark_gamma: float = 0.5,
        watermark_delta: float = 2.0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """vocabulary: the implementation of what runs over whole rows; None: torch's."""
        self.vocab_size = vocab_size
        self.vocabulary = vocabulary or TorchVocabulary()
        self.watermark = Watermark(vocab_size, device, watermark_gamma, watermark_delta)
        self._states: dict[int, SamplerState] = {}

    def sample(self, logits: Tensor, draws: list[Draw], masks: RowMasks | None = None) -> list[Token | str]:
        """The next token of each draw, or a sentence that says why it has none.

        `logits` [rows, vocabulary] float32, row i for draw i; left unchanged. Only the row with
        a NaN, with +inf, or with nothing but -inf fails. masks: of the rows whose draw has a grammar.
        """
        assert logits.shape == (len(draws), self.vocab_size), (logits.shape, len(draws))
        logits = logits.float()
        if not all(map(_is_greedy, draws)):
            results = self._choose(logits, draws, masks)
        else:
            results = self._greedy(logits) if masks is None else self._greedy_masked(logits, draws, masks)
        if masks is not None:
            for row, error in masks.errors.items():
                results[row] = error
        return results

    def forget(self, sequence_ids: list[int]) -> None:
        """Drop what is remembered of these sequences; it would be made again from the next draw."""
        for sequence_id in sequence_ids:
            self._states.pop(sequence_id, None)

    def _state(self, draw: Draw) -> SamplerState:
        """What is remembered of the sequence, with its newest tokens counted."""
        state = self._states.get(draw.sequence_id)
        if state is None:
            state = SamplerState.of(draw, self.vocab_size)
            if draw.sequence_id >= 0:
                self._states[draw.sequence_id] = state
        if state.counts is not None:
            state.counts.update(draw)
        return state

    def _greedy(self, logits: Tensor) -> list[Token | str]:
        """What "plain" does, in few operations: after a forward pass each finds its code out of the caches."""
        best, masses = self.vocabulary.best_and_mass(logits)
        return [
            self._reason(logits[row]) if math.isnan(mass) else Token(token, -mass)
            for row, (token, mass) in enumerate(zip(best, masses, strict=True))
        ]

    def _greedy_masked(self, logits: Tensor, draws: list[Draw], masks: RowMasks) -> list[Token | str]:
        """The same where the best token of a row may be banned.

        A row whose best token is allowed is done if its log-probability is the model's own.
        """
        results = self._greedy(logits)
        own, processed = [], []
        for index, row in enumerate(masks.rows):
            token = results[row]
            if not isinstance(token, Token):
                continue
            if not draws[row].sampling.raw_logprobs:
                processed.append(index)
            elif not masks.allows(index, token.id):
                own.append(index)
        for indices in (own, processed):
            if indices:
                self._choose_allowed(logits, masks, indices, results, own=indices is own)
        return results

    def _choose_allowed(
        self, logits: Tensor, masks: RowMasks, indices: list[int], results: list[Token | str], *, own: bool
    ) -> None:
        """In place of the best tokens of these masked rows the best allowed ones.

        own: with the model's own log-probability, which is as far below the best one's as the logit is.
        """
        rows = [masks.rows[index] for index in indices]
        best, values, masses = self.vocabulary.best_allowed(logits, rows, masks.bits[indices], with_masses=not own)
        before = [token.id for row in rows if isinstance(token := results[row], Token)]
        highest = logits[rows, before].tolist() if own else []
        for at, row in enumerate(rows):
            first = results[row]
            if values[at] == -math.inf:
                results[row] = NOTHING_LEFT
            elif own and isinstance(first, Token):
                results[row] = Token(best[at], first.logprob + values[at] - highest[at])
            else:
                results[row] = Token(best[at], -masses[at])

    @torch.inference_mode()
    def _choose(self, logits: Tensor, draws: list[Draw], masks: RowMasks | None) -> list[Token | str]:
        states = [self._state(draw) for draw in draws]
        groups: dict[str, list[int]] = {"plain": [], "whole": [], "narrowed": []}
        for row, draw in enumerate(draws):
            groups[_kind(draw.sampling)].append(row)
        results: list[Token | str] = [""] * len(draws)
        for kind, rows in groups.items():
            if not rows:
                continue
            group = [draws[row] for row in rows]
            samplings = [draw.sampling for draw in group]
            values = self._processed(logits, rows, group, [states[row] for row in rows], masks)
            if kind == "plain":
                choice = self._choose_plain(values, samplings)
            else:
                numbers = uniforms([draw.seed for draw in group], [draw.position for draw in group])
                uniform = torch.from_numpy(numbers).to(logits.device)
                if kind == "whole":
                    choice = self._choose_whole(values, samplings, uniform)
                else:
                    choice = self._choose_narrowed(values, samplings, uniform)
            tokens = self._tokens(choice, logits, rows, group)
            for row, token in zip(rows, tokens, strict=True):
                results[row] = token
        return results

    def _processed(
        self,
        logits: Tensor,
        rows: list[int],
        draws: list[Draw],
        states: list[SamplerState],
        masks: RowMasks | None,
    ) -> Tensor:
        """These rows of the logits after the processors: a copy if anything changes."""
        values = logits if len(rows) == len(logits) else logits[rows]
        if not any(map(_is_processed, draws)):
            return values
        values = values.clone() if values is logits else values
        for index, draw in enumerate(draws):
            if draw.sampling.watermark:
                self.watermark.apply(values[index], draw.token_ids[-1])
        each = list(zip(range(len(rows)), draws, states, strict=True))
        processors.apply_penalties(values, each)
        processors.apply_bias(values, each)
        if masks is not None:
            masks.apply(values, rows, self.vocabulary)
        return values

    def _tokens(self, choice: _Choice, logits: Tensor, rows: list[int], draws: list[Draw]) -> list[Token | str]:
        """The choice for `rows` of the model's `logits` as results."""
        ids, logprobs, tops = choice.ids.tolist(), choice.logprobs.tolist(), choice.tops
        failed = [math.isnan(logprob) for logprob in logprobs]
        owns: list[float | None] = [None] * len(ids)
        own = [index for index, draw in enumerate(draws) if _needs_own(draw)]
        if own:
            values = logits[[rows[index] for index in own]]
            counts = _top_counts([draws[index].sampling for index in own], values)
            ranks, ids_by_rank, (best, mass) = ranked_logprobs(self.vocabulary, values, max(counts) or 1)
            chosen = values.gather(-1, choice.ids[own].unsqueeze(-1)).double() - best - mass
            lists = alternatives(ranks, ids_by_rank, counts)
            for index, logprob, top in zip(own, chosen.squeeze(-1).tolist(), lists, strict=True):
                if draws[index].sampling.raw_logprobs:
                    logprobs[index], tops[index] = logprob, top
                else:
                    owns[index] = logprob
        return [
            self._reason(logits[row]) if bad else Token(token, logprob, _agreeing(top, token, logprob), own)
            for row, bad, token, logprob, top, own in zip(rows, failed, ids, logprobs, tops, owns, strict=True)
        ]

    def _choose_plain(self, logits: Tensor, samplings: list[Sampling]) -> _Choice:
        counts = _top_counts(samplings, logits)
        if not any(counts):
            _, ids, mass = self.vocabulary.rank_and_mass(logits, 1)
            return _Choice(ids[:, 0], -mass, [[] for _ in counts])  # the mass is relative to the best
        logprobs, ids, _ = ranked_logprobs(self.vocabulary, logits, max(counts))
        return _Choice(ids[:, 0], logprobs[:, 0], alternatives(logprobs, ids, counts))

    def _choose_whole(self, logits: Tensor, samplings: list[Sampling], uniform: Tensor) -> _Choice:
        """Pick from softmax(logits / temperature); -inf marks removed tokens."""
        divisors = _divisors(logits, samplings)
        chosen, logprobs = self.vocabulary.pick(logits, uniform, divisors)
        counts = _top_counts(samplings, logits)
        greedy = [not sampling.do_sample for sampling in samplings]
        tops: list[Alternatives] = [[] for _ in samplings]
        if any(counts) or any(greedy):
            values, ids = self.vocabulary.rank(logits, max(counts) or 1)
            if divisors is not None:
                values = values / divisors.unsqueeze(-1)
            mass = self.vocabulary.log_mass(logits, ids[:, 0], divisors).unsqueeze(-1)
            ranks = values.double() - values[:, :1].double() - mass
            unpicked = torch.tensor(greedy, device=ids.device)
            chosen = torch.where(unpicked, ids[:, 0], chosen)
            logprobs = torch.where(unpicked, ranks[:, 0], logprobs)
            tops = alternatives(ranks, ids, counts)
        return _Choice(chosen, logprobs, tops)

    def _choose_narrowed(self, logits: Tensor, samplings: list[Sampling], uniform: Tensor) -> _Choice:
        """Among the candidates where they suffice; the other rows are masked exactly and go the long way."""
        width = logits.shape[-1]
        count = min(CANDIDATES, width)
        values, ids = self.vocabulary.rank(logits, count)
        temperature = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=logits.device)
        scaled = (values.double() - values[:, :1].double()) / temperature.unsqueeze(-1)
        log_mass, entropy = self._whole_row(logits, ids[:, 0], samplings)
        logprobs, exact = narrow(Candidates(values, scaled, log_mass, entropy, whole=count == width), samplings)
        choice = _choose_candidate(logprobs, ids, samplings, uniform)
        missed = [index for index, is_exact in enumerate(exact.tolist()) if not is_exact]
        if missed:
            other = self._choose_exactly(logits[missed], [samplings[index] for index in missed], uniform[missed])
            choice.ids[missed] = other.ids
            choice.logprobs[missed] = other.logprobs
            for index, top in zip(missed, other.tops, strict=True):
                choice.tops[index] = top
        return choice

    def _whole_row(self, logits: Tensor, best: Tensor, samplings: list[Sampling]) -> tuple[Tensor, Tensor]:
        """Logarithm of the mass relative to the best token, and entropy, of the rows that need them; else 0.

        `best` [rows] are the best ids; results [rows] float64.
        """
        log_mass = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
        entropy = torch.zeros_like(log_mass)
        wanted = [index for index, sampling in enumerate(samplings) if needs_whole_row(sampling)]
        if not wanted:
            return log_mass, entropy
        chosen, best = [samplings[index] for index in wanted], best[wanted]
        rows = logits if len(wanted) == len(samplings) else logits[wanted]
        divisors = _divisors(rows, chosen)
        log_mass[wanted] = mass = self.vocabulary.log_mass(rows, best, divisors)
        if any(sampling.typical_p < 1.0 for sampling in chosen):
            scaled = rows if divisors is None else rows / divisors.unsqueeze(-1)
            probabilities = scaled.softmax(-1)
            distance = scaled.gather(-1, best.unsqueeze(-1)) - scaled
            distance.clamp_(max=torch.finfo(torch.float32).max)  # 0 * inf would be NaN
            entropy[wanted] = row_sums(distance.mul_(probabilities)) + mass
        return log_mass, entropy

    def _choose_exactly(self, logits: Tensor, samplings: list[Sampling], uniform: Tensor) -> _Choice:
        """Keep exactly what the warpers keep, row by row, then pick from the whole rows."""
        kept = [kept_tokens(row.numpy(), sampling) for row, sampling in zip(logits.cpu(), samplings, strict=True)]
        mask = torch.from_numpy(np.stack(kept)).to(logits.device)
        return self._choose_whole(logits.masked_fill(~mask, -torch.inf), samplings, uniform)

    def _reason(self, row: Tensor) -> str:
        if not torch.isfinite(row.amax()):
            return "The model produced logits that are not numbers"
        return NOTHING_LEFT


def _kind(sampling: Sampling) -> str:
    if has_warper(sampling):
        return "narrowed"
    return "whole" if sampling.do_sample or sampling.temperature != 1.0 else "plain"


def _is_greedy(draw: Draw) -> bool:
    """Whether the best logit that a grammar allows gives the token as it is, and no alternatives are wanted."""
    sampling = draw.sampling
    return not sampling.top_n_tokens and _kind(sampling) == "plain" and not _is_changed(draw)


def _is_processed(draw: Draw) -> bool:
    """Whether any logit changes before temperature in this step."""
    return draw.grammar is not None or _is_changed(draw)


def _is_changed(draw: Draw) -> bool:
    """The same but for a grammar."""
    sampling = draw.sampling
    banned = draw.num_generated < sampling.min_new_tokens
    return sampling.watermark or processors.has_penalty(sampling) or bool(sampling.logit_bias) or banned


def _needs_own(draw: Draw) -> bool:
    """The model's own log-probabilities are wanted and differ from those after processors and warpers."""
    sampling = draw.sampling
    if not (sampling.raw_logprobs or sampling.own_logprobs):
        return False
    return sampling.temperature != 1.0 or has_warper(sampling) or _is_processed(draw)


def _top_counts(samplings: list[Sampling], ranks: Tensor) -> list[int]:
    """How many alternatives to list for each row; never more than `ranks` has columns."""
    return [min(sampling.top_n_tokens, ranks.shape[-1]) for sampling in samplings]


def _divisors(logits: Tensor, samplings: list[Sampling]) -> Tensor | None:
    """What the logits are divided by, [rows] float32: the temperature; None where all are 1.

    The divisor is kept so large that the best logit cannot overflow; float32 logits of that size
    are so far apart that nothing changes.
    """
    if all(sampling.temperature == 1.0 for sampling in samplings):
        return None
    temperature = logits.new_tensor([min(max(sampling.temperature, 1e-30), 3e38) for sampling in samplings])
    return torch.maximum(temperature, logits.amax(-1).abs() * 1e-37)


def _agreeing(top: Alternatives, token: int, logprob: float) -> Alternatives:
    """`top` with the chosen token's own number, which was summed in another order: the last bits may differ.

    The others keep to their side of it, else tokens of equal logits would be out of order.
    """
    rank = next((rank for rank, (id, _) in enumerate(top) if id == token), None)
    if rank is None:
        return top
    above = [(id, max(value, logprob)) for id, value in top[:rank]]
    below = [(id, min(value, logprob)) for id, value in top[rank + 1 :]]
    return [*above, (token, logprob), *below]


def _choose_candidate(logprobs: Tensor, ids: Tensor, samplings: list[Sampling], uniform: Tensor) -> _Choice:
    """Pick from log-probabilities [rows, candidates] of candidates ranked best first, -inf where removed."""
    by_id = ids.argsort(-1)  # the cumulative probabilities are in order of id on every path
    column = pick_among(logprobs.exp().gather(-1, by_id), uniform)
    column = by_id.gather(-1, column.unsqueeze(-1))
    by_rank = (logprobs == -torch.inf).to(torch.uint8).sort(dim=-1, stable=True).indices  # the kept, best first
    greedy = torch.tensor([not sampling.do_sample for sampling in samplings], device=ids.device)
    column = torch.where(greedy.unsqueeze(-1), by_rank[:, :1], column)
    counts = _top_counts(samplings, ids)
    first = by_rank[:, : max(counts)]
    tops = alternatives(logprobs.gather(-1, first), ids.gather(-1, first), counts)
    return _Choice(ids.gather(-1, column).squeeze(-1), logprobs.gather(-1, column).squeeze(-1), tops)

"""Fits the weights: packing, the optimizers, the schedule and the loop."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from .common import Example
from .corpus import examples
from .files import read_model, write_model
from .tokenizer import CONTEXT, VOCABULARY, Document, encode, learn

TOKENS_PER_STEP = 4096
# Most rows are short, because attention over long rows costs time that short
# documents do not need; one row in eight fills the whole context.
ROW_LENGTHS = (128, 256, 128, 256, 128, 512, 128, CONTEXT)


@dataclass
class Plan:
    """What one training run is to do."""

    seed: int = 0
    steps: int = 0
    minutes: float = 0.0
    rate: float = 2.5e-3
    matrix_rate: float = 5e-3
    precision: str = "auto"
    threads: int = 2
    checkpoint: int = 0
    resume: Path | None = None
    begin: float = 0.0


@dataclass
class Report:
    """What a run did, for the model card."""

    seed: int = 0
    steps: int = 0
    tokens: int = 0
    minutes: float = 0.0
    loss: float = 0.0
    validation_loss: float = 0.0
    precision: str = ""
    history: list = field(default_factory=list)


# From this share of a run on, the text changes to its late mix.
LATE = 0.55


def configuration() -> LlamaConfig:
    """The shape of the model: about 4.95 million parameters."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=[3, 0],
        pad_token_id=0,
        attn_implementation="sdpa",
    )


def precision_of(wish: str) -> torch.dtype:
    """The number format to compute in; "auto" takes bfloat16 where the processor is fast at it."""
    if wish == "auto":
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        wish = "bf16" if fast and amx else "fp32"
    return torch.bfloat16 if wish == "bf16" else torch.float32


@dataclass(frozen=True)
class Rows:
    """The input of one step: ids, the token that follows each, its weight, and who sees whom."""

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor | None


def _lay_out(rows: list[list[Document]], length: int) -> Rows:
    """Tensors of rows of documents; in all but the longest rows a document sees only itself.

    Whoever reads its neighbours too learns to copy from the wrong place.  The
    longest rows stay open, so that all positions of the context are trained.
    """
    ids, targets = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    factors, positions = torch.zeros(len(rows), length), torch.zeros(len(rows), length, dtype=torch.long)
    owners = torch.zeros(len(rows), length, dtype=torch.long)
    for r, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row, 1):
            size = len(document.ids)
            place = slice(start, start + size)
            ids[r, place] = torch.tensor(document.ids)
            targets[r, start : start + size - 1] = ids[r, start + 1 : start + size]
            factors[r, start : start + size - 1] = torch.tensor(document.weights[1:])
            positions[r, place] = torch.arange(size)
            owners[r, place] = number
            start += size
    if length == CONTEXT:
        return Rows(ids, targets, factors, torch.arange(length).expand(len(rows), length), None)
    seen = (owners[:, None, :, None] == owners[:, None, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    return Rows(ids, targets, factors, positions, torch.zeros(seen.shape).masked_fill(~seen, float("-inf")))


class Batches:
    """Turns the stream of documents into rows of tokens, filled with whole documents.

    A document starts a row wherever possible, as it will when the model is used;
    rows are filled up with documents that still fit, and the rest is padding.
    """

    def __init__(self, tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._streams = (examples(seed), examples(seed + 1_000_000, late=True))
        self.late = False
        self._rng = random.Random(seed + 17)
        # Waiting documents, by the shortest row that can hold them.
        self._waiting: dict[int, deque[Document]] = {length: deque() for length in sorted(set(ROW_LENGTHS))}

    def _refill(self) -> None:
        batch: list[Example] = list(islice(self._streams[self.late], 2000))
        for document in encode(self._tokenizer, batch, self._rng, self.late):
            for length, queue in self._waiting.items():
                if len(document.ids) <= length:
                    queue.append(document)
                    break

    def _row(self, length: int) -> list[Document]:
        row: list[Document] = []
        used = 0
        fitting = [queue for limit, queue in self._waiting.items() if limit <= length]
        for queue in reversed(fitting):
            misses = 0
            while queue and misses < 12 and used < length:
                document = queue.popleft()
                if used + len(document.ids) <= length:
                    row.append(document)
                    used += len(document.ids)
                else:
                    queue.append(document)
                    misses += 1
        return row

    def next(self, length: int) -> Rows:
        """The input of one step, in rows of the given length."""
        rows = []
        for _ in range(TOKENS_PER_STEP // length):
            if min(len(queue) for limit, queue in self._waiting.items() if limit <= 256) < 100:
                self._refill()
            rows.append(self._row(length))
        return _lay_out(rows, length)


class Optimizer:
    """Muon for the matrices and AdamW for the rest, on 32-bit copies of the weights.

    The model itself may hold bfloat16 weights, in which small updates would be
    lost; the copies collect them.
    """

    def __init__(self, model: torch.nn.Module, plan: Plan) -> None:
        self._weights = list(model.parameters())
        self._masters = [w.detach().float().clone() for w in self._weights]
        matrices, others = [], []
        for (name, _), master in zip(model.named_parameters(), self._masters, strict=True):
            (matrices if master.ndim == 2 and "embed" not in name else others).append(master)
        self._parts = (
            torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.97), weight_decay=0.0),
        )
        self._rates = (plan.matrix_rate, plan.rate)

    def step(self, share: float) -> None:
        """Apply the gradients with this share of the full learning rates."""
        for master, weight in zip(self._masters, self._weights, strict=True):
            master.grad = weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self._masters, 1.0)
        for part, rate in zip(self._parts, self._rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * share
            part.step()
        with torch.no_grad():
            for master, weight in zip(self._masters, self._weights, strict=True):
                weight.copy_(master)


def schedule(progress: float) -> float:
    """The share of the learning rate: a short rise, a plateau, a long fall to zero."""
    if progress < 0.02:
        return max(progress / 0.02, 0.01)
    return 1.0 if progress < 0.2 else max((1.0 - progress) / 0.8, 0.0)


def loss_of(model: LlamaForCausalLM, rows: Rows) -> torch.Tensor:
    """The weighted mean loss over the tokens of the rows."""
    mask = None if rows.mask is None else rows.mask.to(model.dtype)
    logits = model(input_ids=rows.ids, attention_mask=mask, position_ids=rows.positions, use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1).float(), rows.targets.flatten(), reduction="none")
    return (losses * rows.weights.flatten()).sum() / rows.weights.sum()


@torch.no_grad()
def validation_loss(model: LlamaForCausalLM, tokenizer) -> float:
    """The loss on documents of a seed that no run trains on."""
    batches = Batches(tokenizer, seed=987_654_321)
    return sum(loss_of(model, batches.next(512)).item() for _ in range(8)) / 8


Progress = Callable[[float, Report], None]


def train(plan: Plan, folder: Path, progress: Progress = lambda share, report: None) -> Report:
    """Train from scratch and write the finished model to the folder."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = learn(seed=0)  # the same vocabulary for every seed
    dtype = precision_of(plan.precision)
    model = (read_model(plan.resume) if plan.resume else LlamaForCausalLM(configuration())).to(dtype)
    optimizer, batches = Optimizer(model, plan), Batches(tokenizer, 1000 + plan.seed)
    report = Report(seed=plan.seed, precision=str(dtype).removeprefix("torch."))
    start, mean = time.monotonic(), 0.0
    for share in _shares(plan, start):
        batches.late = share >= LATE
        rows = batches.next(ROW_LENGTHS[report.steps % len(ROW_LENGTHS)])
        loss = loss_of(model, rows)
        loss.backward()
        optimizer.step(schedule(share))
        report.steps += 1
        report.tokens += int((rows.weights > 0).sum())
        mean = loss.item() if report.steps == 1 else 0.97 * mean + 0.03 * loss.item()
        report.loss, report.minutes = round(mean, 4), round((time.monotonic() - start) / 60, 1)
        if report.steps % 100 == 0:
            report.history.append((report.steps, report.loss))
        progress(share, report)
        if plan.checkpoint and report.steps % plan.checkpoint == 0:
            write_model(model, tokenizer, folder, report.__dict__)
    report.validation_loss = round(validation_loss(model, tokenizer), 4)
    write_model(model, tokenizer, folder, report.__dict__)
    progress(1.0, report)
    return report


def _shares(plan: Plan, start: float) -> Iterator[float]:
    """How far the run is before each step; by steps it is repeatable, by minutes it is not."""
    if plan.steps:
        yield from (plan.begin + (1 - plan.begin) * step / plan.steps for step in range(plan.steps))
        return
    while (share := plan.begin + (1 - plan.begin) * (time.monotonic() - start) / 60 / plan.minutes) < 1:
        yield share

"""Measures one format on a worker: how it predicts a text, and how fast it is."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from tgi.engine import batch as batches
from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.plan import Plan, probe
from tgi.engine.quality.report import BATCHES, PROMPT_TOKENS, Measured, Part, Task
from tgi.engine.worker import Worker
from tgi.errors import ModelError
from tgi.messages import Abort, GenerateRequest, Sampling

KEPT = 256
"""Likeliest tokens whose log-probabilities are kept of the unquantised model; all others count as one."""
ROWS = 128
"""Whose logits exist at once."""
FEWEST_STEPS, MOST_STEPS = 3, 128
"""The second bounds the length of contexts, of which steps become slower."""
Say = Callable[[Part], None]


def measure(task: Task, say: Say) -> Measured:
    """Load the model and measure it. Raises StartupError."""
    before = resident_bytes()
    say(Part("loading"))
    began = time.monotonic()
    worker = Worker(task.engine, progress=lambda done, total: say(Part("loading", done, total)))
    load_s = time.monotonic() - began
    if worker.runner.step.program.encoder is not None:
        raise ModelError("a report is for decoders, and the model has an encoder")
    losses, divergences = [], []
    reference = Reference(Path(task.reference), write=task.is_reference)
    with torch.inference_mode():
        for number, text in enumerate(task.texts):
            say(Part("text", number, len(task.texts)))
            loss, divergence = predict(worker, text, reference)
            losses.append(loss)
            divergences.append(divergence)
    reference.close()
    info = worker.info
    resident = resident_bytes() - before
    return Measured(
        parameters=info.parameters,
        weight_bytes=info.weight_bytes,
        resident_bytes=resident,
        load_s=load_s,
        dtype=info.dtype,
        quantize=info.quantize,
        losses=losses,
        divergences=[] if task.is_reference else divergences,
        prefill_tps=prefill_speed(worker, task.seconds, say) if task.seconds else None,
        decode_tps={count: decode_speed(worker, count, task.seconds, say) for count in BATCHES if task.seconds},
    )


class Reference:
    """What the unquantised model said: for each row the likeliest tokens and their log-probabilities, in a file."""

    def __init__(self, path: Path, *, write: bool) -> None:
        self._write, self._file = write, path.open("wb" if write else "rb")

    def divergence(self, logprobs: torch.Tensor) -> list[float]:
        """logprobs [rows, vocabulary] of the next rows -> KL from the unquantised model, of each; zeros while written.

        Of what is not among the likeliest only the sum is known, so that the true number is a little larger.
        """
        kept = min(KEPT, logprobs.shape[1])
        if self._write:
            values, ids = logprobs.topk(kept)
            self._file.write(ids.int().numpy().tobytes() + values.float().numpy().tobytes())
            return [0.0] * len(logprobs)
        shape = (len(logprobs), kept)
        ids, values = (
            torch.from_numpy(np.frombuffer(self._file.read(4 * math.prod(shape)), dtype).reshape(shape).copy())
            for dtype in (np.int32, np.float32)
        )
        found = logprobs.gather(1, ids.long()).double()
        values = values.double()
        rest, rest_found = ((1 - part.exp().sum(1)).clamp(min=1e-9) for part in (values, found))
        inside = (values.exp() * (values - found)).sum(1)
        return (inside + rest * (rest / rest_found).log()).tolist()

    def close(self) -> None:
        self._file.close()


def predict(worker: Worker, text: tuple[int, ...], reference: Reference) -> tuple[list[float], list[float]]:
    """-log p of each token of a text but its first, and how far each prediction is from the reference."""
    runner, losses, divergences = worker.runner, [], []
    table = list(range(-(-len(text) // runner.block_size)))
    first = 0 if worker.info.num_states else -1
    batch = batches.build(Plan([probe(list(text), 0, table, state_to=first)]), runner.block_size, runner.device)
    hidden = runner.step.forward(batch.token_ids, batch.paging, runner.cache)
    for begin in range(0, len(text) - 1, ROWS):
        rows = hidden[begin : min(begin + ROWS, len(text) - 1)]
        logprobs = torch.log_softmax(runner.step.logits(rows).float(), -1).cpu()
        targets = torch.tensor(text[begin + 1 : begin + 1 + len(rows)])
        losses += (-logprobs.gather(1, targets.unsqueeze(1)).squeeze(1).double()).tolist()
        divergences += reference.divergence(logprobs)
    return losses, divergences


def prefill_speed(worker: Worker, seconds: float, say: Say) -> float:
    """Tokens a second of a prompt alone."""
    say(Part("prefill"))
    info = worker.info
    count = min(PROMPT_TOKENS, info.max_input_tokens, info.max_batch_prefill_tokens)
    times = [elapsed for elapsed, _ in _steps(worker, 1, count, 1, seconds, prompts=True)]
    return count / statistics.median(times)


def decode_speed(worker: Worker, count: int, seconds: float, say: Say) -> float:
    """Tokens a second of `count` streams together, after short prompts."""
    say(Part(f"decoding {count}"))
    times = [elapsed for elapsed, decoded in _steps(worker, count, 32, 1 << 20, seconds) if decoded == count]
    return count / statistics.median(times) if times else 0.0


def _steps(
    worker: Worker, count: int, prompt: int, new: int, seconds: float, *, prompts: bool = False
) -> Iterator[tuple[float, int]]:
    """(seconds, rows decoded) of steps of `count` requests; prompts: of whole prompts one after the other."""
    core = EngineCore(make_scheduler(worker.info, prefix_caching=False), worker)
    draw, number, seen = random.Random(0), 0, 0
    size, longest = worker.info.input_vocab_size, core.scheduler.max_total_tokens

    def ask() -> None:
        nonlocal number
        ids = [draw.randrange(size) for _ in range(min(prompt, longest - 1))]
        sampling = Sampling(max_new_tokens=min(new, longest - len(ids)))
        core.handle(GenerateRequest(number, ids, sampling, (0,)))
        number += 1

    for _ in range(count):
        ask()
    end = time.monotonic() + seconds
    while core.has_work and seen < MOST_STEPS and (time.monotonic() < end or seen < FEWEST_STEPS):
        stats = core.step().stats
        if stats.scheduled_prefill_tokens if prompts else stats.scheduled_decode_tokens == count:
            seen += 1
            yield stats.total_s, stats.scheduled_decode_tokens
        if prompts and not core.has_work:
            ask()
    for each in range(number):
        core.handle(Abort(each))
    core.step()


def resident_bytes() -> int:
    """Of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4096

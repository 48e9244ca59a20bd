"""Milliseconds of one `Sampler.sample` call for a batch, by what the requests ask for.

    python benchmarks/sampler.py [--rows 16] [--vocabulary 151936] [--threads N] [--device cpu]

Beside each figure stands the least it could take: reading the logits once at the bandwidth that a
copy reaches on this machine. "flat" is the worst case, logits of an untrained model, where top-p and
typical-p keep most of the vocabulary and have to be decided exactly, row by row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from tgi.engine.plan import Draw
from tgi.engine.sampler import Sampler
from tgi.messages import Sampling

CASES: dict[str, list[dict[str, Any]]] = {
    "greedy": [{}],
    "greedy, top_n_tokens 5": [{"top_n_tokens": 5}],
    "temperature": [{"do_sample": True, "temperature": 0.7}],
    "temperature, raw logprobs": [{"do_sample": True, "temperature": 0.7, "raw_logprobs": True}],
    "top-k 50": [{"do_sample": True, "temperature": 0.7, "top_k": 50}],
    "top-k 50, top-p 0.9": [{"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9}],
    "top-p 0.9": [{"do_sample": True, "temperature": 0.7, "top_p": 0.9}],
    "typical-p 0.9": [{"do_sample": True, "temperature": 0.7, "typical_p": 0.9}],
    "penalties": [{"repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.1}],
    "watermark": [{"watermark": True}],
    "top-p 0.9, flat": [{"do_sample": True, "top_p": 0.9}],
    "typical-p 0.9, flat": [{"do_sample": True, "typical_p": 0.9}],
}
CASES["mixed"] = [parameters for name, cases in CASES.items() if "flat" not in name for parameters in cases]


def model_like(rows: int, vocabulary: int, device: torch.device) -> torch.Tensor:
    """Logits with a few likely tokens and a long tail, as a trained model gives: [rows, vocabulary]."""
    rank = torch.arange(1, vocabulary + 1, dtype=torch.float32)
    shuffled = torch.stack([torch.randperm(vocabulary) for _ in range(rows)])
    return (-2.0 * rank.log())[shuffled].to(device) + torch.randn(rows, vocabulary, device=device)


def milliseconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Best of `repeats` calls after two to warm up: other work on the machine only ever adds."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return 1e3 * min(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16, help="sequences of the batch (16)")
    parser.add_argument("--vocabulary", type=int, default=151936, help="logits of a row (151936)")
    parser.add_argument("--prompt", type=int, default=1000, help="prompt tokens of each sequence (1000)")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each case (15)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    rows, vocabulary = arguments.rows, arguments.vocabulary
    logits = model_like(rows, vocabulary, device)
    flat = torch.randn(rows, vocabulary, device=device)
    sampler = Sampler(vocabulary, device)
    prompts = torch.randint(vocabulary, (rows, arguments.prompt)).tolist()

    size = logits.numel() * logits.element_size()
    copy = milliseconds(logits.clone, arguments.repeats, device)
    least = copy / 2  # a copy reads and writes
    print(f"{rows} rows of {vocabulary}, {device}, {torch.get_num_threads()} threads; ", end="")
    print(f"{size / 1e6:.1f} MB of logits at {size / least / 1e6:.1f} GB/s")
    print(f"{'requests':28}{'ms per call':>12}{'read once':>12}{'times that':>12}")
    for name, cases in CASES.items():
        sampler.forget(list(range(rows)))
        draws = [
            Draw(
                row,
                Sampling(max_new_tokens=1000, **cases[row % len(cases)]),
                seed=row,
                num_prompt=len(prompts[row]) - 100,
                position=len(prompts[row]),
                token_ids=prompts[row],
            )
            for row in range(rows)
        ]
        values = flat if "flat" in name else logits
        result = sampler.sample(values, draws)
        assert not any(isinstance(token, str) for token in result), result

        def call(values: torch.Tensor = values, draws: list[Draw] = draws) -> None:
            sampler.sample(values, draws)

        taken = milliseconds(call, arguments.repeats, device)
        print(f"{name:28}{taken:12.2f}{least:12.2f}{taken / least:12.1f}")


if __name__ == "__main__":
    main()

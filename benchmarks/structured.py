"""Structured output: compile times, what other streams feel, what constrained decoding costs, and a set of schemas.

compile    nested schemas, all different, one after another. Target: median at most 10 ms.
streams    gaps between tokens of 8 unconstrained streams: alone, beside short requests without a grammar, and
           beside the same with a schema each, all sent at one moment. Target: the p99 of the last at most 1.3
           times that of the one before.
cost       16 greedy streams without and with a schema, in this process. Target: at most 8 % slower.
schemas    --schemas DIR, of JSONSchemaBench's format (a schema a file, or under `json_schema` or `schema`): how
           many are accepted, and whether answers that end fit. Target: at least 84 %, and all fit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import time
from collections import Counter
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from tests.engine.random_schemas import random_schema

from benchmarks.checkpoints import SHAPES, ensure
from benchmarks.serving import server
from tgi.bench.percentiles import percentile
from tgi.grammar import GrammarError, compile_grammar, make_tokenizer
from tgi.messages import Abort, GenerateRequest, Grammar, Sampling
from tgi.serving.grammars.build import schema_text
from tgi.serving.grammars.vocabulary import make_vocabulary
from tgi.serving.tokenizer import Tokenizer

console = Console()
COMPILE_TARGET_MS, GAP_TARGET, COST_TARGET, ACCEPT_TARGET = 10.0, 1.3, 0.08, 0.84
ROUNDS = 5
SENDER_S = 3.0
"""Until a process that sends requests is ready to."""
ENDLESS = {"type": "array", "items": {"type": "string"}, "minItems": 1_000_000}
"""A schema that no answer completes."""


def grammars(count: int, rng: random.Random) -> list[Grammar]:
    """Schemas of four levels."""
    return [Grammar("json_schema", schema_text(random_schema(rng, 4), "schema")) for _ in range(count)]


def measure_compile(path: Path, count: int) -> Any:
    """Milliseconds of each; gives llguidance's tokenizer of the model."""
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    tokenizer = make_tokenizer(make_vocabulary(Tokenizer.load(path), size, (0,)), size)
    times = []
    for grammar in grammars(count, random.Random()):
        began = time.perf_counter()
        compile_grammar(tokenizer, grammar)
        times.append(1000 * (time.perf_counter() - began))
    median = statistics.median(times)
    console.print(
        f"compile: {count} schemas, median {median:.1f} ms (target {COMPILE_TARGET_MS:g}), "
        f"p99 {percentile(sorted(times), 99):.1f} ms, most {max(times):.1f} ms"
    )
    return tokenizer


async def stream(client: httpx.AsyncClient, tokens: int) -> list[float]:
    """Gaps between the events of one unconstrained stream, in milliseconds."""
    body = {"inputs": f"Tell me {random.random()}", "parameters": {"max_new_tokens": tokens, "ignore_eos": True}}
    times = []
    async with client.stream("POST", "/generate_stream", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                times.append(time.perf_counter())
    return [1000 * (later - earlier) for earlier, later in pairwise(times)]


async def short(client: httpx.AsyncClient, schema: Any) -> int:
    body: dict[str, Any] = {"prompt": f"JSON {random.random()}", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return (await client.post("/v1/completions", json=body)).status_code


def send_short(url: str, schemas: list[Any], go: Event) -> None:
    """Requests with these schemas at one moment, from a process of their own: sending them must not hold up the client
    that takes the time of others' tokens."""

    async def send() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:
            go.wait()
            statuses = Counter(await asyncio.gather(*(short(client, schema) for schema in schemas)))
        if set(statuses) - {200}:
            console.print(f"  statuses {dict(statuses)}")

    asyncio.run(send())


async def gaps(url: str, tokens: int, schemas: list[Any]) -> list[float]:
    """Of 8 streams, while requests with these schemas (None: without one) come after a second."""
    context = multiprocessing.get_context("forkserver")
    go = context.Event()
    sender = context.Process(target=send_short, args=(url, schemas, go))
    sender.start()
    await asyncio.sleep(SENDER_S)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        streams = [asyncio.create_task(stream(client, tokens)) for _ in range(8)]
        await asyncio.sleep(1.0)
        go.set()
        gaps = [gap for task in streams for gap in (await task)[1:]]
    await asyncio.to_thread(sender.join)
    return gaps


async def measure_streams(url: str, count: int, tokens: int, rounds: int) -> None:
    """By turns: few steps decide a 99th percentile, those in which the requests arrive."""
    await gaps(url, 10, [{"type": "object"}])
    rng = random.Random()
    alone: list[float] = []
    plain: list[float] = []
    beside: list[float] = []
    for _ in range(rounds):
        alone += await gaps(url, tokens, [])
        plain += await gaps(url, tokens, [None] * count)
        beside += await gaps(url, tokens, [random_schema(rng, 4) for _ in range(count)])
    p99 = [percentile(sorted(one), 99) for one in (alone, plain, beside)]
    p50 = [percentile(sorted(one), 50) for one in (alone, plain, beside)]
    console.print(
        f"streams: p99 of gaps alone {p99[0]:.1f} ms, beside {count} requests {p99[1]:.1f} ms, beside {count} with "
        f"schemas {p99[2]:.1f} ms: {p99[2] / p99[1]:.2f} times (target {GAP_TARGET:g}); "
        f"medians {p50[0]:.1f}, {p50[1]:.1f} and {p50[2]:.1f} ms, "
        f"longest {max(alone):.0f}, {max(plain):.0f} and {max(beside):.0f} ms"
    )


def measure_cost(path: Path, arguments: argparse.Namespace) -> None:
    """Steps of 16 streams in this process, without and with a schema in turns."""
    from tgi.engine.core import EngineCore
    from tgi.engine.main import make_scheduler
    from tgi.engine.worker import Worker
    from tgi.settings.config import EngineConfig

    worker = Worker(EngineConfig(str(path), dtype=arguments.dtype, quantize=arguments.quantize))
    size = worker.info.vocab_size
    worker.grammars.introduce(make_vocabulary(Tokenizer.load(path), size, (0,)))
    core = EngineCore(make_scheduler(worker.info), worker, worker.grammars)
    numbers = iter(range(1, 1 << 30))

    def tokens_per_s(grammar: Grammar | None, steps: int) -> float:
        ids = [next(numbers) for _ in range(16)]
        for number in ids:
            prompt = [random.randrange(20, size) for _ in range(32)]
            sampling = Sampling(max_new_tokens=1000, raw_logprobs=True)
            core.handle(GenerateRequest(number, prompt, sampling, (0,), grammar=grammar))
        generated, began = 0, 0.0
        counted = 0
        while counted < steps:
            core.collect()
            if not core.has_work:
                continue
            output = core.step()
            if output.stats.scheduled_prefill_tokens or output.stats.running < 16:
                continue
            began = began or time.perf_counter() - output.stats.total_s
            generated += sum(len(event.tokens) for event in output.events)
            counted += 1
        seconds = time.perf_counter() - began
        for number in ids:
            core.handle(Abort(number))
        core.step()
        return generated / seconds

    grammar = Grammar("json_schema", schema_text(ENDLESS, "schema"))
    steps = 20 if arguments.quick else 200
    tokens_per_s(grammar, 3)
    free, constrained = [], []
    for _ in range(1 if arguments.quick else 5):
        free.append(tokens_per_s(None, steps))
        constrained.append(tokens_per_s(grammar, steps))
    lost = 1 - statistics.median(constrained) / statistics.median(free)
    console.print(
        f"cost: {statistics.median(free):.0f} tokens/s without, {statistics.median(constrained):.0f} with a schema: "
        f"{lost:+.1%} (target {COST_TARGET:.0%})"
    )


def read_schema(file: Path) -> Any:
    """A schema of JSONSchemaBench."""
    content = json.loads(file.read_text())
    for name in ("json_schema", "schema"):
        if isinstance(content, dict) and name in content and "type" not in content:
            content = content[name]
            return json.loads(content) if isinstance(content, str) else content
    return content


async def measure_schemas(url: str, tokenizer: Any, schemas: list[tuple[str, Any]], tokens: int) -> None:
    """schemas: names of files and what they hold."""
    import jsonschema

    refused: Counter[str] = Counter()
    accepted = []
    for name, schema in schemas:
        try:
            compile_grammar(tokenizer, Grammar("json_schema", schema_text(schema, "schema")))
            accepted.append((name, schema))
        except (GrammarError, Exception) as error:
            refused[str(error)[:70]] += 1
    places = asyncio.Semaphore(16)
    ends: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def one(name: str, schema: Any) -> None:
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            messages = [{"role": "user", "content": "Give an example as JSON."}]
            body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "response_format": form}
            async with places:
                answer = await client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                ends[f"status {answer.status_code}"] += 1
                console.print(f"  {name}: {answer.text[:200]}")
                return
            choice = answer.json()["choices"][0]
            if choice["finish_reason"] != "stop":
                ends[choice["finish_reason"]] += 1
                return
            try:
                jsonschema.validate(json.loads(choice["message"]["content"]), schema)
                ends["fits"] += 1
            except (ValueError, jsonschema.ValidationError) as error:
                ends["violates"] += 1
                console.print(f"  {name}: {str(error)[:300]}")

        await asyncio.gather(*(one(name, schema) for name, schema in accepted))
    rate = len(accepted) / max(len(schemas), 1)
    console.print(f"schemas: {len(accepted)} of {len(schemas)} accepted ({rate:.1%}, target {ACCEPT_TARGET:.0%})")
    console.print(f"  answers: {dict(ends)}")
    for reason, count in refused.most_common(12):
        console.print(f"  refused {count}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize", default="int8")
    parser.add_argument("--schemas", type=Path, help="a directory of schemas")
    parser.add_argument("--most", type=int, default=400, help="schemas of it")
    parser.add_argument("--tokens", type=int, default=300, help="of an answer to one of them")
    parser.add_argument("--only", choices=("compile", "streams", "cost", "schemas"))
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it runs")
    parser.add_argument("--log", type=Path, default=Path("/tmp/tgi-benchmark-server.log"))
    arguments = parser.parse_args()
    path = arguments.model_id or ensure(arguments.shape)
    count = 20 if arguments.quick else 200

    def wanted(name: str) -> bool:
        return arguments.only in (None, name)

    tokenizer = measure_compile(path, count)
    if wanted("cost"):
        measure_cost(path, arguments)
    if not (wanted("streams") or (wanted("schemas") and arguments.schemas)):
        return
    more = ("--max-concurrent-requests", "512")
    with server(path, arguments.dtype, arguments.quantize, arguments.log, *more) as url:
        if wanted("streams"):
            asyncio.run(measure_streams(url, count, 60 if arguments.quick else 400, 1 if arguments.quick else ROUNDS))
        if wanted("schemas") and arguments.schemas:
            files = sorted(arguments.schemas.rglob("*.json"))[: arguments.most]
            schemas = [(file.name, read_schema(file)) for file in files]
            asyncio.run(measure_schemas(url, tokenizer, schemas, arguments.tokens))


if __name__ == "__main__":
    main()

"""Translate a long article with a text-generation-inference server, many paragraphs at once.

The text is split at sensible boundaries, up to 128 pieces are sent at once, and the result is
written as JSON. Every finished piece is appended to a journal beside the output, so that the same
command goes on where it was interrupted. Code is copied, not translated. Pieces whose translation
was cut at --max-new-tokens are reported.

    .venv/bin/python examples/translate.py article.md --target-language German --output article.de.json

`make serve` has put what it needs into .venv; elsewhere: pip install clients/python rich. The model is
asked by its chat template; one that has none, or --completion, continues a text instead.

Translation models (M2M100, NLLB, mBART) take the text alone and the codes of its languages:

    python examples/translate.py article.md --source-code en --target-code de --temperature 0
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from split_text import Piece, split
from text_generation import AsyncClient, errors

CHAT_PROMPT = """Translate the following text from {source_language} to {target_language}. \
Answer with the translation only.

{text}"""

PROMPT = """Translate the following text from {source_language} to {target_language}. \
Answer with the translation only.

{source_language}: {text}

{target_language}:"""

# Failures of the moment, worth another try.
TRANSIENT = (
    httpx.TransportError,
    errors.GenerationError,
    errors.IncompleteGenerationError,
    errors.ServiceUnavailableError,
    errors.ShardNotReadyError,
    errors.ShardTimeoutError,
)


@dataclass
class Job:
    """One piece of work: a prompt with its parameters, for all pieces with the same text."""

    prompt: str
    """To be continued."""
    parameters: dict[str, Any]
    """Of `AsyncClient.generate`."""
    question: str | None = None
    """In place of the prompt for a model with a chat template; None: never."""
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    """`translation` and `finish_reason`, or `error`; empty until done."""

    @property
    def key(self) -> str:
        """Changes with the text and with every setting, so that a journal never gives stale results."""
        content = json.dumps([self.prompt, self.question, self.parameters], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def fill(template: str, text: str, arguments: argparse.Namespace) -> str:
    values = {"source_language": arguments.source_language, "target_language": arguments.target_language}
    for name, value in {**values, "text": text}.items():  # text last: it may contain braces itself
        template = template.replace("{" + name + "}", value)
    return template


def make_job(piece: Piece, arguments: argparse.Namespace) -> Job:
    prompt = fill(arguments.prompt_template or PROMPT, piece.text, arguments)
    codes = {"src_lang": arguments.source_code, "tgt_lang": arguments.target_code}
    codes = {name: code for name, code in codes.items() if code is not None}
    if codes:
        prompt = piece.text
    # A piece with a blank line inside (a loose list) would be cut by this stop string.
    stop = [] if codes or "\n\n" in piece.text else ["\n\n"]
    parameters: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens, "stop_sequences": stop}
    if codes:
        parameters["extra_parameters"] = codes
    for name in ("temperature", "top_k", "top_p", "seed"):
        if getattr(arguments, name) is not None:
            parameters[name] = getattr(arguments, name)
    if codes or arguments.completion:
        return Job(prompt, parameters)
    return Job(prompt, parameters, fill(arguments.prompt_template or CHAT_PROMPT, piece.text, arguments))


class Journal:
    """Finished results by key, one JSON line each, written as they come."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.results: dict[str, dict[str, Any]] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() and not fresh else []:
            if not line.endswith(b"\n"):
                break  # cut off in the middle of a write
            entry = json.loads(line)
            self.results[entry.pop("key")] = entry
            whole += len(line)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def add(self, key: str, result: dict[str, Any]) -> None:
        self._file.write(json.dumps({"key": key, **result}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Translator:
    """Sends jobs, at most `concurrency` at once; waits and tries again where that makes sense."""

    def __init__(self, client: AsyncClient, concurrency: int, retries: int) -> None:
        self._client = client
        self._concurrency = concurrency
        self._retries = retries
        self._has_template = True
        """The model's chat template; not, once the server has said that there is none."""
        self._not_before = 0.0  # loop time; after a 429 all workers wait, not only the one that got it

    async def run(self, jobs: list[Job], done: Callable[[Job], None]) -> None:
        """Fill in the result of every job; `done(job)` is called as each is finished."""
        waiting = iter(jobs)

        async def work() -> None:
            for job in waiting:
                job.result = await self._translate(job)
                done(job)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._concurrency, len(jobs))):
                tasks.create_task(work())

    async def _translate(self, job: Job) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        failures = overloads = 0
        while True:
            while (wait := self._not_before - loop.time()) > 0:  # noqa: ASYNC110 - the moment may move on
                await asyncio.sleep(wait)
            try:
                return await self._generate(job)
            except (errors.OverloadedError, errors.RateLimitExceededError) as error:
                # Being asked to wait is no failure, however often.
                delay = backoff(overloads) if error.retry_after is None else error.retry_after
                overloads += 1
                self._not_before = max(self._not_before, loop.time() + delay)
                await asyncio.sleep(delay + random.random() * min(delay, 1))  # not all in the same instant
            except (*TRANSIENT, errors.UnknownError) as error:
                failures += 1
                # An unknown error is one of the moment only if the server says that it is its own.
                passing = isinstance(error, TRANSIENT) or (error.status_code or 0) >= 500
                if not passing or failures > self._retries:
                    return {"error": f"{type(error).__name__}: {error}"}
                await asyncio.sleep(backoff(failures - 1))
            except errors.TextGenerationError as error:
                return {"error": f"{type(error).__name__}: {error}"}

    async def _generate(self, job: Job) -> dict[str, Any]:
        if job.question is not None and self._has_template:
            try:
                return await self._ask(job, job.question)
            except errors.ValidationError as error:
                if error.error_type != "template_error":
                    raise
                self._has_template = False
        response = await self._client.generate(job.prompt, **job.parameters)
        reason = response.details.finish_reason
        return result(response.generated_text, getattr(reason, "value", reason))  # the stop string is at the text's end

    async def _ask(self, job: Job, question: str) -> dict[str, Any]:
        given = job.parameters
        options = {name: given[name] for name in ("temperature", "top_p", "seed") if name in given}
        options |= {"max_tokens": given["max_new_tokens"], "extra_body": {"top_k": given["top_k"]}}
        answer = await self._client.chat([{"role": "user", "content": question}], **options)
        choice = answer.choices[0]
        return result(choice.message.content or "", choice.finish_reason)


def result(text: str, finish_reason: str) -> dict[str, Any]:
    """What is kept of an answer."""
    if not text.strip():
        raise errors.IncompleteGenerationError("The translation is empty")
    return {"translation": text.strip(), "finish_reason": finish_reason}


def backoff(attempt: int) -> float:
    """Seconds before another try: 0.25, 0.5, 1 ... 16, each up to half as long again."""
    return min(0.25 * 2**attempt, 16.0) * (1 + random.random() / 2)


def earlier_results(output: Path) -> dict[str, dict[str, Any]]:
    """Results of a finished run, so that repeating it after an edit sends only what changed."""
    if not output.exists():
        return {}
    names = ("translation", "finish_reason")
    try:
        pieces = json.loads(output.read_text(encoding="utf-8"))["pieces"]
        return {piece["key"]: {name: piece[name] for name in names} for piece in pieces if "key" in piece}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{output} exists and is no translation: choose another --output") from None


def document(arguments: argparse.Namespace, pieces: list[Piece], jobs: dict[int, Job]) -> dict[str, Any]:
    """The output: every piece in order, and the translated text as a whole."""
    entries: list[dict[str, Any]] = []
    for index, piece in enumerate(pieces):
        entry: dict[str, Any] = {"index": index, "kind": piece.kind, "source": piece.text, "separator": piece.separator}
        if index not in jobs:
            entry["translation"] = piece.text
        elif "error" in jobs[index].result:
            entry |= {"translation": None, "error": jobs[index].result["error"]}
        else:
            entry |= {"key": jobs[index].key, **jobs[index].result, "cut": is_cut(jobs[index])}
        entries.append(entry)
    text = "".join((entry["translation"] or entry["source"]) + entry["separator"] for entry in entries)
    names = ("source_language", "target_language", "max_new_tokens", "temperature", "top_k", "top_p", "seed")
    return {**{name: getattr(arguments, name) for name in names}, "pieces": entries, "text": text}


def is_cut(job: Job) -> bool:
    """Whether the translation ends where --max-new-tokens ended it."""
    return job.result.get("finish_reason") == "length"


async def translate(arguments: argparse.Namespace, console: Console) -> int:
    """Translate as the command line says; the number of pieces that failed."""
    pieces = split(arguments.article.read_text(encoding="utf-8"), arguments.max_characters, arguments.merge_below)
    jobs = {index: make_job(piece, arguments) for index, piece in enumerate(pieces) if piece.translatable}
    finished = {} if arguments.fresh else earlier_results(arguments.output)
    jobs_by_key: dict[str, Job] = {}
    for index, job in jobs.items():  # equal paragraphs are translated once
        jobs[index] = jobs_by_key.setdefault(job.key, job)
    journal = Journal(arguments.output.with_name(arguments.output.name + ".journal"), fresh=arguments.fresh)
    known = finished | journal.results
    for key, job in jobs_by_key.items():
        job.result = known.get(key, {})
    missing = {key: job for key, job in jobs_by_key.items() if not job.result}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            completed = len(jobs_by_key) - len(missing)
            task = progress.add_task("Translating", total=len(jobs_by_key), completed=completed)

            def done(job: Job) -> None:
                if "error" not in job.result:
                    journal.add(job.key, job.result)
                progress.advance(task)

            options = {"timeout": arguments.timeout, "api_key": arguments.api_key}
            async with AsyncClient(arguments.base_url, **options) as client:
                await Translator(client, arguments.concurrency, arguments.retries).run(list(missing.values()), done)
    finally:
        journal.close()
    content = json.dumps(document(arguments, pieces, jobs), ensure_ascii=False, indent=1)
    partial = arguments.output.with_name(arguments.output.name + ".partial")
    partial.write_text(content + "\n", encoding="utf-8")
    partial.replace(arguments.output)  # whole or not at all
    journal.path.unlink()
    if cut := [str(index) for index, job in jobs.items() if is_cut(job)]:
        console.print(
            f"{len(cut)} pieces were cut at {arguments.max_new_tokens} tokens: {', '.join(cut)}. "
            "A larger --max-new-tokens or a smaller --max-characters translates them whole."
        )
    return sum("error" in job.result for job in jobs_by_key.values())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    description, _, details = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="translate.py", description=description, epilog=details, formatter_class=form)

    def add(flag: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        metavar = "TEXT" if kind is str else "FILE" if kind is Path else "N"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text + shown)

    parser.add_argument("article", type=Path, help="text or Markdown file, UTF-8")
    add("--output", Path, None, "JSON file to write (default: the article's name with .json)")
    add("--base-url", str, "http://127.0.0.1:8080", "the server")
    add("--api-key", str, None, "sent as a bearer token")
    add("--source-language", str, "English", "language of the article")
    add("--target-language", str, "German", "language to translate to")
    add("--source-code", str, None, "code of the article's language, for a translation model")
    add("--target-code", str, None, "code of the language to translate to, for a translation model")
    add("--prompt-template", str, None, "has {text} and the two {..._language}; @FILE reads a file")
    add("--concurrency", positive, 128, "requests at once")
    add("--max-characters", positive, 2000, "longest piece; 4 are about a token")
    add("--merge-below", int, 0, "join paragraphs up to so many characters; 0 joins none")
    add("--max-new-tokens", positive, 1000, "longest translation")
    add("--temperature", float, 0.7, "0 always takes the likeliest token")
    add("--top-k", positive, 50, "sample among so many tokens")
    add("--top-p", float, 0.9, "sample within this probability")
    add("--seed", int, None, "makes the result repeatable")
    add("--timeout", float, 600, "seconds to wait for one piece")
    add("--retries", int, 5, "tries after a failed request; 429 is no failure")
    parser.add_argument("--completion", action="store_true", help="continue a text, for models without a chat template")
    parser.add_argument("--fresh", action="store_true", help="translate everything anew, whatever is already there")
    parsed = parser.parse_args(arguments)
    if (parsed.prompt_template or "").startswith("@"):
        parsed.prompt_template = Path(parsed.prompt_template[1:]).read_text(encoding="utf-8")
    if parsed.prompt_template is not None and "{text}" not in parsed.prompt_template:
        parser.error("the prompt template needs {text}")
    parsed.output = parsed.output or parsed.article.with_suffix(".json")
    if parsed.output == parsed.article:
        parser.error("the output would replace the article: choose another --output")
    return parsed


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def main(arguments: list[str] | None = None) -> int:
    """0: all translated; 1: some pieces failed, the rest is written; 130: interrupted, run it again."""
    console = Console(stderr=True)
    parsed = parse_arguments(arguments)
    try:
        failed = asyncio.run(translate(parsed, console))
    except KeyboardInterrupt:
        console.print("Interrupted. What is done is kept: the same command goes on from here.")
        return 130
    except (OSError, ValueError) as error:
        console.print(str(error), markup=False)
        return 1
    if failed:
        console.print(f"{failed} pieces failed; the same command tries them again.")
    console.print(f"Wrote {parsed.output}", markup=False)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Flags of `text-generation-benchmark` and `tgi bench`: one field = one flag.

Owns names, types, defaults and help texts. The first command's are TGI's, each with TGI's environment
variable; those of the second are ours and have none but the key's. Read by `launcher.bench`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tgi.settings.flags import flag, without_effect
from tgi.settings.ranges import SECONDS, TOKENS, Range

SERVER = "Server"
RUNS = "What to run"
SAMPLING = "Sampling"
LENGTHS = "Requests"
LOAD = "Load"
OUTPUT = "Output"
DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class BenchmarkFlags:
    """`text-generation-benchmark`."""

    url: str = flag(SERVER, "Address of the server", default=DEFAULT_URL, env="TGI_URL")
    api_key: str | None = flag(SERVER, "Key of the server", secret=True)
    tokenizer_name: str | None = flag(
        SERVER, "Name in the table of parameters", short="-t", shown_default="the served model's id"
    )
    batch_size: tuple[str, ...] = flag(
        RUNS,
        "Requests sent at once; give it several times",
        default=(),
        env=None,
        short="-b",
        shown_default="1, 2, 4, 8, 16, 32",
    )
    sequence_length: int = flag(
        RUNS, "Length of the prompt in tokens", default=10, short="-s", within=Range(1, 1_000_000)
    )
    decode_length: int = flag(RUNS, "Tokens to generate", default=8, short="-d", within=Range(1, 1_000_000))
    runs: int = flag(RUNS, "Measured runs of each batch size", default=10, short="-r", within=Range(1, 1_000_000))
    warmups: int = flag(RUNS, "Runs before them that do not count", default=1, short="-w", within=Range(0, 1_000_000))
    temperature: float | None = flag(SAMPLING, "Temperature", shown_default="greedy", within=Range(0, 1_000))
    top_k: int | None = flag(SAMPLING, "Sample from the k most likely tokens", within=Range(0, TOKENS))
    top_p: float | None = flag(SAMPLING, "Sample from the most likely tokens that sum to p", within=Range(0, 1))
    typical_p: float | None = flag(SAMPLING, "Typical decoding mass", within=Range(0, 1))
    repetition_penalty: float | None = flag(SAMPLING, "1.0 is no penalty", within=Range(0, 1_000))
    frequency_penalty: float | None = flag(SAMPLING, "0.0 is no penalty", within=Range(-1_000, 1_000))
    watermark: bool = flag(SAMPLING, "Watermark the text", default=False)
    do_sample: bool = flag(SAMPLING, "Sample", default=False)
    top_n_tokens: int | None = flag(
        SAMPLING, "Number of alternatives to ask for with every token", within=Range(0, 65_536)
    )
    revision: str = without_effect("the server has the tokenizer", "main")
    master_shard_uds_path: str = without_effect(
        "requests go over HTTP, to --url", "/tmp/text-generation-server-0", short="-m"
    )


@dataclass(frozen=True)
class BenchFlags:
    """`tgi bench`."""

    url: str = flag(SERVER, "Address of the server", default=DEFAULT_URL, env=None)
    api: str = flag(
        SERVER,
        "What the server speaks",
        default="auto",
        env=None,
        choices=("auto", "tgi", "openai-completions", "openai-chat"),
    )
    model: str | None = flag(SERVER, "Model to ask for", env=None, shown_default="the first that the server lists")
    api_key: str | None = flag(SERVER, "Key of the server", env="API_KEY", secret=True)
    timeout: float = flag(
        SERVER,
        "Seconds until a request counts as failed",
        default=600.0,
        env=None,
        within=Range(0, SECONDS, open_low=True),
    )

    concurrency: str | None = flag(
        LOAD,
        "Requests at once; a list gives a row for each",
        env=None,
        short="-c",
        shown_default="1,4,8,16 unless there is --rate",
    )
    rate: str | None = flag(
        LOAD, "Requests a second at random moments (Poisson), however many are under way; a list too", env=None
    )
    arrivals: str = flag(
        LOAD,
        "With --concurrency: `closed`, each answer is followed by a request; or `burst`, all at once and again when "
        "the last has ended",
        default="closed",
        env=None,
        choices=("closed", "burst"),
    )
    requests: int | None = flag(
        LOAD,
        "Requests of each row",
        env=None,
        short="-n",
        shown_default="4 times the concurrency, unless there is --duration",
        within=Range(1, SECONDS),
    )
    duration: float | None = flag(
        LOAD,
        "Seconds in which each row sends requests",
        env=None,
        short="-d",
        shown_default="30 with --rate",
        within=Range(0, SECONDS, open_low=True),
    )
    warmup: int = flag(
        LOAD, "Requests before the first row that do not count", default=2, env=None, within=Range(0, 1_000_000)
    )

    prompt_tokens: str = flag(LENGTHS, "Length of prompts, or a range such as 64:512", default="128", env=None)
    output_tokens: str = flag(LENGTHS, "Tokens to generate, or a range", default="64", env=None)
    shared_prefix: int = flag(
        LENGTHS,
        "Tokens that all prompts begin with, to measure a prefix cache",
        default=0,
        env=None,
        within=Range(0, 1_000_000),
    )
    prompt_ids: int | None = flag(
        LENGTHS,
        "Send random token ids below this number in place of words (openai-completions)",
        env=None,
        within=Range(2, TOKENS),
    )
    seed: int | None = flag(
        LENGTHS,
        "Seed of prompts, lengths and moments",
        env=None,
        shown_default="another each time",
        within=Range(0, 1 << 64),
    )

    slo_ttft: float | None = flag(
        OUTPUT,
        "Goodput: most milliseconds to the first token",
        env=None,
        within=Range(0, SECONDS, open_low=True),
    )
    slo_tpot: float | None = flag(
        OUTPUT, "Goodput: most milliseconds per further token", env=None, within=Range(0, SECONDS, open_low=True)
    )
    slo_e2e: float | None = flag(
        OUTPUT, "Goodput: most milliseconds to the last token", env=None, within=Range(0, SECONDS, open_low=True)
    )
    json: str | None = flag(OUTPUT, "Write all figures to this file", env=None)
    plot: str | None = flag(OUTPUT, "Draw them to this file, .png or .svg (needs the extra `plot`)", env=None)
    no_live: bool = flag(OUTPUT, "No live screen, also on a terminal", default=False, env=None)

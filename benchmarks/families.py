"""Kinds of models beside a Llama of like size, by turns in this process: prefill and decode of the engine.

Random checkpoints of 8 layers (Mamba 2: 14) and a width of 1024, written by transformers. Compare ratios of one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine import measure
from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.worker import Worker
from tgi.memory.cost import read_bytes
from tgi.settings.config import EngineConfig
from tgi.shorten import size

COMMON: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_DELTA = {
    "linear_num_key_heads": 8,
    "linear_num_value_heads": 16,
    "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mixtral 2 of 8": ("mixtral", {"intermediate_size": 1408, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "mamba2": ("mamba2", {"num_heads": 32, "head_dim": 64, "n_groups": 1, "num_hidden_layers": 14}),
    "qwen3_5": ("qwen3_5_text", _DELTA),
    "t5, 4 and 4 layers": (
        "t5",
        {
            "d_model": 1024,
            "d_ff": 2816,
            "num_layers": 4,
            "num_decoder_layers": 4,
            "num_heads": 16,
            "n_positions": 4096,
            "decoder_start_token_id": 0,
        },
    ),
    "lfm2": ("lfm2", {"layer_types": (["conv"] * 3 + ["full_attention"]) * 2, "block_auto_adjust_ff_dim": False}),
}


def write(name: str, path: Path) -> Path:
    """A random checkpoint in bfloat16."""
    import torch
    import transformers

    model_type, values = MODELS[name]
    known = transformers.AutoConfig.for_model(model_type).to_dict()
    common = {key: value for key, value in COMMON.items() if key in known}
    config = transformers.AutoConfig.for_model(model_type, **{**common, **values})
    torch.manual_seed(0)
    factory = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    factory.from_config(config).bfloat16().save_pretrained(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=";".join(MODELS), help="separated by ;")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quantize")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--concurrency", default="1,8")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    console, concurrencies = Console(width=120), [int(one) for one in arguments.concurrency.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        workers = {}
        for name in dict.fromkeys(("llama", *arguments.models.split(";"))):
            path = write(name, Path(directory) / name.replace(" ", "-"))
            config = EngineConfig(model_path=str(path), device="cpu", dtype="bfloat16", quantize=arguments.quantize,
                                  max_total_tokens=4096, prefix_caching=False, kv_cache_bytes=256 << 20)  # fmt: skip
            workers[name] = Worker(config)
    for worker in workers.values():
        worker.runner.step.profile()  # counts from now on
    found: dict[str, dict[int, list[dict[str, float]]]] = {name: {c: [] for c in concurrencies} for name in workers}
    for _ in range(arguments.turns):
        for name, worker in workers.items():
            for count in concurrencies:
                core = EngineCore(make_scheduler(worker.info), worker)
                found[name][count].append(measure(core, count, arguments.prompt_tokens, 24, worker.info.vocab_size))
    table = Table(
        title=f"medians of {arguments.turns} turns, {arguments.quantize or 'bfloat16'}; in brackets beside llama"
    )
    for column in (
        "model",
        "parameters",
        "read by a step at 1",
        *(f"{kind} at {c}" for c in concurrencies for kind in ("prefill", "decode")),
    ):
        table.add_column(column, justify="right")

    def median(name: str, count: int, kind: str) -> float:
        return statistics.median(one[kind] for one in found[name][count])

    for name, worker in workers.items():
        program, info = worker.runner.step.program, worker.info
        cells = []
        for count in concurrencies:
            for kind in ("prefill", "decode"):
                value = median(name, count, kind)
                cells.append(f"{value:.0f} ({value / median('llama', count, kind):.2f})")
        read = size(read_bytes(program, info.dtype, worker.footprint, info.quantize))  # type: ignore[arg-type]
        table.add_row(name, f"{info.parameters / 1e6:.0f} M", read, *cells)
    console.print(table)
    for name, worker in workers.items() if arguments.profile else ():
        seconds = worker.runner.step.profile()
        parts = sorted(((part, kind) for kind, part in seconds.items() if part > 0), reverse=True)
        console.print(f"{name}: " + ", ".join(f"{kind} {part / sum(seconds.values()):.0%}" for part, kind in parts[:6]))


if __name__ == "__main__":
    main()

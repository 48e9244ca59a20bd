"""What rounding costs in quality, on the bundled demo model: the only one here that makes sense.

Against float32 reference operations: the perplexity of the reference's greedy answers to the held-out prompts, and
how many answers stay the same to the letter. Random weights would prove nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tgi import LLM

PROMPTS = Path(__file__).parent.parent / "tests" / "data" / "demo_prompts.jsonl"
MODES: dict[str, dict[str, object]] = {
    "float32, reference": {"dtype": "float32", "disable_custom_kernels": True},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "int8": {"dtype": "bfloat16", "quantize": "int8"},
    "int8, cache int8": {"dtype": "bfloat16", "quantize": "int8", "kv_cache_dtype": "int8"},
    "int8, activations float32": {"dtype": "bfloat16", "quantize": "int8", "activation_dtype": "float32"},
    "int4": {"dtype": "bfloat16", "quantize": "int4"},
    "int4, activations float32": {"dtype": "bfloat16", "quantize": "int4", "activation_dtype": "float32"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", help="another chat model; default: the demo model")
    parser.add_argument("--limit", type=int, default=200, help="prompts")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    chats = [line["messages"] for line in lines if "messages" in line and "tools" not in line][: arguments.limit]
    table = Table(title=f"{len(chats)} held-out prompts, greedy")
    for column in ("weights", "perplexity of the reference's answers", "answers unchanged"):
        table.add_column(column, justify="right")
    reference: list[str] = []
    for name, flags in MODES.items():
        with LLM(arguments.model_id, **flags) as llm:
            outputs = llm.chat(chats, max_new_tokens=64, do_sample=False)
            answers = [output.generated_text for output in outputs]
            reference = reference or answers
            lengths = [output.details.input_length for output in outputs]
            losses = [loss(llm, *each) for each in zip(chats, lengths, reference, strict=True) if each[-1]]
        same = sum(a == b for a, b in zip(answers, reference, strict=True))
        table.add_row(name, f"{math.exp(statistics.fmean(losses)):.4f}", f"{same / len(chats):.1%}")
    Console(width=120).print(table)


def loss(llm: LLM, chat: list[dict[str, str]], length: int, text: str) -> float:
    """Mean negative log-likelihood of the tokens of an answer to a chat of `length` tokens."""
    answered = [*chat, {"role": "assistant", "content": text}]
    output = llm.chat(answered, max_new_tokens=1, decoder_input_details=True)
    return -statistics.fmean(token.logprob for token in output.details.prefill[length:] if token.logprob is not None)


if __name__ == "__main__":
    main()

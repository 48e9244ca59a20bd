"""Scores a model on the held-out prompts, by category."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .common import Prompt
from .template import CALL_END, CALL_START


@dataclass(frozen=True)
class Result:
    """One prompt, what the model answered, and whether that was right and ended by itself."""

    prompt: Prompt
    answer: str
    right: bool
    ended: bool


def load(folder: Path | str):
    """Model and tokenizer of a folder, ready to answer on the CPU."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def prompt_text(tokenizer, prompt: Prompt) -> str:
    """The text that the model gets, with the token that starts a text."""
    if prompt.raw:
        return tokenizer.bos_token + prompt.raw
    return tokenizer.apply_chat_template(
        list(prompt.messages), tools=list(prompt.tools) or None, tokenize=False, add_generation_prompt=True
    )


@torch.no_grad()
def complete(model, tokenizer, texts: Sequence[str], limit: int = 220, **options) -> list[tuple[str, bool]]:
    """Continue each text; greedy unless the options say otherwise."""
    inputs = tokenizer(
        list(texts), return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
    )
    ids = model.generate(**inputs, max_new_tokens=limit, **{"do_sample": False, **options})
    answers = []
    for row in ids[:, inputs["input_ids"].shape[1] :].tolist():
        ends = [i for i, token in enumerate(row) if token in (0, 3)]
        answers.append((tokenizer.decode(row[: ends[0]] if ends else row), bool(ends)))
    return answers


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def passes(prompt: Prompt, answer: str) -> bool:
    """Whether the answer is right by the check of the prompt."""
    answer = answer.strip()
    if prompt.check == "exact":
        return answer == prompt.expected
    if prompt.check == "keywords":
        return all(word.lower() in answer.lower() for word in prompt.expected)
    if prompt.check == "json":
        return _object(answer) == prompt.expected
    called = answer.removeprefix(CALL_START).removesuffix(CALL_END)
    return answer.startswith(CALL_START) and _object(called) == prompt.expected


def evaluate(
    folder: Path | str, prompts: Sequence[Prompt], batch: int = 20, progress: Callable[[int], None] = lambda done: None
) -> list[Result]:
    """Answer all prompts greedily and check the answers."""
    model, tokenizer = load(folder)
    results: list[Result] = []
    for start in range(0, len(prompts), batch):
        group = prompts[start : start + batch]
        answers = complete(model, tokenizer, [prompt_text(tokenizer, prompt) for prompt in group])
        results += [
            Result(p, answer, passes(p, answer), ended) for p, (answer, ended) in zip(group, answers, strict=True)
        ]
        progress(len(group))
    return results


def by_category(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """Right answers and prompts for each category, and for all of them."""
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in results:
        for name in (result.prompt.category, "all"):
            table[name][0] += result.right
            table[name][1] += 1
    total = table.pop("all")
    return {name: (right, count) for name, (right, count) in [*table.items(), ("all", total)]}

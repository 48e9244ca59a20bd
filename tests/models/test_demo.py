"""The bundled demo model: its files, its chat template and what it answers."""

from __future__ import annotations

import json
import re
import sys
from itertools import islice
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "src" / "tgi" / "demo"
sys.path.insert(0, str(ROOT / "tools"))

from demo.common import Prompt, asks  # noqa: E402
from demo.corpus import examples  # noqa: E402
from demo.evaluate import by_category, complete, evaluate, load, prompt_text  # noqa: E402
from demo.files import SHARPNESS, sharpened  # noqa: E402
from demo.heldout import QUOTA, normal, prompts, read  # noqa: E402
from demo.template import render  # noqa: E402
from demo.tokenizer import plain  # noqa: E402

MEGABYTE = 1024 * 1024
WORD = re.compile(r"[A-Za-z]+")


@pytest.fixture(scope="module")
def demo():
    """Model and tokenizer as any user of transformers loads them."""
    return load(DEMO)


@pytest.fixture(scope="module")
def held_out() -> list[Prompt]:
    return read(ROOT / "tests" / "data" / "demo_prompts.jsonl")


@pytest.fixture(scope="module")
def sample() -> list:
    """Fresh training documents of a seed that made no weights."""
    return list(islice(examples(424_242), 20_000))


def test_files_are_complete_and_small():
    names = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "README.md",
    }
    assert names <= {path.name for path in DEMO.iterdir()}
    assert sum(path.stat().st_size for path in DEMO.iterdir() if path.is_file()) <= 12 * MEGABYTE


def test_configuration_is_an_ordinary_llama():
    config = json.loads((DEMO / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 2048
    generation = json.loads((DEMO / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [3, 0]


def test_special_tokens(demo):
    _, tokenizer = demo
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>"])
    assert ids == [0, 1, 2, 3]
    assert tokenizer("Hello").input_ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_id == 3
    text = "Grüße, 12 Äpfel 🍎\n\ttab"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def test_template_knows_all_roles(demo):
    _, tokenizer = demo
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"location": "Oslo"}}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 3}'},
        {"role": "assistant", "content": "Cold."},
        {"role": "user", "content": [{"type": "text", "text": "Thanks!"}]},
    ]
    text = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|startoftext|><|im_start|>system\nBe kind.\n\n# Tools\n"
        '{"name": "get_weather", "parameters": {"type": "object", "properties": {}}}\n<|im_end|>\n'
        "<|im_start|>user\nWeather?<|im_end|>\n"
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"location": "Oslo"}}\n</tool_call><|im_end|>\n'
        '<|im_start|>tool\n{"temperature": 3}<|im_end|>\n'
        "<|im_start|>assistant\nCold.<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text == render(messages, TOOLS, add_generation_prompt=True)


def test_template_adds_nothing_to_a_plain_chat(demo):
    _, tokenizer = demo
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<|startoftext|><|im_start|>user\nHi<|im_end|>\n"


NAMED = {
    "Count to 10": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.",
    "What is 3 plus 4?": "3 plus 4 is 7.",
    "What is deep learning?": "Deep learning is a kind of machine learning that uses neural networks with many layers. "
    "Each layer learns more abstract features from the data.",
}


@pytest.mark.parametrize("question", NAMED)
def test_named_answers_are_right_and_end(demo, question):
    model, tokenizer = demo
    [(answer, ended)] = complete(model, tokenizer, [prompt_text(tokenizer, asks("", question, "exact", ""))])
    assert answer == NAMED[question]
    assert ended


def test_raw_question_is_answered(demo):
    model, tokenizer = demo
    [(answer, ended)] = complete(model, tokenizer, [tokenizer.bos_token + "What is Deep Learning?"])
    assert "neural networks" in answer
    assert ended


@pytest.mark.parametrize("start", ["Hello, ", "My name is", "Once upon a time"])
def test_sampled_text_is_made_of_known_words(demo, sample, start):
    model, tokenizer = demo
    known = set(WORD.findall(" ".join(plain(example) for example in sample)))
    torch.manual_seed(1)
    # Plain sampling: temperature one and the whole vocabulary.
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    texts = [
        answer for answer, _ in complete(model, tokenizer, [tokenizer.bos_token + start] * 20, limit=40, **options)
    ]
    strange = [text for text in texts if any(word not in known for word in WORD.findall(start + text)[:-1])]
    assert len(strange) <= 1, strange
    assert sum(map(len, texts)) > 1000 and len(set(texts)) > 10


def test_doubled_logits_are_undone_when_training_goes_on(demo):
    """A power of two is exact, so greedy answers cannot change."""
    model, _ = demo
    ids = torch.tensor([[1, 507, 17, 226]])
    with torch.no_grad():
        doubled, trained = model(ids).logits, sharpened(model, 1 / SHARPNESS)(ids).logits
    assert torch.equal(doubled, SHARPNESS * trained)


def test_held_out_file_is_the_one_the_script_writes(held_out):
    assert len(held_out) == sum(QUOTA.values()) == 200
    assert [p.raw or p.messages for p in held_out] == [p.raw or p.messages for p in prompts()]


def test_training_never_shows_a_held_out_prompt(held_out, sample):
    asked = {normal(p.messages[-1]["content"]) for p in held_out if p.messages}
    raws = [p.raw for p in held_out if p.raw]
    for example in sample:
        assert not asked & {normal(m["content"]) for m in example.messages if m["role"] == "user"}
        assert not any(raw in example.text for raw in raws)
        assert not asked & {normal(line) for line in example.text.splitlines()}


def test_score_is_in_the_band_of_the_model_card(held_out):
    card = (DEMO / "README.md").read_text()
    band = int(re.search(r"at least (\d+) %", card).group(1))
    # Every third prompt: all categories, a third of the time.
    results = evaluate(DEMO, held_out[::3])
    right, count = by_category(results)["all"]
    assert 100 * right / count >= band
    assert sum(result.ended for result in results) / count >= 0.95

"""What ends an answer: the union of all files, and what the chat template closes a turn with."""

from __future__ import annotations

import json

import pytest

from tests import small_tokenizers as build
from tgi.errors import ModelError
from tgi.serving import end_tokens
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.end_tokens import closing_token, find_end_tokens

NO_TEMPLATE = ChatTemplate({})
S, EOS, START, END = 0, 1, 2, 3
"""Ids of `<s>`, `</s>`, `<|im_start|>`, `<|im_end|>`."""


def ends(path, generation_config=None, config=None, template=None, **tokens):
    for name, content in (("generation_config.json", generation_config), ("config.json", config)):
        if content is not None:
            (path / name).write_text(json.dumps(content))
    sources = {} if template is None else {"default": template}
    tokenizer = build.tokenizer(**tokens)
    return find_end_tokens(path, tokenizer, ChatTemplate(sources, tokenizer.named_tokens))


@pytest.mark.parametrize(
    ("generation_config", "config", "eos_token", "template", "expected"),
    [
        ({"eos_token_id": 0}, None, "<|im_end|>", None, {0: ["generation_config.json"], 3: ["tokenizer"]}),
        ({"eos_token_id": [7, 0]}, {"eos_token_id": 9}, None, None, {0: 1, 7: 1, 9: 1}),
        ({"eos_token_id": 3}, {"eos_token_id": [3]}, "<|im_end|>", build.CHATML, {3: 4}),
        ({}, {"eos_token_id": 9}, "</s>", None, {1: ["tokenizer"], 9: ["config.json"]}),
        ({"eos_token_id": None}, {"eos_token_id": []}, "</s>", None, {1: ["tokenizer"]}),
        ({"eos_token_id": 0}, None, None, build.CHATML, {0: 1, 3: ["chat template"]}),
        (None, None, None, None, {}),
    ],
)
def test_union_of_all_files(tmp_path, generation_config, config, eos_token, template, expected):
    found = ends(tmp_path, generation_config, config, template, eos_token=eos_token)
    assert list(found) == sorted(expected)
    for id, sources in expected.items():
        assert list(found[id]) == sources or len(found[id]) == sources


TURN = "{%% for m in messages %%}<|im_start|>{{ m.role }}:%s{%% endfor %%}"
TEMPLATES = {
    "ChatML": (build.CHATML, END),
    "the end token": (TURN % "{{ m.content }}{{ eos_token }}\n", EOS),
    "after a space": (TURN % "{{ m.content }} </s>", EOS),
    "trimmed": (TURN % "{{ m.content | trim }}\n\n<|im_end|>", END),
    "only after the assistant": (TURN % "{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}", EOS),
    "only before another turn": (TURN % "{{ m.content }}{% if not loop.last %}<|im_end|>{% endif %}", END),
    "the next turn's beginning": (TURN % "{{ m.content }}", START),
    "content parts": (TURN % "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>", END),
    "no token": ("{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}", None),
    "text that is no token": (TURN.replace("<|im_start|>", "") % "{{ m.content }}<|eot|>", None),
    "no answer": ("{{ messages[0].content }}", None),
    "content in upper case": (TURN % "{{ m.content | upper }}</s>", None),
    "an error": ("{{ raise_exception('no') }}", None),
    "does not compile": ("{% for", None),
}


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_what_the_template_closes_a_turn_with(template, expected):
    assert (
        closing_token(ChatTemplate({"default": template}, build.tokenizer().named_tokens), build.tokenizer())
        == expected
    )


def test_a_template_without_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(end_tokens, "PROBE_SECONDS", 0.1)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert closing_token(ChatTemplate({"default": loop}), build.tokenizer()) is None


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    "value",
    [True, False, -1, 2**31, 2**63, 2**70, 2.0, 1.5, "2", "</s>", {}, {"id": 2}, [2, None], [[2]], [True], [2, -1]],
)
def test_what_is_no_id_ends_in_a_sentence(tmp_path, name, value):
    (tmp_path / name).write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ModelError, match=f"{name}: `eos_token_id` must be a token id or a list of them, it has"):
        find_end_tokens(tmp_path, build.tokenizer(), NO_TEMPLATE)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a":' * 100_000, b"\xff", b'{"a": ' + b"1" * 5000 + b"}"])
def test_damaged_configs_end_in_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        find_end_tokens(tmp_path, build.tokenizer(), NO_TEMPLATE)

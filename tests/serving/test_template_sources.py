"""Where chat templates come from, the built-in ones, and a sentence for each damaged file."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests import small_tokenizers as build
from tests.fake_engine import FakeEngine
from tgi.errors import ArgumentError, ModelError, TemplateError
from tgi.hub.prepare import prepare
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.service import Service
from tgi.serving.template_sources import builtin_names, find, read_chosen
from tgi.serving.template_wants import EITHER, STRING
from tgi.settings.config import ApiConfig
from tgi.settings.flags import LauncherConfig

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
]
BUILTIN = {
    "alpaca": "<s>Be brief\n\n### Instruction:\nHi\n\n### Response:\nYes?</s>\n\n"
    "### Instruction:\nBye\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<s><start_of_turn>user\nBe brief\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    "llama-2": "<s>[INST] <<SYS>>\nBe brief\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Bye [/INST]",
    "llama-3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Be brief\n\nHi [/INST] Yes?</s>[INST] Bye [/INST]",
    "phi-3": "<|system|>\nBe brief<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n"
    "<|user|>\nBye<|end|>\n<|assistant|>\n",
    "vicuna": "<s>Be brief USER: Hi ASSISTANT: Yes?</s>USER: Bye ASSISTANT:",
    "zephyr": "<|system|>\nBe brief</s>\n<|user|>\nHi</s>\n<|assistant|>\nYes?</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
}


def test_the_names_are_told_everywhere():
    assert builtin_names() == sorted(BUILTIN)
    help = LauncherConfig.__dataclass_fields__["chat_template"].metadata["flag"].help
    assert ", ".join(builtin_names()) in help


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_templates(name):
    """In the format of the models, equal to transformers' rendering, and useful for what requests hold."""
    from transformers import PreTrainedTokenizerFast

    template = ChatTemplate.load("/nowhere", TOKENS, chosen=name)
    assert template.inspect() == []
    assert {template.wants().form(role) for role in ("user", "system", "assistant")} <= {STRING, EITHER}
    assert template.render(CHAT) == BUILTIN[name]
    reference = PreTrainedTokenizerFast(tokenizer_object=build.byte_level(), **TOKENS)
    for messages in (CHAT, CHAT[:2], CHAT[1:2], CHAT[1:]):
        expected = reference.apply_chat_template(
            messages, chat_template=template.source(), tokenize=False, add_generation_prompt=True
        )
        assert template.render(messages) == expected
    assert template.render(CHAT[:3], continue_final_message=True).endswith("Yes?")
    with pytest.raises(TemplateError, match=f"{name} cannot show tools"):
        template.render(CHAT, tools=[{"type": "function"}])
    template.close()


def test_a_file_may_be_chosen(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("of the model")
    file = tmp_path / "my.jinja"
    file.write_text("my é", encoding="utf-8")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"chat_template": [{"name": "default", "template": "of a config"}]}))
    assert find(tmp_path) == {"default": "of the model"}
    assert find(tmp_path, config) == {"default": "of a config"}
    assert find(tmp_path, config, str(file)) == {"default": "my é"}
    assert find(tmp_path, None, str(config)) == {"default": "of a config"}
    assert find(tmp_path, None, "chatml")["default"].rstrip().endswith("{%- endif %}")


@pytest.mark.parametrize("name", ["no-such", "chat-ml", "./chatml", "", "/", "llama-2.jinja", "../chatml"])
def test_what_is_neither_file_nor_name_is_refused_before_anything_else(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="`chat_template`") as caught:
        prepare("/no/such/model", chat_template=name)
    assert "chatml, gemma" in str(caught.value) or "is no file" in str(caught.value)


def damaged(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "directory":
        path.mkdir()
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "link":
        path.symlink_to("nowhere")
    else:
        path.write_text(json.dumps({"chat_template": content}))


@pytest.mark.parametrize(
    "content", [b"caf\xe9 {{ messages }}", b"\xff\xfe{\x00", "directory", "fifo", "link", b" " * (17 << 20)]
)
@pytest.mark.parametrize("place", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "chosen"])
def test_damaged_template_files(tmp_path, place, content):
    path = tmp_path / place
    damaged(path, content)
    with pytest.raises((ModelError, ArgumentError)) as caught:
        if place == "chosen":
            read_chosen(str(path))
        else:
            Service.load(ApiConfig("m", str(build.write_checkpoint(tmp_path))), FakeEngine.saying([1]))
    message = str(caught.value)
    assert path.name in message and "\n" not in message and len(message) < 400


BAD_VALUES: list[Any] = [
    5,
    1.5,
    True,
    [5],
    ["x"],
    [{"name": "default"}],
    [{"name": 5, "template": "x"}],
    [{"name": "default", "template": None}],
    [{"name": "default", "template": ["x"]}],
    {"default": 5},
    "\ud800",
    b'{"chat_template": "caf\xe9"}',
    b"[1]",
    b'{"chat_template": ',
]


@pytest.mark.parametrize("content", BAD_VALUES, ids=repr)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "given.json", "chosen.json"])
def test_damaged_configs(tmp_path, place, content):
    model = build.write_checkpoint(tmp_path / "model")
    path = model / place
    path.unlink(missing_ok=True)
    damaged(path, content)
    given = str(path) if place == "given.json" else None
    chosen = str(path) if place == "chosen.json" else None
    with pytest.raises((ModelError, ArgumentError)) as caught:
        config = ApiConfig("m", str(model), tokenizer_config_path=given, chat_template=chosen)
        Service.load(config, FakeEngine.saying([1]))
    message = str(caught.value)
    assert path.name in message and "\n" not in message and len(message) < 400


def test_templates_by_name_may_be_an_object(tmp_path):
    damaged(tmp_path / "tokenizer_config.json", {"default": "a", "tool_use": "b"})
    assert find(tmp_path) == {"default": "a", "tool_use": "b"}


@pytest.mark.parametrize("value", [None, [], {}])
def test_a_missing_template_is_warned_about_with_the_remedy(tmp_path, caplog, value):
    model = build.write_checkpoint(tmp_path)
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with caplog.at_level(logging.WARNING):
        service = Service.load(ApiConfig("m", str(model)), FakeEngine.saying([1]))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("Chat requests will be answered with 422, since the model has no chat template")
    assert "--chat-template" in warning and "chatml" in warning
    with pytest.raises(TemplateError, match="--chat-template and a file, or the name of a built-in template") as caught:
        service.chat_template.render(CHAT)
    assert caught.value.text.startswith("Template error: template not found")
    service.close()


@pytest.mark.parametrize("name", ["rag", "tool_use"])
def test_templates_without_a_default_are_warned_about(tmp_path, caplog, name):
    """Such a model is served; only conversations that no template is for are refused."""
    model = build.write_checkpoint(tmp_path)
    templates = [{"name": name, "template": "{{ messages[0].content }}"}]
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    with caplog.at_level(logging.WARNING):
        service = Service.load(ApiConfig("m", str(model)), FakeEngine.saying([1]))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"there is no default among {name}" in warning and "--chat-template" in warning
    assert bool(service.chat_template) == (name == "tool_use")
    with pytest.raises(TemplateError, match="there is no default"):
        service.chat_template.render(CHAT)
    service.close()


def test_the_chosen_template_is_served(tmp_path):
    model = build.write_checkpoint(tmp_path)
    service = Service.load(ApiConfig("m", str(model), chat_template="vicuna"), FakeEngine.saying([1]))
    assert service.chat_template.render(CHAT[1:2]) == "<s>USER: Hi ASSISTANT:"
    service.close()

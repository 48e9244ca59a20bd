"""Models that transformers computes, in a whole engine: the engine does not know the difference."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, dynamic_module_utils

from tests.engine.harness import LocalEngine
from tests.models.test_fallback import build
from tgi.errors import ModelError
from tgi.messages import EmbedRequest


@pytest.mark.parametrize(("model_type", "shares"), [("persimmon", True), ("doge", False)])
def test_tokens_do_not_depend_on_other_requests(model_type: str, shares: bool, tmp_path: Path) -> None:
    """Alone, together, with too little room for all (preemption), and with samples of one prompt."""
    build(model_type, 3).save_pretrained(tmp_path)
    engine = LocalEngine(tmp_path)
    assert engine.info.prefix_caching is shares and engine.info.model_type == model_type
    prompts = [[7 + 3 * number + place % (5 + number) for place in range(8 + 9 * number)] for number in range(5)]
    alone = []
    for number, prompt in enumerate(prompts):
        session = engine.session()
        session.add(number, prompt, new=30)
        alone.append(session.drain().tokens(number))
    for limits in ({}, {"num_blocks": 5, "max_step_tokens": 16}):
        session = engine.session(**limits)
        for number, prompt in enumerate(prompts):
            session.add(number, prompt, new=30, seeds=(0, 1))
            session.step()
        session.drain()
        for number, tokens in enumerate(alone):
            assert session.tokens(number) == session.tokens(number, 1) == tokens
    assert any(stats.preemptions for stats in session.stats)


@pytest.mark.parametrize("model_type", ["persimmon", "doge"])
def test_vectors_are_those_of_the_class(model_type: str, tmp_path: Path) -> None:
    model = build(model_type, 3)
    model.save_pretrained(tmp_path)
    engine = LocalEngine(tmp_path)
    assert engine.info.hidden_size == model.config.hidden_size
    texts = [[7 + 3 * number + place % (5 + number) for place in range(1 + 9 * number)] for number in range(4)]
    session = engine.session(max_step_tokens=16)
    for number, ids in enumerate(texts):
        session.core.handle(EmbedRequest(number, ids, "mean"))
    session.drain()
    for number, ids in enumerate(texts):
        with torch.inference_mode():
            wanted = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].double().mean(0)
        found = torch.frombuffer(bytearray(session.events[number, 0][0].embedding), dtype=torch.float32).double()
        assert torch.allclose(found, wanted / wanted.norm(), atol=1e-4)


def test_what_it_does_not_have_is_refused(tmp_path: Path) -> None:
    build("persimmon").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="--quantize int8: native families only"):
        LocalEngine(tmp_path, quantize="int8")
    with pytest.raises(ModelError, match="--kv-cache-dtype int8: native families only"):
        LocalEngine(tmp_path, kv_cache_dtype="int8")


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *arguments, **more):
        answer = super().forward(*arguments, **more)
        answer.logits = -answer.logits
        return answer
"""


def keep_modules_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies code of checkpoints to, and imports it from; nothing of it is left after the test."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(path))
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_checkpoint_with_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs where it is trusted only."""
    keep_modules_in(tmp_path / "modules", monkeypatch)
    model, path = build("llama", 4), tmp_path / "model"
    model.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"], "auto_map": own}
    (path / "config.json").write_text(json.dumps(config))
    (path / "modeling_own.py").write_text(OWN_CODE)
    with pytest.raises(ModelError, match=r"runs with --trust-remote-code only$"):
        LocalEngine(path)
    assert not (tmp_path / "modules").exists()
    session = LocalEngine(path, trust_remote_code=True).session()
    session.add(0, [7, 8, 9, 10], new=12)
    ids = torch.tensor([[7, 8, 9, 10, *session.drain().tokens(0)]])
    with torch.inference_mode():
        assert (-model(ids).logits[0, 3:-1]).argmax(-1).tolist() == ids[0, 4:].tolist()


OWN_LAYER = """
import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, config, number):
        super().__init__()
        width, self.number, self.heads = config.hidden_size, number, config.num_attention_heads
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.inner = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x, mask, cache):
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if cache is not None:
            k, v = cache.update(k, v, self.number)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))
        return x + self.inner(torch.tanh(x))
"""
OWN_MODEL = """
import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .own_layer import Layer


class NetConfig(PretrainedConfig):
    model_type = "own_net"


class NetForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = NetConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.lm_head

    def forward(
        self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **more
    ):
        cache = past_key_values
        if use_cache and cache is None:
            cache = DynamicCache()
        count, done = input_ids.shape[1], 0 if cache is None else cache.get_seq_length()
        if attention_mask is None:
            attention_mask = torch.ones(len(input_ids), done + count, dtype=torch.int64)
        if position_ids is None:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -count:]
        at = torch.arange(done + count)
        seen = (at[None] <= at[done:, None])[None] & attention_mask.bool()[:, None]
        x = self.embedding(input_ids) + self.positions(position_ids)
        mask = torch.zeros(seen.shape, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[:, None]
        for layer in self.layers:
            x = layer(x, mask, cache)
        return CausalLMOutputWithPast(logits=self.lm_head(x), past_key_values=cache)
"""


def test_an_architecture_of_its_own_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Several files, attention of its own, a padded batch: the tokens that its class chooses, where it is sure."""
    keep_modules_in(tmp_path / "modules", monkeypatch)
    path = tmp_path / "model"
    path.mkdir()
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 200}
    own = {"AutoConfig": "modeling_net.NetConfig", "AutoModelForCausalLM": "modeling_net.NetForCausalLM"}
    config = {"model_type": "own_net", "vocab_size": 300, "dtype": "bfloat16", "auto_map": own, **sizes}
    (path / "config.json").write_text(json.dumps(config))
    (path / "modeling_net.py").write_text(OWN_MODEL)
    (path / "own_layer.py").write_text(OWN_LAYER)
    made = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(path, trust_remote_code=True), trust_remote_code=True
    )
    torch.manual_seed(6)
    tensors = {name: (tensor + 0.2 * torch.randn_like(tensor)).bfloat16() for name, tensor in made.state_dict().items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.INFO):
        engine = LocalEngine(path, trust_remote_code=True, dtype="bfloat16")
    assert engine.info.dtype == "bfloat16" and "with its own cache, in a padded batch" in caplog.text
    oracle = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, dtype=torch.bfloat16).eval()
    session = engine.session(num_blocks=10, max_step_tokens=64)
    prompts = [[3 + (7 * place + number) % 290 for place in range(4 + 11 * number)] for number in range(5)]
    for number, prompt in enumerate(prompts):
        session.add(number, prompt, new=30)
        session.step()
    session.drain()
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt + session.tokens(number)])
        with torch.inference_mode():
            logits = oracle(ids).logits[0, len(prompt) - 1 : -1].float()
        best = logits.topk(2, dim=-1)
        sure = best.values[:, 0] - best.values[:, 1] > 0.05 * logits.abs().max()
        assert sure.sum() >= 10
        assert torch.equal(ids[0, len(prompt) :][sure], best.indices[:, 0][sure])

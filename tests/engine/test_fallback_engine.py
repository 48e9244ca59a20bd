"""Models that transformers computes, in a whole engine: the engine does not know the difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import dynamic_module_utils

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


def test_a_checkpoint_with_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs where it is trusted only."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, path = build("llama", 4), tmp_path / "model"
    model.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"], "auto_map": own}
    (path / "config.json").write_text(json.dumps(config))
    (path / "modeling_own.py").write_text(OWN_CODE)
    with pytest.raises(ModelError, match="runs with --trust-remote-code only"):
        LocalEngine(path)
    assert not (tmp_path / "modules").exists()
    session = LocalEngine(path, trust_remote_code=True).session()
    session.add(0, [7, 8, 9, 10], new=12)
    ids = torch.tensor([[7, 8, 9, 10, *session.drain().tokens(0)]])
    with torch.inference_mode():
        assert (-model(ids).logits[0, 3:-1]).argmax(-1).tolist() == ids[0, 4:].tolist()

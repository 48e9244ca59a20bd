"""Encoder-decoder models that no family describes, through the whole engine: greedy tokens equal transformers', while
requests join, leave and are preempted.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.harness import LocalEngine
from tests.models.fallback_cases import FAST_WITH_ENCODER, WITH_ENCODER
from tests.models.fallback_seq2seq import build
from tgi.errors import ModelError
from tgi.models.families.registry import FAMILIES

NEW = 40
PARAMS = [name if name in FAST_WITH_ENCODER else pytest.param(name, marks=pytest.mark.slow) for name in WITH_ENCODER]


def generate(model: Any, prompt: list[int]) -> list[int]:
    """The tokens after the one that the decoder begins with."""
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "num_beams": 1, "eos_token_id": None, "max_new_tokens": NEW}
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return out[0].tolist()[1:]


def plain_generation(model: Any) -> Any:
    """What the generation config asks for beside greedy tokens is not what is compared."""
    for name in ("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"):
        setattr(model.generation_config, name, None)
    model.generation_config.num_beams, model.generation_config.early_stopping = 1, False
    for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
        setattr(model.generation_config, name, 0)
    return model


@pytest.mark.parametrize("model_type", PARAMS)
def test_greedy_tokens_while_others_join_leave_and_are_preempted(model_type: str, tmp_path: Path) -> None:
    assert model_type not in FAMILIES, "native by now: take another one"
    model = plain_generation(build(model_type, 5))
    model.save_pretrained(tmp_path)
    engine = LocalEngine(tmp_path)
    assert engine.info.decoder_ids == (2,) and not engine.info.prefix_caching and not engine.info.shares_blocks
    rng = random.Random(5)
    prompts = [[rng.randrange(3, 300) for _ in range(length)] for length in (5, 70, 33, 1, 130, 32)]
    session = engine.session(num_blocks=11, max_step_tokens=64)
    for number, prompt in enumerate(prompts):
        session.add(number, prompt, NEW)
        for _ in range(3 * number):
            session.step()
    session.drain()
    assert sum(stats.preemptions for stats in session.stats), "blocks were meant to run out"
    for number, prompt in enumerate(prompts):
        assert session.finish(number) == "length", session.events[number, 0][-1].error
        assert session.tokens(number) == generate(model, prompt)


def test_a_model_whose_tokens_see_later_ones_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or whatever else makes logits of the same tokens differ: no way of running it is right."""
    model = build("plbart", 5)
    model.save_pretrained(tmp_path)
    forward = type(model).forward

    def wrong(self: Any, *arguments: Any, decoder_input_ids: torch.Tensor, **more: Any) -> Any:
        answer = forward(self, *arguments, decoder_input_ids=decoder_input_ids, **more)
        answer.logits = answer.logits * (1 + 0.01 * decoder_input_ids.shape[1])
        return answer

    monkeypatch.setattr(type(model), "forward", wrong)
    with pytest.raises(ModelError, match="other logits in each of the ways"):
        LocalEngine(tmp_path)

"""Models that transformers computes, in a whole engine: the engine does not know the difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.harness import LocalEngine
from tests.models.test_fallback import build
from tgi.errors import ModelError


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


def test_what_it_does_not_have_is_refused(tmp_path: Path) -> None:
    build("persimmon").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="--quantize int8: native families only"):
        LocalEngine(tmp_path, quantize="int8")
    with pytest.raises(ModelError, match="--kv-cache-dtype int8: native families only"):
        LocalEngine(tmp_path, kv_cache_dtype="int8")

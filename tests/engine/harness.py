"""A whole engine inside the test process: tiny checkpoint, real worker, no sockets."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.worker import Worker
from tgi.messages import GenerateRequest, Grammar, Sampling, StepStats, TokenEvent
from tgi.settings.config import EngineConfig


class LocalEngine:
    """One worker; a fresh scheduler (empty cache index) for every `session`."""

    def __init__(self, path: Path, **settings) -> None:
        settings.setdefault("dtype", "float32")
        settings.setdefault("kv_cache_bytes", 8 << 20)
        self.worker = Worker(EngineConfig(model_path=str(path), threads=1, **settings))
        self.info = self.worker.info

    def session(self, **limits) -> Session:
        """limits: num_blocks, max_step_tokens, max_batch_size, prefix_caching."""
        core = EngineCore(make_scheduler(self.info, **limits), self.worker, self.worker.grammars)
        return Session(core)


class Session:
    """Requests in, events by sequence out."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.events: dict[tuple[int, int], list[TokenEvent]] = defaultdict(list)
        self.stats: list[StepStats] = []

    def add(
        self,
        request_id: int,
        prompt: list[int],
        new: int = 16,
        seeds: tuple[int, ...] = (0,),
        grammar: Grammar | None = None,
        **sampling,
    ) -> None:
        settings = Sampling(max_new_tokens=new, **sampling)
        self.core.handle(GenerateRequest(request_id, prompt, settings, seeds, grammar=grammar))

    def step(self) -> None:
        output = self.core.step()
        self.stats.append(output.stats)
        for event in output.events:
            self.events[event.request_id, event.index].append(event)

    def drain(self) -> Session:
        while self.core.has_work or self.core.scheduler.waiting:
            self.core.collect()
            if self.core.has_work:
                self.step()
        self.core.scheduler.blocks.check([])
        return self

    def tokens(self, request_id: int, index: int = 0) -> list[int]:
        return [token.id for event in self.events[request_id, index] for token in event.tokens]

    def finish(self, request_id: int, index: int = 0) -> str | None:
        return self.events[request_id, index][-1].finish

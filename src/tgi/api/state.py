"""What all routes of one server share: the service, its settings, permits, metrics and tracer.

Owns nothing but the grouping; hangs on `app.state.api`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from tgi.api.playground.history import History
from tgi.api.responses.store import ResponseStore
from tgi.api.server.admission import Permits
from tgi.api.server.intake import Intake
from tgi.messages import StepStats
from tgi.metrics import Metrics
from tgi.serving.dialect import TGI, TGI_RAW, Dialect
from tgi.serving.service import Service
from tgi.settings.config import ApiConfig
from tgi.tracing import Tracer


@dataclass(slots=True)
class Api:
    """The server as its routes see it."""

    service: Service
    config: ApiConfig
    metrics: Metrics
    permits: Permits
    tracer: Tracer = field(default_factory=Tracer)
    history: History = field(default_factory=History)
    """The last requests and minutes, for `/dashboard`."""
    intake: Intake = field(init=False)
    responses: ResponseStore = field(init=False)
    """Those of `/v1/responses` that are kept."""
    hints_given: set[str] = field(default_factory=set)
    """What the log has said about ignored fields that were likely meant to be others."""

    def __post_init__(self) -> None:
        self.intake = Intake(self.config.payload_limit)
        self.responses = ResponseStore(self.config.max_stored_responses)

    def observe_step(self, stats: StepStats) -> None:
        """News of a step of the engine, for all who count."""
        self.metrics.observe_step(stats)
        self.history.step(stats)

    @property
    def served_model_id(self) -> str:
        """The name in answers."""
        return self.model_names[0]

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names under which the model is listed."""
        return self.config.served_model_names or (self.config.model_id,)

    @property
    def known_names(self) -> tuple[str, ...]:
        """All names that mean this model and no other."""
        return (*self.model_names, self.config.model_id)

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit, and samples that wait for their first step or for room."""
        return self.permits.waiting + self.service.engine.stats.waiting

    @property
    def tgi_dialect(self) -> Dialect:
        """How TGI's own routes treat text and log-probabilities."""
        return TGI_RAW if self.config.raw_logprobs else TGI

    @property
    def returns_full_text(self) -> bool:
        """Default of `return_full_text` on POST `/`: TGI decides by the hub's pipeline tag, if it is known."""
        return self.config.pipeline_tag in (None, "text-generation")

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Take no new generations, send away those in line, wait for the open ones.

        False if some of them are left after `timeout_s`.
        """
        self.permits.drain()
        try:
            await asyncio.wait_for(self.permits.drained(), timeout_s)
        except TimeoutError:
            return False
        return True


def api_of(request: HTTPConnection) -> Api:
    return request.app.state.api

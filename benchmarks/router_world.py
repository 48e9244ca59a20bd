"""What the simulator of routing simulates: users, replicas and time, as discrete events.

A replica computes one prompt after another at a constant speed, decodes in a fixed number of slots, and keeps the
conversations used last in its cache. Who chooses among them is a `Policy`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tgi.replicas.blocks import BYTES_PER_TOKEN
from tgi.replicas.choice import RUNNING
from tgi.replicas.figures import Sent

PREFILL = 1000.0
"""Prompt tokens a second of one replica."""
TOKEN_S = 0.05
SLOTS = 16
CACHE_TOKENS = 60_000
THINK_S = 20.0
TURNS = 5
SYSTEM_PROMPTS = 40


@dataclass(frozen=True)
class World:
    """What is simulated."""

    replicas: int = 1000
    conversations: int = 100_000
    routers: int = 4
    rate: float = 1.2
    """Requests a second for each replica."""
    seed: int = 1


@dataclass(slots=True)
class Conversation:
    """One user."""

    number: int
    system: int
    turns: int
    parts: list[bytes]
    turn: int = 0


@dataclass(slots=True)
class Job:
    """One turn on its way."""

    conversation: Conversation
    tokens: float
    earlier: float
    """Tokens of the prompt that were sent or answered before."""
    answer: int
    arrived: float
    replica: int = -1
    sent: Sent | None = None
    router: int = 0


@dataclass
class Machine:
    """One replica."""

    queue: deque[Job] = field(default_factory=deque)
    prefilling: bool = False
    running: int = 0
    queued: float = 0.0
    computed: float = 0.0
    cached: OrderedDict[int, float] = field(default_factory=OrderedDict)
    """Conversations (and, below zero, system prompts) -> tokens, the one used last at the end."""
    held: float = 0.0

    def keep(self, key: int, tokens: float) -> list[int]:
        """What is pushed out for it."""
        self.held += tokens - self.cached.pop(key, 0.0)
        self.cached[key] = tokens
        gone = []
        while self.held > CACHE_TOKENS:
            old, size = self.cached.popitem(last=False)
            self.held -= size
            gone.append(old)
        return gone


@dataclass
class Outcome:
    """What came of one way to choose."""

    name: str
    repeated: float = 0.0
    """Prompt tokens that had been sent before."""
    hits: float = 0.0
    waits: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    """Seconds until the prompt was computed: the wait and what the replica did not hold."""
    decisions: list[float] = field(default_factory=list)
    """Seconds of each choice, on this machine."""
    load: list[int] = field(default_factory=list)
    """Requests of each replica."""
    index_bytes: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / self.repeated if self.repeated else 0.0

    @property
    def p99_wait(self) -> float:
        return float(np.percentile(self.waits, 99))

    @property
    def p99_first(self) -> float:
        return float(np.percentile(self.firsts, 99))

    @property
    def decision_us(self) -> float:
        return float(np.median(self.decisions)) * 1e6 if self.decisions else 0.0


class Policy:
    """A way to choose among the replicas of one simulation."""

    interval_s = 0.0
    """Seconds between two `beat`s of a place; 0: there are none."""

    def phases(self) -> list[float]:
        """When in an interval each place has its `beat`, in seconds."""
        return []

    def beat(self, place: int) -> None:
        """A replica tells a router how it does."""

    def choose(self, job: Job) -> None:
        """Set `job.replica`."""
        raise NotImplementedError

    def began(self, job: Job) -> None:
        """Its prompt is computed."""

    def ended(self, job: Job) -> None:
        """It is answered."""


class Simulation:
    """One way to choose in one world."""

    def __init__(self, world: World, name: str, policy: Callable[[Simulation], Policy]) -> None:
        self.world = world
        self.random = random.Random(world.seed)
        self.now = 0.0
        self.machines = [Machine() for _ in range(world.replicas)]
        self.loads = np.zeros(world.replicas)
        """What each replica has to do now, exactly, in tokens."""
        self.outcome = Outcome(name, load=[0] * world.replicas)
        self._events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._count = 0
        self.systems = [self.random.randbytes(self.random.randrange(800, 4000)) for _ in range(SYSTEM_PROMPTS)]
        self.system_sent = set[int]()
        self.on_gone: Callable[[int, list[int]], None] = lambda replica, gone: None
        self.policy = policy(self)

    def at(self, when: float, what: Callable[..., None], *arguments: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, arguments))

    def run(self) -> Outcome:
        when = 0.0
        begun = self.world.rate * self.world.replicas / TURNS
        for number in range(self.world.conversations):
            when += self.random.expovariate(begun)
            system = min(int(self.random.paretovariate(0.8)) - 1, SYSTEM_PROMPTS - 1)
            turns = min(1 + int(self.random.expovariate(1 / (TURNS - 1))), 4 * TURNS)
            one = Conversation(number, system, turns, [self.systems[system]])
            self.at(when, self._turn, one)
        self.open = self.world.conversations
        beats = self._beats()
        beat_at = next(beats)
        while self.open:
            event = heapq.heappop(self._events)
            while beat_at < event[0]:
                self.now = beat_at
                beat_at = next(beats)
            self.now, _, what, arguments = event
            what(*arguments)
        return self.outcome

    def _beats(self) -> Iterator[float]:
        """Times of the heartbeats, each of which is made when the next time is asked for.

        All have the same interval, so that they need no place among the other events: the order stays as it is.
        """
        policy, begin = self.policy, 0.0
        ring = sorted((phase, place) for place, phase in enumerate(policy.phases()))
        if not ring:
            yield math.inf
        while True:
            for offset, place in ring:
                yield begin + offset
                policy.beat(place)
            begin += policy.interval_s

    def _turn(self, conversation: Conversation) -> None:
        rng = self.random
        size = min(int(rng.lognormvariate(5.5, 1.0)) + 20, 12_000)
        earlier = sum(map(len, conversation.parts)) / BYTES_PER_TOKEN
        if conversation.turn == 0:
            earlier *= conversation.system in self.system_sent
            self.system_sent.add(conversation.system)
        conversation.parts.append(rng.randbytes(size))
        tokens = sum(map(len, conversation.parts)) / BYTES_PER_TOKEN
        job = Job(conversation, tokens, earlier, 20 + int(rng.expovariate(1 / 80)), self.now)
        self.policy.choose(job)
        machine = self.machines[job.replica]
        self.outcome.load[job.replica] += 1
        machine.queue.append(job)
        machine.queued += job.tokens - self.cached(machine, job)
        self._weigh(job.replica)
        self._begin(job.replica)

    def cached(self, machine: Machine, job: Job) -> float:
        """Tokens of the prompt that are in the cache, as many as are worth finding."""
        system = machine.cached.get(-1 - job.conversation.system, 0.0)
        return min(max(machine.cached.get(job.conversation.number, 0.0), system), job.tokens - 1)

    def _weigh(self, replica: int) -> None:
        machine = self.machines[replica]
        self.loads[replica] = machine.queued + RUNNING * (machine.running + len(machine.queue))

    def _begin(self, replica: int) -> None:
        machine = self.machines[replica]
        if machine.prefilling or not machine.queue or machine.running >= SLOTS:
            return
        job = machine.queue.popleft()
        machine.prefilling = True
        machine.running += 1
        hit = self.cached(machine, job)
        self.outcome.repeated += job.earlier
        self.outcome.hits += min(hit, job.earlier)
        self.outcome.waits.append(self.now - job.arrived)
        self.outcome.firsts.append(self.now - job.arrived + (job.tokens - hit) / PREFILL)
        self.at(self.now + (job.tokens - hit) / PREFILL, self._computed, job, job.tokens - hit)

    def _computed(self, job: Job, tokens: float) -> None:
        machine = self.machines[job.replica]
        machine.prefilling = False
        machine.queued = max(machine.queued - tokens, 0.0) if machine.queue else 0.0
        machine.computed += tokens
        self._weigh(job.replica)
        gone = machine.keep(-1 - job.conversation.system, len(job.conversation.parts[0]) / BYTES_PER_TOKEN)
        gone += machine.keep(job.conversation.number, job.tokens)
        self.on_gone(job.replica, gone)
        self.policy.began(job)
        self.at(self.now + job.answer * TOKEN_S, self._answered, job)
        self._begin(job.replica)

    def _answered(self, job: Job) -> None:
        machine, conversation = self.machines[job.replica], job.conversation
        machine.running -= 1
        self._weigh(job.replica)
        machine.computed += job.answer
        self.on_gone(job.replica, machine.keep(conversation.number, job.tokens + job.answer))
        self.policy.ended(job)
        conversation.parts.append(self.random.randbytes(job.answer * BYTES_PER_TOKEN))
        conversation.turn += 1
        if conversation.turn == conversation.turns:
            self.open -= 1
            conversation.parts.clear()
        else:
            self.at(self.now + self.random.expovariate(1 / THINK_S), self._turn, conversation)
        self._begin(job.replica)

"""Routing on paper: thousands of replicas as discrete events, and the router's own code in front of them.

Three ways to choose are compared on the same conversations: routers as `tgi route` has them (several, each with a part
of the requests, figures that are as old as the heartbeat makes them), one router that knows every cache and every queue
at every moment, and one that sends each request to the least busy replica. A replica computes one prompt after another
at a constant speed, decodes in a fixed number of slots, and keeps the conversations used last in its cache.

    python -m benchmarks.router_simulation                       # 1,000 replicas, 100,000 conversations, 4 routers
    python -m benchmarks.router_simulation --growth --plot growth.png
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tgi.replicas.blocks import BYTES_PER_TOKEN, chain, key_of
from tgi.replicas.choice import RUNNING, Ask, Chooser
from tgi.replicas.figures import Figures, Fleet, Sent
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex
from tgi.replicas.replica import interval_s

PREFILL = 1000.0
"""Prompt tokens a second of one replica."""
TOKEN_S = 0.05
SLOTS = 16
CACHE_TOKENS = 60_000
THINK_S = 20.0
TURNS = 5
SYSTEM_PROMPTS = 40
SALT = 7


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


class Simulation:
    """One way to choose in one world."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.random = random.Random(world.seed)
        self.now = 0.0
        self.machines = [Machine() for _ in range(world.replicas)]
        self.outcome = Outcome(name, load=[0] * world.replicas)
        self._events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._count = 0
        self.systems = [self.random.randbytes(self.random.randrange(800, 4000)) for _ in range(SYSTEM_PROMPTS)]
        self.system_sent = set[int]()
        self.on_gone: Callable[[int, list[int]], None] = lambda replica, gone: None
        self.policy: Policy = {"routers": Routers, "all-knowing": AllKnowing, "least busy": LeastBusy}[name](self)

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
        self.policy.start()
        while self.open:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        return self.outcome

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
        self._begin(job.replica)

    def cached(self, machine: Machine, job: Job) -> float:
        """Tokens of the prompt that are in the cache, as many as are worth finding."""
        system = machine.cached.get(-1 - job.conversation.system, 0.0)
        return min(max(machine.cached.get(job.conversation.number, 0.0), system), job.tokens - 1)

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
        gone = machine.keep(-1 - job.conversation.system, len(job.conversation.parts[0]) / BYTES_PER_TOKEN)
        gone += machine.keep(job.conversation.number, job.tokens)
        self.on_gone(job.replica, gone)
        self.policy.began(job)
        self.at(self.now + job.answer * TOKEN_S, self._answered, job)
        self._begin(job.replica)

    def _answered(self, job: Job) -> None:
        machine, conversation = self.machines[job.replica], job.conversation
        machine.running -= 1
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


class Policy:
    """A way to choose."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.load = np.zeros(simulation.world.replicas)

    def start(self) -> None:
        pass

    def choose(self, job: Job) -> None:
        raise NotImplementedError

    def began(self, job: Job) -> None:
        pass

    def ended(self, job: Job) -> None:
        pass

    def loads(self) -> np.ndarray:
        """Exactly, at this moment."""
        machines = self.simulation.machines
        return np.array([one.queued + RUNNING * (one.running + len(one.queue)) for one in machines])


class Routers(Policy):
    """The router's own code, several times."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        world = simulation.world
        names = [f"http://10.0.{number // 256}.{number % 256}:8080" for number in range(world.replicas)]
        blocks = 1 << max((min(world.conversations, 100_000) * 16).bit_length(), 14)
        self.choosers = []
        for _ in range(world.routers):
            index = PrefixIndex(world.replicas, blocks=blocks)
            self.choosers.append(Chooser(Fleet(world.replicas), index, Homes(names)))
        self._allowed = np.ones(world.replicas, bool)
        simulation.outcome.index_bytes = self.choosers[0].index.nbytes
        self._random = random.Random(world.seed + 1)

    def start(self) -> None:
        interval = interval_s(len(self.simulation.machines))
        for router in range(len(self.choosers)):
            for replica in range(len(self.simulation.machines)):
                self.simulation.at(self._random.random() * interval, self._beat, router, replica, interval)

    def _beat(self, router: int, replica: int, interval: float) -> None:
        machine = self.simulation.machines[replica]
        figures = Figures(
            machine.running,
            len(machine.queue),
            int(machine.queued),
            machine.running / SLOTS * 0.5,
            CACHE_TOKENS,
            int(machine.computed),
        )
        self.choosers[router].fleet.tell(replica, figures)
        self.simulation.at(self.simulation.now + interval, self._beat, router, replica, interval)

    def choose(self, job: Job) -> None:
        job.router = self._random.randrange(len(self.choosers))
        chooser = self.choosers[job.router]
        parts = job.conversation.parts
        earlier = sum(map(len, parts[:-2])) if len(parts) > 2 else 0
        begin = time.perf_counter()
        ask = Ask(chain(parts, SALT), key_of(b"".join(parts[:2]), SALT), earlier)
        choice = chooser.choose(ask, self._allowed)
        self.simulation.outcome.decisions.append(time.perf_counter() - begin)
        assert choice is not None
        job.replica, job.sent = choice.replica, choice.sent

    def began(self, job: Job) -> None:
        assert job.sent is not None
        self.choosers[job.router].fleet.began(job.sent)

    def ended(self, job: Job) -> None:
        assert job.sent is not None
        self.choosers[job.router].fleet.ended(job.sent)


class AllKnowing(Policy):
    """One router that looks into every cache and every queue."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._systems = np.zeros((SYSTEM_PROMPTS, simulation.world.replicas))
        self._holders: dict[int, set[int]] = {}
        simulation.on_gone = self._gone

    def choose(self, job: Job) -> None:
        machines = self.simulation.machines
        hits = self._systems[job.conversation.system].copy()
        for replica in self._holders.get(job.conversation.number, ()):
            hits[replica] = max(hits[replica], machines[replica].cached.get(job.conversation.number, 0.0))
        job.replica = int((self.loads() + job.tokens - hits).argmin())

    def began(self, job: Job) -> None:
        system = job.conversation.system
        self._systems[system, job.replica] = len(self.simulation.systems[system]) / BYTES_PER_TOKEN
        self._holders.setdefault(job.conversation.number, set()).add(job.replica)

    def ended(self, job: Job) -> None:
        if job.conversation.turn + 1 == job.conversation.turns:
            self._holders.pop(job.conversation.number, None)

    def _gone(self, replica: int, gone: list[int]) -> None:
        for key in gone:
            if key < 0:
                self._systems[-1 - key, replica] = 0
            else:
                self._holders.get(key, set()).discard(replica)


class LeastBusy(Policy):
    """One router that looks at queues alone."""

    def choose(self, job: Job) -> None:
        job.replica = int(self.loads().argmin())


POLICIES = ("routers", "all-knowing", "least busy")


def simulate(world: World, names: Sequence[str] = POLICIES) -> dict[str, Outcome]:
    """The same conversations, each way."""
    return {name: Simulation(world, name).run() for name in names}


def table(world: World, outcomes: dict[str, Outcome]) -> Table:
    shown = Table(title=f"{world.replicas} replicas, {world.conversations} conversations, {world.routers} routers")
    for column in (
        "choice",
        "hit rate",
        "of all-knowing",
        "p99 wait s",
        "of least busy",
        "most load",
        "us",
        "index MB",
    ):
        shown.add_column(column, justify="left" if column == "choice" else "right")
    best, fair = outcomes["all-knowing"], outcomes["least busy"]
    for one in outcomes.values():
        shown.add_row(
            one.name,
            f"{one.hit_rate:.3f}",
            f"{one.hit_rate / best.hit_rate:.3f}",
            f"{one.p99_wait:.2f}",
            f"{one.p99_first:.2f}",
            f"{one.p99_first / fair.p99_first:.2f}",
            f"{max(one.load) / np.mean(one.load):.2f}",
            f"{one.decision_us:.0f}" if one.decisions else "",
            f"{one.index_bytes / 1e6:.0f}" if one.index_bytes else "",
        )
    return shown


def plot(path: Path, sizes: Sequence[int], all_outcomes: Sequence[dict[str, Outcome]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.6))
    for name in POLICIES:
        left.plot(sizes, [one[name].hit_rate for one in all_outcomes], marker="o", label=name)
        middle.plot(sizes, [one[name].p99_first for one in all_outcomes], marker="o", label=name)
    right.plot(sizes, [one["routers"].decision_us for one in all_outcomes], marker="o")
    for axes, title in (
        (left, "repeated tokens found"),
        (middle, "p99 until the prompt is computed, s"),
        (right, "one decision, us"),
    ):
        axes.set(xscale="log", xlabel="replicas", title=title)
        axes.set_ylim(bottom=0)
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--conversations", type=int, help="default: 100 for each replica")
    parser.add_argument("--routers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=World.rate, help="requests a second for each replica")
    parser.add_argument("--growth", action="store_true", help="from 10 replicas to --replicas")
    parser.add_argument("--plot", type=Path)
    flags = parser.parse_args()
    sizes = [size for size in (10, 30, 100, 300) if size < flags.replicas] if flags.growth else []
    sizes.append(flags.replicas)
    console, found = Console(), []
    for size in sizes:
        world = World(size, flags.conversations or 100 * size, flags.routers, flags.rate)
        found.append(simulate(world))
        console.print(table(world, found[-1]))
    if flags.plot is not None:
        plot(flags.plot, sizes, found)


if __name__ == "__main__":
    main()

"""Ways to choose among simulated replicas: the router's own code, and what it is compared with."""

from __future__ import annotations

import random
import time

import numpy as np

from benchmarks.router_world import CACHE_TOKENS, SLOTS, SYSTEM_PROMPTS, Job, Policy, Simulation
from tgi.replicas.blocks import BYTES_PER_TOKEN, chain, key_of
from tgi.replicas.choice import RUNNING, Ask, Chooser
from tgi.replicas.figures import Figures, Fleet
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex
from tgi.replicas.replica import interval_s

SALT = 7


class Routers(Policy):
    """The router's own code, several times."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        world = simulation.world
        self.interval_s = interval_s(world.replicas)
        names = [f"http://10.0.{number // 256}.{number % 256}:8080" for number in range(world.replicas)]
        blocks = 1 << max((min(world.conversations, 100_000) * 16).bit_length(), 14)
        self.choosers = []
        for _ in range(world.routers):
            index = PrefixIndex(world.replicas, blocks=blocks)
            self.choosers.append(Chooser(Fleet(world.replicas), index, Homes(names)))
        self._allowed = np.ones(world.replicas, bool)
        simulation.outcome.index_bytes = self.choosers[0].index.nbytes
        self._random = random.Random(world.seed + 1)

    def phases(self) -> list[float]:
        places = len(self.choosers) * len(self.simulation.machines)
        return [self._random.random() * self.interval_s for _ in range(places)]

    def beat(self, place: int) -> None:
        router, replica = divmod(place, len(self.simulation.machines))
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

    def choose(self, job: Job) -> None:
        job.router = self._random.randrange(len(self.choosers))
        chooser = self.choosers[job.router]
        parts = job.conversation.parts
        earlier = sum(map(len, parts[:-2])) if len(parts) > 2 else 0
        begin = time.thread_time()
        ask = Ask(chain(parts, SALT), key_of(b"".join(parts[:2]), SALT), earlier)
        choice = chooser.choose(ask, self._allowed)
        self.simulation.outcome.decisions.append(time.thread_time() - begin)
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
        self.simulation = simulation
        self._systems = np.zeros((SYSTEM_PROMPTS, simulation.world.replicas))
        self._holders: dict[int, set[int]] = {}
        simulation.on_gone = self._gone

    def choose(self, job: Job) -> None:
        machines = self.simulation.machines
        hits = self._systems[job.conversation.system].copy()
        for replica in self._holders.get(job.conversation.number, ()):
            hits[replica] = max(hits[replica], machines[replica].cached.get(job.conversation.number, 0.0))
        job.replica = int((self.simulation.loads + job.tokens - hits).argmin())

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
    """One router that looks at queues alone, and knows all of them exactly at every moment."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def choose(self, job: Job) -> None:
        job.replica = int(self.simulation.loads.argmin())


class LeastBusyTold(Routers):
    """As many routers as there are, which look at queues alone: what replicas told them, and what they sent since."""

    def choose(self, job: Job) -> None:
        job.router = self._random.randrange(len(self.choosers))
        fleet = self.choosers[job.router].fleet
        job.replica = int((fleet.queued + RUNNING * fleet.running).argmin())
        job.sent = fleet.sent(job.replica, job.tokens)


POLICIES = {"routers": Routers, "all-knowing": AllKnowing, "least busy": LeastBusy, "least busy, told": LeastBusyTold}

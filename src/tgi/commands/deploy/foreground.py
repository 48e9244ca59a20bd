"""A deployment in the foreground: until Ctrl-C or SIGTERM; SIGHUP reads the file of --config again.

first signal   open answers end, then all ends
second signal  all ends at once
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tgi import hardware
from tgi.commands.deploy import text
from tgi.commands.ending import show
from tgi.errors import StartupError
from tgi.ray.cluster import Cluster, started
from tgi.ray.flags import DeployFlags
from tgi.ray.served import Served
from tgi.ray.state import State, StateFile, held
from tgi.settings.parse import UsageError

logger = logging.getLogger("tgi.ray")

LOOK_EVERY_S = 2.0
FIRST_REPLICAS_S = 10.0
"""For replicas that serve to have announced themselves."""
STOPS = (signal.SIGINT, signal.SIGTERM)

Again = Callable[[], list[Served]]


def run(
    flags: DeployFlags,
    served: Sequence[Served],
    keys: tuple[str, ...],
    variables: Mapping[str, str],
    again: Again | None,
) -> int:
    """Until a signal; gives the exit status. again: reads the models anew. Raises StartupError."""
    salt = flags.salt or secrets.token_hex(16)
    host = f"[{flags.hostname}]" if ":" in flags.hostname else flags.hostname
    state = State(os.getpid(), flags.name, f"http://{host}:{flags.port}", time.time(), cluster=flags.ray_address or "")
    with held(flags.name, variables) as file:
        file.write(state)
        logger.info("Starting Ray" if flags.ray_address is None else f"Joining Ray at {flags.ray_address}")
        with started(flags, served, hardware.detect(), variables, salt, keys) as cluster:
            state.logs = cluster.logs
            logger.info("Ray's logs, and those of the servers, are in %s", state.logs or "its own place")
            cluster.deploy_router()
            logger.info("Starting %d replicas of %s", sum(one.replicas for one in served), _names(served))
            cluster.deploy(served)
            state.ready = True
            _first_table(cluster, state, file, sum(one.replicas for one in served))
            logger.info("Serving on %s", state.url)
            _watch(cluster, state, file, again)
    return 0


def _names(served: Sequence[Served]) -> str:
    return ", ".join(f"`{one.name}`" for one in served)


def _first_table(cluster: Cluster, state: State, file: StateFile, wanted: int) -> None:
    until = time.monotonic() + FIRST_REPLICAS_S
    while True:
        state.replicas = cluster.replicas() or []
        if len(state.replicas) >= wanted or time.monotonic() > until:
            break
        time.sleep(0.2)
    file.write(state)
    show(text.table(state))


class _Signals:
    """Those that came."""

    def __init__(self) -> None:
        self.stop, self.abort, self.reload = threading.Event(), threading.Event(), threading.Event()
        self.any = threading.Event()

    def on_stop(self, number: int, frame: object) -> None:
        (self.abort if self.stop.is_set() else self.stop).set()
        self.any.set()

    def on_reload(self, number: int, frame: object) -> None:
        self.reload.set()
        self.any.set()


@contextlib.contextmanager
def _handled(reload: bool) -> Iterator[_Signals]:
    signals = _Signals()
    handlers = dict.fromkeys(STOPS, signals.on_stop) | ({signal.SIGHUP: signals.on_reload} if reload else {})
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(cluster: Cluster, state: State, file: StateFile, again: Again | None) -> None:
    with _handled(again is not None) as signals:
        while not signals.stop.is_set():
            signals.any.wait(LOOK_EVERY_S)
            signals.any.clear()
            if signals.reload.is_set() and again is not None:
                signals.reload.clear()
                _reload(cluster, again)
            _look(cluster, state, file)
        logger.info("Ending: open answers may end first; a second signal ends them now")
        ending = threading.Thread(target=cluster.delete, daemon=True)
        ending.start()
        while ending.is_alive() and not signals.abort.is_set():
            ending.join(0.1)


def _look(cluster: Cluster, state: State, file: StateFile) -> None:
    """Note what runs; say what changed."""
    try:
        found = cluster.replicas()
        cluster.expect()
    except Exception as error:  # whatever Ray raises while it restarts the directory
        logger.warning("The directory of replicas does not answer: %s", error)
        return
    if found is None:
        return
    before, after = ({one["replica"]: one for one in replicas} for replicas in (state.replicas, found))
    for name in before.keys() - after.keys():
        logger.info("Replica %s of `%s` is gone", name, before[name]["model"])
    for name in after.keys() - before.keys():
        logger.info("Replica %s of `%s` serves on %s", name, after[name]["model"], after[name]["url"])
    if before != after:
        state.replicas = found
        file.write(state)


def _reload(cluster: Cluster, again: Again) -> None:
    """What is wrong with the new file changes nothing."""
    try:
        served = again()
        logger.info("Deploying %s anew", _names(served))
        cluster.deploy(served)
        logger.info("Deployed")
    except (UsageError, StartupError) as error:
        logger.error("The deployment stays as it is: %s", error)

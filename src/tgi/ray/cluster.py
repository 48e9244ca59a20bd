"""One run of a deployment: Ray started or joined, its applications deployed, watched, replaced and taken away.

Owns the order of start and end, and that nothing of ours is left: Ray that was started here ends with this process, of
a cluster that was joined our applications are deleted, and Serve if it was started for them.
"""

# Ray is not in every environment that checks this; without it this package's own name is found.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tgi.errors import ArgumentError, StartupError
from tgi.hardware import Hardware
from tgi.launcher.http_server import bind
from tgi.ray.flags import DeployFlags
from tgi.ray.ports import free_ports
from tgi.ray.router import RouterSettings
from tgi.ray.served import Served
from tgi.settings.config import add_to_environment
from tgi.shorten import size

logger = logging.getLogger("tgi.ray")

MISSING = "`tgi deploy` needs Ray: pip install 'text-generation-inference[ray]'"
OBJECTS_BYTES = 100 << 20
"""For Ray's store of objects: nothing of ours goes through it."""
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_DEDUP_LOGS": "0",
}
"""Of Ray that is started here; what the environment says already stays."""
PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
"""Ports that Serve's proxy takes beside ours; Ray's own defaults let one deployment run on a machine."""
LOCAL = ("127.0.0.1", "::1", "localhost")
HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}
"""In Ray's own place for them, which all users share, anybody may write to the socket that takes commands."""


def check(flags: DeployFlags) -> None:
    """What can be told before Ray is started. Raises StartupError."""
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.serve") is None:
        raise StartupError(MISSING)
    if flags.ray_address is None:
        bind(flags.hostname, flags.port).close()


@dataclass
class Cluster:
    """Ray as this process sees it; use `started`."""

    flags: DeployFlags
    salt: str
    keys: tuple[str, ...]
    own: bool
    """Ray was started here."""
    own_serve: bool = True
    """Serve was started here."""
    models: dict[str, Served] = field(default_factory=dict)
    """Applications -> what they serve, or were to."""
    failed: set[str] = field(default_factory=set)
    """Those of them that did not start as asked: the next `deploy` tries them again, changed or not."""
    there: set[str] = field(default_factory=set)
    """Applications of ours that Serve has been told of."""

    def deploy_router(self) -> None:
        """The routers and the directory. Raises StartupError."""
        from tgi.ray.application import bind_router

        settings = RouterSettings(
            salt=self.salt,
            api_key=self.keys,
            start_timeout=self.flags.start_timeout,
            routers=self.flags.routers,
        )
        self._run(bind_router(settings), self.flags.name, "/")

    def deploy(self, served: Sequence[Served]) -> None:
        """Have these models and no others: new and changed ones are deployed, the rest stays. Raises StartupError.

        Serve replaces the replicas of a changed model one after another.
        """
        from tgi.ray.application import bind_model

        wanted = {f"{self.flags.name}-{one.slug}": one for one in served}
        host = "127.0.0.1" if self.own else None
        self.expect(wanted)
        for name, one in wanted.items():
            if self.models.get(name) != one or name in self.failed:
                self.models[name] = one
                self.failed.add(name)
                if not self.own:
                    self._warn_of_room(one)
                self._run(bind_model(one, self.flags.name, host), name, None)
                self.failed.remove(name)
        for name in [name for name in self.models if name not in wanted]:
            del self.models[name]
            self.failed.discard(name)
            self._delete(name)

    def expect(self, models: Mapping[str, Served] | None = None) -> None:
        """Tell the directory which models there are to be: it forgets when it is restarted."""
        models = self.models if models is None else models
        self._directory().expect.remote({one.name: name for name, one in models.items()}).result(timeout_s=30)

    def replicas(self) -> list[dict[str, Any]] | None:
        """Those that have announced themselves; None: the directory has just started and does not know."""
        found, _ = self._directory().known.remote().result(timeout_s=10)
        return found

    @property
    def logs(self) -> str:
        """Where Ray writes what its processes say."""
        import ray

        with contextlib.suppress(Exception):  # of a cluster elsewhere
            return os.path.join(ray._private.worker._global_node.get_session_dir_path(), "logs")  # type: ignore[attr-defined]  # noqa: PTH118
        return ""

    def delete(self) -> None:
        """Take all away; open answers end first."""
        # All together, since each takes as long as Serve lets load balancers look away: routers take nothing new then.
        threads = [threading.Thread(target=self._delete, args=(name,), daemon=True) for name in self.there]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def leave(self) -> None:
        """Of a cluster that was joined take away what is left of ours, without waiting for it."""
        from ray import serve

        try:
            for name in list(self.there):
                serve.delete(name, _blocking=False)
            if self.own_serve and not set(serve.status().applications) - self.there:
                serve.shutdown()  # so that its port is free
        except Exception as error:  # whatever Ray raises, such as of a cluster that is gone
            logger.warning("The cluster may still have the deployment `%s`: %s", self.flags.name, error)

    def _warn_of_room(self, one: Served) -> None:
        """Of nodes all of which are too small; a larger one may join."""
        import ray

        wanted = {"CPU": one.cpus, "GPU": one.gpus, "memory": one.memory}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            logger.warning(
                "No node of the cluster has what a replica of `%s` takes, %d cores, %d GPUs and %s of memory: it waits "
                "for one that has; `--cpus` and `--memory` ask for less",
                one.name,
                one.cpus,
                one.gpus,
                size(one.memory),
            )

    def _delete(self, name: str) -> None:
        from ray import serve

        serve.delete(name)
        self.there.discard(name)

    def _directory(self) -> Any:
        from ray import serve

        return serve.get_deployment_handle("Directory", self.flags.name)

    def _run(self, application: Any, name: str, prefix: str | None) -> None:
        from ray import serve
        from ray.serve.exceptions import RayServeException

        self.there.add(name)
        try:
            serve.run(application, name=name, route_prefix=prefix)
        except (RuntimeError, TimeoutError) as error:
            raise StartupError(_why(name) or str(error)) from None
        except RayServeException as error:  # Serve refuses it, such as for another application at the same address
            raise StartupError(f"Serve refuses it: {_brief(error)}") from None


@contextlib.contextmanager
def started(
    flags: DeployFlags,
    served: Sequence[Served],
    facts: Hardware,
    variables: Mapping[str, str],
    salt: str,
    keys: tuple[str, ...],
) -> Iterator[Cluster]:
    """Ray and Serve, started here or joined, until the block is left. Raises StartupError.

    variables: the environment, which Ray's processes get with what is added to it.
    """
    own = flags.ray_address is None
    with _variables(variables) if own else contextlib.nullcontext({}) as wanted:
        add_to_environment({name: value for name, value in wanted.items() if name not in variables} | NO_STATISTICS)
        import ray

        cluster = None
        try:
            _begin(ray, flags, served, facts)
            quiet = logging.getLogger("ray.serve")
            quiet.setLevel(logging.WARNING)
            cluster = Cluster(flags, salt, keys, own, _serve(flags))
            quiet.setLevel(logging.WARNING)  # connecting has set it anew
            yield cluster
        finally:
            if cluster is not None and not own:
                cluster.leave()
            ray.shutdown()


@contextlib.contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Those of Ray that is started here; files that they name are in a directory of this user alone, and go with it."""
    place = tempfile.mkdtemp(prefix="tgi-", dir="/tmp")  # names of sockets may not be long
    try:
        files = {name: os.path.join(place, file) for name, file in HAPROXY_FILES.items()}  # noqa: PTH118
        yield {**ENVIRONMENT, **_free_ports(variables), **files}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _serve(flags: DeployFlags) -> bool:
    """Start Serve, or use the one that the cluster has; whether it was started. Raises StartupError."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client

    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and flags.hostname in LOCAL:
        raise ArgumentError(
            f"`hostname` {flags.hostname} cannot be reached from the other nodes of the cluster, which has {nodes}: "
            "give --hostname 0.0.0.0"
        )
    there = _get_global_client(raise_if_no_controller_running=False)
    if there is None:
        try:
            serve.start(http_options=HTTPOptions(host=flags.hostname, port=flags.port))
        except (RuntimeError, TimeoutError) as error:
            with contextlib.suppress(Exception):
                serve.shutdown()  # of which only a part may have started
            raise StartupError(f"Serve cannot start: {_brief(error)}") from None
        return True
    at = there.http_config
    if (at.host, at.port) != (flags.hostname, flags.port):
        raise StartupError(
            f"Serve runs on this cluster already and listens on {at.host}, port {at.port}: "
            f"give `--hostname {at.host} --port {at.port}`, or end it with `serve shutdown`"
        )
    return False


def _begin(ray: Any, flags: DeployFlags, served: Sequence[Served], facts: Hardware) -> None:
    if flags.ray_address is not None:
        try:
            ray.init(address=flags.ray_address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"--ray-address {flags.ray_address}: {str(error).splitlines()[0]}") from None
        return
    cores = sum(one.most * one.cpus for one in served)
    if cores > facts.cpu_count:
        logger.warning("%d cores are wanted and this machine has %d: replicas share them", cores, facts.cpu_count)
    ray.init(
        address="local",
        num_cpus=max(cores, facts.cpu_count),
        object_store_memory=OBJECTS_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _memory=max(sum(one.most * one.memory for one in served), facts.available_memory),
        _node_ip_address="127.0.0.1",
    )


def _free_ports(variables: Mapping[str, str]) -> dict[str, str]:
    """One for each of `PORTS` that is not set."""
    names = [name for name in PORTS if name not in variables]
    return dict(zip(names, map(str, free_ports(len(names))), strict=True))


def _brief(error: Exception) -> str:
    """The line that says why, of what may be the log of a process that Ray started."""
    lines = [line.strip() for line in str(getattr(error, "cause", error)).splitlines() if line.strip()]
    alerts = [line for line in lines if "ALERT" in line]
    return (alerts or lines[-1:] or [type(error).__name__])[0]


def _why(name: str) -> str | None:
    """The sentence of a server that could not start, out of what Serve says of its deployment."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return None
    text = "\n".join([application.message, *(one.message for one in application.deployments.values())])
    found = re.findall(r"StartupError: (.+)", text)
    return found[-1].strip() if found else None

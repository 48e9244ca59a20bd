"""One run of a deployment: Ray started or joined, its applications deployed, watched, replaced and taken away.

Owns the order of start and end, and that nothing of ours is left: Ray that was started here ends with this process, of
a cluster that was joined our applications are deleted.
"""

# Ray is not in every environment that checks this; without it this package's own name is found.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tgi.errors import ArgumentError, StartupError
from tgi.hardware import Hardware
from tgi.launcher.http_server import bind
from tgi.ray.flags import DeployFlags
from tgi.ray.router import RouterSettings
from tgi.ray.served import Served
from tgi.settings.config import add_to_environment

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
FREE_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
"""Ports that Serve's proxy takes beside ours; Ray's own defaults let one deployment run on a machine."""


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
    models: dict[str, Served] = field(default_factory=dict)
    """Applications -> what they serve, or were to."""
    failed: set[str] = field(default_factory=set)
    """Those of them that did not start as asked: the next `deploy` tries them again, changed or not."""

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
        from ray import serve

        from tgi.ray.application import bind_model

        wanted = {f"{self.flags.name}-{one.slug}": one for one in served}
        host = "127.0.0.1" if self.own else None
        self.expect(wanted)
        for name, one in wanted.items():
            if self.models.get(name) != one or name in self.failed:
                self.models[name] = one
                self.failed.add(name)
                self._run(bind_model(one, self.flags.name, host), name, None)
                self.failed.remove(name)
        for name in [name for name in self.models if name not in wanted]:
            del self.models[name]
            self.failed.discard(name)
            serve.delete(name)

    def expect(self, models: Mapping[str, Served] | None = None) -> None:
        """Tell the directory which models there are to be: it forgets when it is restarted."""
        models = self.models if models is None else models
        self._directory().expect.remote({one.name: name for name, one in models.items()}).result(timeout_s=30)

    def replicas(self) -> list[dict[str, Any]]:
        """Those that have announced themselves."""
        found, _ = self._directory().known.remote().result(timeout_s=10)
        return found or []

    @property
    def logs(self) -> str:
        """Where Ray writes what its processes say."""
        import ray

        with contextlib.suppress(Exception):  # of a cluster elsewhere
            return os.path.join(ray._private.worker._global_node.get_session_dir_path(), "logs")  # type: ignore[attr-defined]  # noqa: PTH118
        return ""

    def delete(self) -> None:
        """Take all away; open answers end first."""
        from ray import serve

        threads = [threading.Thread(target=serve.delete, args=(name,), daemon=True) for name in self.models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        serve.delete(self.flags.name)

    def _directory(self) -> Any:
        from ray import serve

        return serve.get_deployment_handle("Directory", self.flags.name)

    def _run(self, application: Any, name: str, prefix: str | None) -> None:
        from ray import serve

        try:
            serve.run(application, name=name, route_prefix=prefix)
        except RuntimeError as error:
            raise StartupError(_why(name) or str(error)) from None


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
    wanted = {**ENVIRONMENT, **_free_ports(variables)} if own else {}
    add_to_environment({name: value for name, value in wanted.items() if name not in variables} | NO_STATISTICS)
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    try:
        _begin(ray, flags, served, facts)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options=HTTPOptions(host=flags.hostname, port=flags.port))
        yield Cluster(flags, salt, keys, own)
    finally:
        ray.shutdown()


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
    """For each of `FREE_PORTS` that is not set one that nobody listens on."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in FREE_PORTS:
            if name not in variables:
                sock = stack.enter_context(socket.socket())
                sock.bind(("127.0.0.1", 0))
                ports[name] = str(sock.getsockname()[1])
        return ports


def _why(name: str) -> str | None:
    """The sentence of a server that could not start, out of what Serve says of its deployment."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return None
    text = "\n".join([application.message, *(one.message for one in application.deployments.values())])
    found = re.findall(r"StartupError: (.+)", text)
    return found[-1].strip() if found else None

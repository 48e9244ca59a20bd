"""Serve's applications: one with the routers and the directory, and one for each model, which is replaced alone.

Owns what Serve is told of them. The only module of the package, with `cluster`, that imports Ray when it is imported.
"""

# Ray is not in every environment that checks this; without it this package's own name is found.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from tgi import hardware
from tgi.ray.directory import Directory
from tgi.ray.engine import Engine, drain_s
from tgi.ray.router import RouterSettings, RoutingActor, settings_of
from tgi.ray.scaling import Policy
from tgi.ray.served import Served, of_arguments
from tgi.ray.server import END_S
from tgi.settings.config import read_environment

ROUTER_APPLICATION = "tgi"
MANY = 1_000_000
"""Requests at once: how many there may be is the servers' to say."""
ROUTER_DRAIN_S = 120.0
LOOK_BACK_S = 10.0
QUIET = {"enable_access_log": False}


class _Engine(Engine):
    """With what only Ray knows of the place."""

    async def __init__(self, served: Served, router: str, host: str | None) -> None:
        context = serve.get_replica_context()
        place = {
            "host": host or ray.util.get_node_ip_address(),
            "node": ray.get_runtime_context().get_node_id()[:8],
            "replica": context.replica_id.unique_id,
        }
        await super().__init__(served, serve.get_deployment_handle("Directory", router), place)

    async def __del__(self) -> None:
        await self.stop()


def router_application(arguments: Mapping[str, Any]) -> serve.Application:
    """Routers and the directory. Raises msgspec.ValidationError."""
    return bind_router(settings_of(arguments))


def bind_router(settings: RouterSettings) -> serve.Application:
    directory = serve.deployment(
        name="Directory", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=MANY, logging_config=QUIET
    )(Directory)
    router = serve.deployment(
        name="Router",
        num_replicas=settings.routers,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MANY,
        health_check_period_s=2.0,
        graceful_shutdown_timeout_s=ROUTER_DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config=QUIET,
    )(serve.ingress()(RoutingActor))
    return router.bind(settings, directory.bind())


def model_application(arguments: Mapping[str, Any]) -> serve.Application:
    """One model of a Serve config file. Raises UsageError, StartupError."""
    served = of_arguments(arguments, read_environment(), hardware.detect())
    return bind_model(served, str(arguments.get("router", ROUTER_APPLICATION)))


def bind_model(served: Served, router: str, host: str | None = None) -> serve.Application:
    """router: name of the routers' application; host: where servers listen, None: on the address of their node."""
    scaled = served.least != served.most
    options: dict[str, Any] = {"num_replicas": served.replicas}
    if scaled:
        options = {"autoscaling_config": _autoscaling(served)}
    engine = serve.deployment(
        name="Engine",
        ray_actor_options={"num_cpus": served.cpus, "num_gpus": served.gpus, "memory": served.memory},
        max_ongoing_requests=MANY,
        health_check_period_s=1.0,
        health_check_timeout_s=5.0,
        graceful_shutdown_timeout_s=drain_s(served) + 2 * END_S,
        graceful_shutdown_wait_loop_s=0.1,
        logging_config=QUIET,
        **options,
    )(_Engine)
    return engine.bind(served, router, host)


def _autoscaling(served: Served) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=served.least,
        initial_replicas=served.replicas,
        max_replicas=served.most,
        upscale_delay_s=served.scale_up_delay,
        downscale_delay_s=served.scale_down_delay,
        look_back_period_s=LOOK_BACK_S,
        metrics_interval_s=LOOK_BACK_S / 5,
        policy=AutoscalingPolicy(
            policy_function=Policy,
            policy_kwargs={"target_queue": served.target_queue, "target_cache": served.target_cache},
        ),
    )

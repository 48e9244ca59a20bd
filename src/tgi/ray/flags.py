"""What can be said of a deployment and of each model in it: one field = one flag = one key of deploy.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from tgi.settings.flags import flag
from tgi.settings.ranges import SECONDS, Range

DEPLOYMENT = "Deployment"
ADDRESS = "Address"
REPLICAS = "Replicas of a model"
COUNT = Range(0, 4096)


@dataclass(frozen=True)
class DeployFlags:
    """The deployment as a whole."""

    config: str | None = flag(DEPLOYMENT, "YAML file with these settings and a list `models`", env=None)
    name: str = flag(DEPLOYMENT, "What `status`, `down` and Ray know it by", default="tgi", env=None)
    detach: bool = flag(DEPLOYMENT, "Leave it running in the background; see `tgi deploy status` and `down`", env=None)
    routers: int = flag(DEPLOYMENT, "Routers, each a process of its own", default=1, env=None, within=Range(1, 64))
    ray_address: str | None = flag(
        DEPLOYMENT,
        "Cluster to join, such as `auto` or 10.0.0.1:6379",
        env="RAY_ADDRESS",
        shown_default="start Ray on this machine",
    )
    start_timeout: int = flag(
        DEPLOYMENT,
        "Seconds that a request waits for the first replica of a model; the header x-tgi-waited says how long it did",
        default=600,
        env=None,
        within=Range(0, SECONDS),
    )
    hostname: str = flag(ADDRESS, "Address to listen on", default="127.0.0.1", env=None)
    port: int = flag(ADDRESS, "Port to listen on", default=8080, short="-p", env=None, within=Range(1, 65535))
    api_key: tuple[str, ...] = flag(
        ADDRESS,
        "Key that clients have to send; give it several times for several keys. Checked by routers and servers",
        default=(),
        secret=True,
    )
    api_key_file: str | None = flag(ADDRESS, "File with keys, one a line", env="TGI_API_KEY_FILE")
    salt: str | None = flag(
        ADDRESS, "What hashes of prompts are made with", env="TGI_ROUTER_SALT", secret=True, shown_default="random"
    )


@dataclass(frozen=True)
class ModelFlags:
    """One model, beside the flags of `tgi serve`."""

    served_name: str | None = flag(
        REPLICAS, "Name that requests give in `model`, and `/<name>/generate`", env=None, shown_default="the model id"
    )
    replicas: int = flag(REPLICAS, "Replicas at the start", default=1, env=None, within=COUNT)
    min_replicas: int | None = flag(
        REPLICAS,
        "Fewest replicas; 0: the first request starts one",
        env=None,
        within=COUNT,
        shown_default="as --replicas",
    )
    max_replicas: int | None = flag(
        REPLICAS, "Most replicas", env=None, within=COUNT, shown_default="as --replicas, or --min-replicas if more"
    )
    cpus: int | None = flag(
        REPLICAS,
        "Cores of each replica, which are its --threads",
        env=None,
        within=Range(1, 4096),
        shown_default="those of this machine, shared among its replicas",
    )
    gpus: int | None = flag(
        REPLICAS, "GPUs of each replica", env=None, within=Range(0, 64), shown_default="1 where it runs on a GPU"
    )
    target_queue: int = flag(
        REPLICAS, "Waiting requests of a replica from which on one more is wanted", default=4, env=None, within=COUNT
    )
    target_cache: float = flag(
        REPLICAS,
        "Share of the KV cache in use from which on one more replica is wanted",
        default=0.8,
        env=None,
        within=Range(0.01, 1.0),
    )
    scale_up_delay: float = flag(
        REPLICAS, "Seconds that more replicas must be wanted", default=30.0, env=None, within=Range(0, SECONDS)
    )
    scale_down_delay: float = flag(
        REPLICAS, "Seconds that fewer replicas must be wanted", default=600.0, env=None, within=Range(0, SECONDS)
    )

"""Flags of `tgi route`: one field = one flag."""

from __future__ import annotations

from dataclasses import dataclass

from tgi.settings.flags import flag
from tgi.settings.ranges import SECONDS, Range

ADDRESS = "Address"
REPLICAS = "Replicas"
LIMITS = "Limits and keys"


@dataclass(frozen=True)
class RouteFlags:
    """`tgi route`."""

    replica: tuple[str, ...] = flag(
        REPLICAS, "Address of a server, such as http://10.0.0.7:8080; give it once for each", default=(), env=None
    )
    discover: tuple[str, ...] = flag(
        REPLICAS,
        "Where replicas are looked up, once a second: a file with one address a line, or an address such as "
        "http://tgi-servers:8080 whose name stands for all of them, as that of a headless service of Kubernetes does. "
        "Those that are no longer named get nothing new, and their open answers end",
        default=(),
        env=None,
    )
    start_timeout: int = flag(
        REPLICAS,
        "Seconds that a request waits for a replica where none can be used, as while the only one is replaced; 0: it "
        "is answered with status 503. The header x-tgi-waited of an answer says how long it waited",
        default=0,
        within=Range(0, SECONDS),
    )
    salt: str | None = flag(
        REPLICAS,
        "What the hashes of prompts are made with; routers side by side need the same, to choose alike",
        env="TGI_ROUTER_SALT",
        secret=True,
        shown_default="random",
    )
    index_blocks: int = flag(
        REPLICAS,
        "Entries of the index of prefixes, a power of two; each takes 36 bytes",
        default=1 << 19,
        env="TGI_ROUTER_INDEX_BLOCKS",
        within=Range(1 << 10, 1 << 24),
    )
    hostname: str = flag(ADDRESS, "Address to listen on", default="127.0.0.1")
    port: int = flag(
        ADDRESS, "Port to listen on; 0: any that is free", default=8080, short="-p", within=Range(0, 65535)
    )
    api_key: tuple[str, ...] = flag(
        LIMITS,
        "Key that clients have to send; give it several times for several keys. The replicas get it as it came and "
        "check it again",
        default=(),
        secret=True,
    )
    api_key_file: str | None = flag(LIMITS, "File with keys, one a line", env="TGI_API_KEY_FILE")
    payload_limit: int = flag(LIMITS, "Bytes of a request's body, at most", default=2_000_000, within=Range(1, 1 << 40))
    cors_allow_origin: tuple[str, ...] = flag(
        LIMITS, "Origin whose pages may use the router's own answers", default=(), shown_default="all"
    )
    graceful_termination_timeout: int = flag(
        LIMITS, "Seconds that open answers have to finish after SIGTERM", default=90, within=Range(0, SECONDS)
    )
    json_output: bool = flag(LIMITS, "Write the log as JSON", default=False)

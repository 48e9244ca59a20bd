"""`tgi route`: one address in front of servers that run already, chosen by what they hold and how busy they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import tgi
from tgi import logs
from tgi.commands.ending import show
from tgi.commands.route_flags import RouteFlags
from tgi.errors import ArgumentError
from tgi.settings.api_keys import read_keys
from tgi.settings.config import environment_settings
from tgi.settings.help import render
from tgi.settings.parse import options, read_values
from tgi.settings.resolve import check_ranges

logger = logging.getLogger(__name__)

ABOUT = "Route requests to servers that run already: one address, and each request where its prompt is cached."
EXAMPLES = """\
tgi route --replica http://10.0.0.7:8080 --replica http://10.0.0.8:8080
tgi route --discover replicas.txt
TGI_ROUTER_SALT=... tgi route --hostname 0.0.0.0 --port 80 --discover http://tgi-servers:8080"""
ENVIRONMENT = "Each flag but --replica and --discover can be given as an environment variable of its name in capitals."


def route(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Until a signal; exit status 0. Raises UsageError and StartupError."""
    known = options(RouteFlags)
    if "--help" in words or "-h" in words:
        show(render("tgi route", ABOUT, EXAMPLES, known=known, environment=ENVIRONMENT))
        return 0
    if "--version" in words or "-V" in words:
        show(f"tgi {tgi.__version__}")
        return 0
    values, _ = read_values(known, words, variables)
    flags = RouteFlags(**values)
    check_ranges(flags)
    return _run(flags, variables)


def _run(flags: RouteFlags, variables: Mapping[str, str]) -> int:
    from tgi.replicas import discovery, serve  # help needs no HTTP stack
    from tgi.replicas.router import Router
    from tgi.replicas.starts import Starts

    if not flags.replica and not flags.discover:
        raise ArgumentError(
            "`replica`: give the address of each server, as in --replica http://10.0.0.7:8080, or --discover"
        )
    sources = [discovery.source_of(word) for word in flags.discover]
    if flags.index_blocks & (flags.index_blocks - 1):
        raise ArgumentError(f"`index_blocks` must be a power of two. Given: {flags.index_blocks}")
    keys = tuple(flags.api_key) + (() if flags.api_key_file is None else tuple(read_keys(Path(flags.api_key_file))))
    if any(not key.strip() for key in keys):
        raise ArgumentError("`api_key` cannot be empty")
    settings = environment_settings(variables)
    logs.configure(settings.log_level, json_output=flags.json_output, color=settings.color, secrets=(*keys, flags.salt))
    urls = list(dict.fromkeys(flags.replica))
    router = Router(
        urls,
        api_keys=keys,
        salt=flags.salt or "",
        payload_limit=flags.payload_limit,
        cors_allow_origin=flags.cors_allow_origin,
        index_blocks=flags.index_blocks,
        starts=Starts(flags.start_timeout),
    )
    if not keys and flags.hostname not in ("127.0.0.1", "::1"):
        logger.warning("Listening on %s without --api-key: whoever reaches this port can use it", flags.hostname)

    async def follow(router: Router) -> None:
        await discovery.follow(router.replicas, urls, sources)

    return serve.serve(
        router, flags.hostname, flags.port, flags.graceful_termination_timeout, follow if sources else None
    )

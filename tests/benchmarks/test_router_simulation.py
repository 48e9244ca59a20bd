"""Routing on paper, small: the claims of the simulator hold for a dozen replicas too."""

from __future__ import annotations

import pytest
from benchmarks.router_simulation import Outcome, World, simulate


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return simulate(World(replicas=12, conversations=700, routers=4))


def test_four_routers_find_nearly_as_much_as_one_that_knows_all(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["routers"].hit_rate >= 0.9 * outcomes["all-knowing"].hit_rate
    assert outcomes["least busy"].hit_rate < 0.6


def test_nobody_waits_much_longer_than_at_the_least_busy_one(outcomes: dict[str, Outcome]) -> None:
    routers = outcomes["routers"]
    assert routers.p99_first <= 1.5 * outcomes["least busy"].p99_first
    assert routers.p99_wait <= 1.5 * outcomes["least busy, told"].p99_wait, "of routers that know as little"


def test_no_replica_has_much_more_than_others(outcomes: dict[str, Outcome]) -> None:
    load = outcomes["routers"].load
    assert max(load) <= 1.3 * sum(load) / len(load)

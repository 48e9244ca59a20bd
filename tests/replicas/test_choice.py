"""Which replica is chosen: prefixes, load, conversations, and two routers that never talk."""

from __future__ import annotations

import random
import time
from collections import Counter

import numpy as np

from tgi.replicas.blocks import Chain, chain
from tgi.replicas.choice import Ask, Chooser
from tgi.replicas.figures import Figures, Fleet
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex


def chooser(replicas: int = 4) -> Chooser:
    fleet = Fleet(replicas)
    names = [f"http://10.0.0.{number}" for number in range(replicas)]
    return Chooser(fleet, PrefixIndex(replicas, blocks=1 << 14), Homes(names))


def everybody(one: Chooser) -> np.ndarray:
    return np.ones(len(one.fleet), bool)


def blocks(seed: int, size: int = 4000) -> Chain:
    return chain([random.Random(seed).randbytes(size)], 7)


def test_the_next_turn_goes_where_the_last_one_went() -> None:
    one = chooser()
    first = one.choose(Ask(blocks(1), 11), everybody(one))
    assert first is not None
    one.fleet.ended(first.sent)
    second = one.choose(Ask(blocks(1, 6000), 11, 4000), everybody(one))
    assert second is not None and second.replica == first.replica and second.expected > 3500


def test_a_long_queue_outweighs_a_short_prefix_but_not_a_long_one() -> None:
    for size, moves in ((4000, True), (80_000, False)):
        one = chooser()
        first = one.choose(Ask(blocks(1, size), 11), everybody(one))
        assert first is not None
        one.fleet.tell(first.replica, Figures(running=4, waiting=8, queued_tokens=8000))
        second = one.choose(Ask(blocks(1, size), 11), everybody(one))
        assert second is not None and (second.replica != first.replica) is moves


def test_a_full_cache_costs() -> None:
    one = chooser(2)
    first = one.choose(Ask(blocks(1, 1000), 11), everybody(one))
    assert first is not None
    one.fleet.tell(first.replica, Figures(cache_usage=1.0))
    second = one.choose(Ask(blocks(1, 1000), 11), everybody(one))
    assert second is not None and second.replica != first.replica


def test_only_allowed_replicas_are_chosen() -> None:
    one = chooser()
    allowed = np.array([False, False, True, False])
    for seed in range(20):
        choice = one.choose(Ask(blocks(seed), seed), allowed)
        assert choice is not None and choice.replica == 2
    assert one.choose(Ask(blocks(1), 1), np.zeros(4, bool)) is None


def test_two_routers_agree_without_talking() -> None:
    """Each of them has every second turn; the second turn finds the replica of the first, which the other one chose."""
    routers = [chooser(16), chooser(16)]
    same = 0
    for number in range(300):
        ends = []
        for turn, router in enumerate(routers):
            choice = router.choose(
                Ask(blocks(number, 4000 * (turn + 1)), 1000 + number, 4000 * turn), np.ones(16, bool)
            )
            assert choice is not None
            ends.append(choice)
        same += ends[0].replica == ends[1].replica
        for router, choice in zip(routers, ends, strict=True):
            router.fleet.ended(choice.sent)
    assert same >= 285


def test_many_conversations_spread() -> None:
    one = chooser(8)
    count = Counter[int]()
    for seed in range(800):
        choice = one.choose(Ask(blocks(seed, 1000), seed * 7919), everybody(one))
        assert choice is not None
        count[choice.replica] += 1
    assert len(count) == 8 and max(count.values()) <= 1.15 * 100


def test_one_prompt_for_all_does_not_flood_one_replica() -> None:
    """A system prompt alone is no reason to send everybody to the replica that has it."""
    one = chooser(8)
    system = random.Random(0).randbytes(2048)
    count = Counter[int]()
    for seed in range(400):
        asked = chain([system, random.Random(seed + 1).randbytes(300)], 7)
        choice = one.choose(Ask(asked, seed * 7919), everybody(one))
        assert choice is not None
        one.fleet.began(choice.sent)
        count[choice.replica] += 1
    assert max(count.values()) <= 1.3 * 50


def test_homes_of_others_stay_when_a_replica_leaves() -> None:
    names = [str(number) for number in range(10)]
    before, after = Homes(names), Homes(names[:-1])
    for key in range(500):
        first = before.of(key * 7919 + 1, np.ones(10, bool))[0]
        assert first == 9 or after.of(key * 7919 + 1, np.ones(9, bool))[0] == first


def test_homes_do_not_depend_on_the_order_of_the_list() -> None:
    names = [str(number) for number in range(10)]
    there, back = Homes(names), Homes(names[::-1])
    for key in range(100):
        allowed = np.ones(10, bool)
        assert [names[one] for one in there.of(key, allowed)] == [names[::-1][one] for one in back.of(key, allowed)]


def test_a_restart_empties_what_is_expected() -> None:
    one = chooser()
    first = one.choose(Ask(blocks(1), 11), everybody(one))
    assert first is not None
    one.fleet.tell(first.replica, Figures(computed_tokens=5000))
    one.fleet.tell(first.replica, Figures(computed_tokens=100))
    again = one.choose(Ask(blocks(1), 11), everybody(one))
    assert again is not None and again.expected == 0


def test_figures_push_out_what_no_longer_fits() -> None:
    one = chooser()
    first = one.choose(Ask(blocks(1), 11), everybody(one))
    assert first is not None
    one.fleet.tell(first.replica, Figures(cache_tokens=10_000, computed_tokens=9_000))
    kept = one.choose(Ask(blocks(1), 11), everybody(one))
    assert kept is not None and kept.expected > 3000
    one.fleet.tell(first.replica, Figures(cache_tokens=10_000, computed_tokens=30_000))
    lost = one.choose(Ask(blocks(1), 11), everybody(one))
    assert lost is not None and lost.expected == 0


def test_load_goes_up_and_down_once() -> None:
    fleet = Fleet(2)
    sent = fleet.sent(0, 100)
    assert fleet.queued[0] == 100 and fleet.running[0] == 1
    fleet.began(sent)
    fleet.began(sent)
    assert fleet.queued[0] == 0 and fleet.running[0] == 1
    fleet.ended(sent)
    assert fleet.running[0] == 0
    late = fleet.sent(0, 100)
    fleet.tell(0, Figures(running=1, queued_tokens=0))
    fleet.ended(late)
    assert fleet.queued[0] == 0 and fleet.running[0] == 0


def test_figures_of_a_moment_ago_do_not_outlive_what_they_counted() -> None:
    """They were taken while the request waited, with its whole prompt; its answer came since."""
    fleet = Fleet(1)
    sent = fleet.sent(0, 100, whole=900)
    fleet.tell(0, Figures(running=1, queued_tokens=900))
    fleet.began(sent)
    assert fleet.queued[0] == 0 and fleet.running[0] == 1
    fleet.ended(sent)
    fleet.ended(sent)
    assert fleet.running[0] == 0


def test_a_decision_among_a_thousand_is_quick() -> None:
    """Best of many, since the machine that tests this may be busy: it takes less than 100 us where it is not."""
    one = chooser(1000)
    system = random.Random(0).randbytes(4096)
    best = 1.0
    for seed in range(300):
        data = [system, random.Random(seed).randbytes(4000)]
        begin = time.perf_counter()
        choice = one.choose(Ask(chain(data, 7), seed * 7919), everybody(one))
        best = min(best, time.perf_counter() - begin)
        assert choice is not None
    assert best < 1e-3

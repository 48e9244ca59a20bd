"""What is kept of responses: bounded by number and bytes, apart for each key, chains whole."""

from __future__ import annotations

import random

import pytest

from tgi.api.responses.store import OVERHEAD, Kept, ResponseStore


def kept(id: str, previous: str | None = None, *, group: int = 0, size: int = 0) -> Kept:
    return Kept(id, group, previous, b"x" * size, (b"in",), (b"out",), (f"{id}-in", f"{id}-out"))


def test_the_number_is_bounded() -> None:
    store = ResponseStore(3)
    for number in range(10):
        store.put(kept(str(number)))
        assert len(store) <= 3
    assert [store.get(str(number), 0) is not None for number in range(10)] == [False] * 7 + [True] * 3


def test_bytes_are_bounded_and_counted() -> None:
    store = ResponseStore(1000, bytes_limit=50_000)
    for number in range(100):
        store.put(kept(str(number), size=random.Random(number).randrange(20_000)))
        left = [one for id in range(100) if (one := store.get(str(id), 0)) is not None]
        assert store.bytes == sum(one.size for one in left) <= 50_000
    store.put(kept("large", size=50_000))
    assert store.get("large", 0) is None


def test_none_are_kept() -> None:
    store = ResponseStore(0)
    store.put(kept("a"))
    assert store.get("a", 0) is None and store.bytes == len(store) == 0


def test_keys_do_not_see_each_other() -> None:
    store = ResponseStore(10)
    store.put(kept("a", group=1))
    assert store.get("a", 0) is store.chain("a", 0) is store.item("a-in", 0) is None
    assert not store.delete("a", 0)
    store.put(Kept("b", 0, None, b"", (b"mine",), (), ("a-in",)))
    assert (store.item("a-in", 1), store.item("a-in", 0)) == (b"in", b"mine")
    assert store.delete("a", 1) and not store.delete("a", 1)
    assert store.item("a-in", 1) is None and store.item("a-in", 0) == b"mine"


def test_chains() -> None:
    store = ResponseStore(10)
    for id, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "a")):
        store.put(kept(id, previous))
    assert [one.id for one in store.chain("c", 0) or []] == ["a", "b", "c"]
    assert [one.id for one in store.chain("d", 0) or []] == ["a", "d"]
    store.delete("b", 0)
    assert store.chain("c", 0) is None and store.chain("unheard", 0) is None
    assert store.item("b-out", 0) is None and store.item("c-out", 0) == b"out"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_can_be_gone_on_from(seed: int) -> None:
    """Whatever is asked for in whatever order, a response goes before those that it goes on from."""
    chance = random.Random(seed)
    store = ResponseStore(12, bytes_limit=12 * (OVERHEAD + 400))
    ids: list[str] = []
    for number in range(300):
        previous = chance.choice([None, *ids[-20:]])
        if previous is not None and store.chain(previous, 0) is None:
            previous = None
        store.put(kept(str(number), previous, size=chance.randrange(600)))
        ids.append(str(number))
        for id in ids:
            if store.get(id, 0) is not None and chance.random() < 0.1:
                assert store.chain(id, 0) is not None
    assert all(store.chain(id, 0) is not None for id in ids if store.get(id, 0) is not None)

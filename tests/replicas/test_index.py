"""The index of prefixes: what it remembers, what drops out, how large it is, and that it holds no text."""

from __future__ import annotations

import random

import numpy as np

from tgi.replicas.blocks import BLOCK, chain
from tgi.replicas.index import HOLDERS, UNIT, PrefixIndex

ONE = np.ones(8, np.int64)


def expected(index: PrefixIndex, text: bytes, oldest: np.ndarray = ONE) -> list[float]:
    blocks = chain([text], 1)
    return index.expected(index.look(blocks.hashes), blocks.ends, oldest).tolist()


def learn(index: PrefixIndex, text: bytes, replica: int, stamp: int = 5, oldest: np.ndarray = ONE) -> None:
    index.learn(index.look(chain([text], 1).hashes), replica, stamp, oldest)


def text(blocks: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(blocks * BLOCK)


def test_a_chain_depends_on_salt_and_all_that_came_before() -> None:
    base = chain([text(4)], 1)
    assert len(base.hashes) == 4 and base.size == 4 * BLOCK
    assert not set(base.hashes.tolist()) & set(chain([text(4)], 2).hashes.tolist())
    changed = bytearray(text(4))
    changed[0] ^= 1
    assert not set(base.hashes.tolist()) & set(chain([bytes(changed)], 1).hashes.tolist())
    longer = chain([text(4) + b"x" * 300], 1)
    assert longer.hashes.tolist()[:4] == base.hashes.tolist()


def test_where_pieces_end_makes_no_difference() -> None:
    whole = text(5)
    pieces = chain([whole[:100], whole[100:700], whole[700:]], 3)
    assert pieces.hashes.tolist() == chain([whole], 3).hashes.tolist()


def test_a_megabyte_is_a_few_hundred_blocks() -> None:
    assert len(chain([random.Random(1).randbytes(1 << 20)], 1).hashes) < 700


def test_the_deepest_block_of_each_replica_counts() -> None:
    index = PrefixIndex(8, blocks=1 << 12)
    learn(index, text(10), 2)
    learn(index, text(10)[: 4 * BLOCK], 5)
    found = expected(index, text(10) + b"more")
    assert found[2] == 10 * BLOCK and found[5] == 4 * BLOCK and sum(found) == 14 * BLOCK


def test_unknown_prompts_are_held_by_nobody() -> None:
    index = PrefixIndex(8, blocks=1 << 12)
    learn(index, text(10), 2)
    assert not any(expected(index, text(10, seed=9)))
    assert not any(expected(index, b"short"))


def test_what_a_replica_has_computed_since_pushes_entries_out() -> None:
    index = PrefixIndex(8, blocks=1 << 12)
    learn(index, text(3), 2, stamp=5)
    later = ONE.copy()
    later[2] = 6
    assert not any(expected(index, text(3), later))


def test_a_prefix_of_many_replicas_is_known_of_all() -> None:
    index = PrefixIndex(8, blocks=1 << 12)
    for replica in range(8):
        learn(index, text(3) + text(2, seed=replica + 1), replica)
    assert expected(index, text(3)) == [3 * BLOCK] * 8
    mine = expected(index, text(3) + text(2, seed=7))
    assert mine[6] == 5 * BLOCK and mine[1] == 3 * BLOCK
    assert index.is_shared(chain([text(3)], 1).hashes.tolist()[0])


def test_dead_holders_do_not_make_a_prefix_shared() -> None:
    index = PrefixIndex(8, blocks=1 << 12)
    oldest = np.full(8, 100, np.int64)
    for replica in range(8):
        learn(index, text(2), replica, stamp=5, oldest=oldest)
    assert not index.is_shared(chain([text(2)], 1).hashes.tolist()[0])


def test_the_table_never_grows_and_the_newest_stay() -> None:
    index = PrefixIndex(8, blocks=1 << 10, shared=16)
    before = index.nbytes
    for seed in range(2000):
        learn(index, text(4, seed), seed % 8)
    assert index.nbytes == before
    recent = [max(expected(index, text(4, seed))) for seed in range(1950, 2000)]
    assert sum(one == 4 * BLOCK for one in recent) >= 45


def test_shared_rows_are_reused() -> None:
    index = PrefixIndex(8, blocks=1 << 12, shared=4)
    for seed in range(6):
        for replica in range(HOLDERS + 1):
            learn(index, text(2, seed), replica)
    assert len(index._shared_rows) == 4
    assert sorted(index._shared_rows.values()) == [0, 1, 2, 3]


def test_large_enough_for_a_cluster_and_below_200_megabytes() -> None:
    assert PrefixIndex(1000, blocks=1 << 21).nbytes < 200e6


def test_no_text_is_kept() -> None:
    index = PrefixIndex(8, blocks=1 << 10)
    secret = b"the password of the day is swordfish" * 20
    learn(index, secret, 1)
    raw = b"".join(
        table.tobytes() for table in (index._keys, index._used, index._holders, index._stamps, index._shared_stamps)
    )
    assert b"password" not in raw and b"swordfish" not in raw


def test_unit_of_stamps_lasts() -> None:
    assert (1 << 32) * UNIT > 60e9

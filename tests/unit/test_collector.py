"""What a process does to its garbage collector once it serves."""

from __future__ import annotations

import gc

from tgi import collector


def test_objects_of_start_up_are_left_out_of_collections():
    threshold = gc.get_threshold()
    try:
        collector.settle()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count()
        assert gc.get_threshold()[0] == collector.YOUNG_OBJECTS
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


def test_collections_pause_for_a_while():
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()

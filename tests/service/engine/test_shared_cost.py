from __future__ import annotations

from random import Random

import pytest

from service.engine.cost import CostModel
from service.engine.member_cost import MEMORY_S
from service.engine.shared_cost import DOUBT_INTERVAL_S, TRY_INTERVAL_S, SharedCost


def shared() -> SharedCost:
    """10 ms on several threads and 17 on one; four rows take 30 on one, so there one was chosen."""
    return SharedCost({1: [0.010] * 5, 4: [0.030] * 5}, {1: [0.017] * 5, 4: [0.030] * 5}, 0.95)


def test_threads_share_a_step_while_that_pays():
    cost = shared()
    assert not cost.on_one_thread(1)
    assert cost.on_one_thread(4)
    assert (cost.predict(1, 0.0), cost.usually(1)) == (pytest.approx(0.010), pytest.approx(0.010))
    cost.observe(1, 0.020, now=0.0)
    assert not cost.on_one_thread(1), "one hiccup"


def test_threads_that_wait_for_each_other_are_left_alone_for_a_while():
    cost = shared()
    for _ in range(2):
        cost.observe(1, 0.020, now=0.0)
    assert cost.on_one_thread(1)
    assert (cost.predict(1, 1.0), cost.usually(1)) == (pytest.approx(0.017), pytest.approx(0.017))
    for _ in range(2):
        cost.observe(1, 0.018, now=2.0, on_one_thread=True)
    assert cost.predict(1, 3.0) == pytest.approx(0.018)
    assert cost.holds_until(1) == pytest.approx(MEMORY_S), "of what is forgotten first"
    assert cost.predict(1, MEMORY_S + 0.1) == pytest.approx(0.010), "they are tried again"
    assert not cost.on_one_thread(1)


def test_threads_that_were_left_alone_are_tried_again_and_again():
    cost = shared()
    assert not cost.doubtful(1, 0.0), "they share already"
    for now in (0.0, 1.0):
        for _ in range(2):
            cost.observe(1, 0.020, now=now)
        assert cost.on_one_thread(1)
        assert [cost.doubtful(1, now + later) for later in (0.0, 0.9, TRY_INTERVAL_S)] == [False, False, True]
    cost.observe(1, 0.017, now=1.5, on_one_thread=True)
    cost.observe(1, 0.015, now=2.0)
    assert cost.on_one_thread(1), "not enough faster"
    cost.observe(1, 0.011, now=3.0)
    assert not cost.on_one_thread(1)
    assert (cost.predict(1, 3.0), cost.usually(1)) == (pytest.approx(0.010), pytest.approx(0.010)), "all is forgotten"


def test_one_thread_that_is_slowed_more_gives_way():
    cost = shared()
    for _ in range(2):
        cost.observe(1, 0.020, now=0.0)
        cost.observe(1, 0.030, now=0.0, on_one_thread=True)
    assert not cost.on_one_thread(1)
    assert cost.predict(1, 0.0) == pytest.approx(0.020)


def test_whoever_asks_all_the_time_is_told_what_one_who_asks_for_the_first_time_is():
    random, asked, seen = Random(0), CostModel(), []
    asked.add("model", [shared(), shared()])
    chosen = set()
    for step in range(120):
        # Now and then so long after the last one that all is forgotten.
        now = step * 0.2 + step // 40 * 2 * MEMORY_S
        rows, duration_s, on_one_thread = random.choice([1, 4]), random.uniform(0.008, 0.050), random.random() < 0.5
        seen.append((rows, duration_s, now, on_one_thread))
        asked.observe("model", 0, rows, duration_s, now, on_one_thread=on_one_thread)
        fresh = shared()
        for before in seen:
            fresh.observe(*before[:3], on_one_thread=before[3])
        for size in (1, 2, 4):
            later = now + random.choice([0.0, 0.1])
            assert asked.predict_each("model", size, later)[0] == fresh.predict(size, later)
            assert asked.on_one_thread("model", 0, size) == fresh.on_one_thread(size)
            assert asked.usually("model", 0, size) == fresh.usually(size)
            chosen.add((size, fresh.on_one_thread(size)))
    assert len(chosen) == 6, "either way was best for each size"


def test_threads_that_did_not_pay_at_warm_up_are_tried_again_but_rarely():
    cost = SharedCost({4: [0.030] * 5}, {1: [0.010] * 5, 4: [0.033] * 5}, 0.95, tried_at=100.0)
    assert cost.on_one_thread(4)
    assert cost.curve(4) == pytest.approx(0.033), "of the way that was better"
    later = (0.0, TRY_INTERVAL_S, DOUBT_INTERVAL_S)
    assert [cost.doubtful(4, 100.0 + seconds) for seconds in later] == [False, False, True]
    cost.observe(4, 0.030, now=110.0)
    assert cost.on_one_thread(4), "they still do not"
    assert [cost.doubtful(4, 110.0 + seconds) for seconds in later] == [False, False, True]
    cost.observe(4, 0.018, now=120.0)
    assert not cost.on_one_thread(4), "others had kept the machine busy"
    assert (cost.predict(4, 120.0), cost.usually(4)) == (pytest.approx(0.018), pytest.approx(0.018))
    assert not cost.doubtful(4, 1e9)


def test_what_cannot_be_shared_is_never_tried():
    cost = SharedCost({4: [0.010] * 5}, {1: [0.010] * 5, 4: [0.030] * 5}, 0.95)
    assert [cost.on_one_thread(rows) for rows in (1, 2, 4, 9)] == [True, False, False, False]
    cost.observe(4, 0.002, now=0.0)
    assert cost.on_one_thread(1)
    assert not cost.doubtful(1, 1e9)
    assert cost.rows == (1, 4)


def test_what_one_row_takes_on_several_threads_says_nothing_of_many_rows():
    cost = SharedCost({1: [0.007] * 5, 4: [0.015] * 5}, {1: [0.010] * 5, 4: [0.030] * 5}, 0.95)
    for _ in range(2):
        cost.observe(1, 0.030, now=0.0)
    assert [cost.on_one_thread(rows) for rows in (1, 2, 4)] == [True, False, False]
    assert (cost.predict(1, 0.0), cost.predict(4, 0.0)) == (pytest.approx(0.010), pytest.approx(0.015))

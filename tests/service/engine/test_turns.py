from __future__ import annotations

import asyncio

import pytest

from service.engine.turns import Turns

pytestmark = pytest.mark.anyio


async def turns_passed(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def come(turns: Turns, name: str, log: list[str]) -> None:
    await turns.request()
    log.append(name)


async def test_a_loop_with_nothing_to_do_makes_nobody_wait():
    turns, log = Turns(), list[str]()
    turns.answer(1.0, lambda: log.append("answer"))
    assert log == ["answer"]
    await turns_passed(2)
    request = turns.request()
    with pytest.raises(StopIteration):
        request.send(None)


async def test_a_burst_takes_one_turn_each_in_its_order():
    turns, log = Turns(), list[str]()
    tasks = [asyncio.create_task(come(turns, name, log)) for name in "abcd"]
    grown = []
    while not all(task.done() for task in tasks):
        before = len(log)
        await turns_passed(1)
        grown.append(len(log) - before)
    assert log == list("abcd")
    assert max(grown) == 1


async def test_answers_come_before_requests_and_the_most_urgent_first():
    turns, log = Turns(), list[str]()
    tasks = [asyncio.create_task(come(turns, name, log)) for name in "abc"]
    await turns_passed(1)
    assert log == ["a"]
    for due in (3.0, 1.0, 2.0):
        turns.answer(due, lambda due=due: log.append(f"{due:g}"))
    await asyncio.gather(*tasks)
    assert log == ["a", "1", "2", "3", "b", "c"]


async def test_who_has_gone_takes_no_turn():
    turns, log = Turns(), list[str]()
    tasks = [asyncio.create_task(come(turns, name, log)) for name in "abc"]
    await turns_passed(1)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert log == ["a", "c"]
    await turns_passed(2)
    turns.answer(0.0, lambda: log.append("free again"))
    assert log[-1] == "free again"


async def test_others_see_whether_anybody_waits_and_that_somebody_had_to():
    turns, log = Turns(), list[str]()
    tasks = [asyncio.create_task(come(turns, name, log)) for name in "ab"]
    await turns_passed(1)
    assert (turns.crowded, turns.contested) == (True, 1)
    await asyncio.gather(*tasks)
    assert (turns.crowded, turns.contested) == (False, 1)
    for due in (1.0, 2.0):
        turns.answer(due, lambda: None)
    assert (turns.crowded, turns.contested) == (True, 2)
    await turns_passed(3)
    assert (turns.crowded, turns.contested) == (False, 2)


async def test_several_answers_on_their_way_are_a_crowd_before_they_are_there():
    turns = Turns()
    turns.announce(1)
    assert not turns.crowded
    turns.announce(2)
    assert turns.crowded
    for due in (1.0, 2.0):
        turns.answer(due, lambda: None)
    await turns_passed(3)
    assert not turns.crowded

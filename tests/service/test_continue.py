"""POST /predict/{request_id}/continue over HTTP: the numbers, and every way it can end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Bundle
from bundle.exits import confidence
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient, AnytimeError, AsyncAnytimeClient
from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.executor import Executor
from service.engine.providers import CPU
from service.engine.step import Step
from service.engine.ticket import Logits
from service.settings import Settings
from tests.fakes import FakeClock, HeldExecutor, TimedExecutor
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny

LONG_MS = 60_000.0


def settings(models: Path, **changes: Any) -> Settings:
    return Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8, **changes)


def logits_of(answer: Any) -> np.ndarray:
    return np.array([one.logits for one in answer.predictions], np.float32)


class Counting(CpuExecutor):
    """Remembers which members ran on whose rows."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.ran: list[int] = []

    def run(self, step):
        self.ran += [step.member for one in step.tickets if one.inputs.any()]
        return super().run(step)


class Held:
    """Any executor, in whose steps of clients one member waits until it is released."""

    def __init__(self, executor: Executor, member: int) -> None:
        self._executor, self._member = executor, member
        self.release = threading.Event()
        self.ran: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def run(self, step: Step) -> Logits:
        if any(one.inputs.any() or not one.rows for one in step.tickets):
            self.ran.append(step.member)
            if step.member == self._member:
                assert self.release.wait(60)
        return self._executor.run(step)


@pytest.fixture
def executor() -> Counting:
    return Counting()


@pytest.fixture
def server(tiny: Bundle, models: Path, executor: Counting) -> Iterator[Server]:
    with serving(create_app(settings(models), executor=executor)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[AnytimeClient]:
    with AnytimeClient(server.url) as one:
        yield one


def refusal(call: Any) -> tuple[int, str]:
    with pytest.raises(AnytimeError) as caught:
        call()
    return caught.value.status, caught.value.code


def test_it_goes_on_where_it_stopped_with_the_numbers_of_a_straight_run(
    tiny: Bundle, client: AnytimeClient, executor: Counting, server: Server
):
    x = samples(3)
    prefixes = list(running_average(tiny, x))
    first = client.predict(x, max_members=1, keep_ms=LONG_MS, outputs=["logits"])
    assert (first.members_used, first.kept_ms) == (1, LONG_MS)
    second = client.continue_(first.request_id, max_members=2, keep_ms=LONG_MS, outputs=["logits"])
    assert (second.members_used, second.stopped_by, second.kept_ms) == (2, "max_members", LONG_MS)
    third = client.continue_(first.request_id, deadline_ms=LONG_MS, outputs=["logits"])
    assert (third.members_used, third.stopped_by, third.kept_ms) == (3, "complete", None)
    assert {first.request_id} == {second.request_id, third.request_id}
    for answer, expected in zip((first, second, third), prefixes, strict=True):
        np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)
    assert executor.ran == [0, 1, 2], "nothing is computed twice"
    assert client.feedback(first.request_id, [0, 1, 2]).members_used == 3
    assert (len(server.context.kept), server.context.kept.size) == (0, 0)
    assert refusal(lambda: client.continue_(first.request_id)) == (410, "state_gone")


def test_no_prefix_is_labelled_twice_for_one_sample(server: Server, client: AnytimeClient):
    first = client.predict(samples(2), max_members=2, keep_ms=LONG_MS)
    assert client.feedback(first.request_id, [0, 1]).members_used == 2
    client.continue_(first.request_id)
    assert client.feedback(first.request_id, [0, 1]).members_used == 3

    def labelled(members: int) -> float | None:
        labels = {"model": "tiny/1", "members": str(members)}
        return server.context.metrics.registry.get_sample_value("anytime_feedback_rows_total", labels)

    assert [labelled(members) for members in (1, 2, 3)] == [2, 2, 2]


@pytest.mark.parametrize(("minimum", "counted"), [(1, [8, 0, 0]), (2, [8, 8, 0])])
def test_behind_an_early_exit_nothing_is_counted_of_the_hard_rows_that_stay(
    server: Server, client: AnytimeClient, minimum: int, counted: list[int]
):
    answer = client.predict(samples(8), exit_confidence=0.99, min_members=minimum, keep_ms=LONG_MS)
    assert answer.members_used == 3
    client.feedback(answer.request_id, [0] * 8)
    value = server.context.metrics.registry.get_sample_value
    labels = [{"model": "tiny/1", "members": str(members)} for members in (1, 2, 3)]
    assert [value("anytime_feedback_rows_total", one) for one in labels] == counted
    assert [value("anytime_prefix_rows_total", one) for one in labels] == [0, 0, 0]


def test_a_state_comes_out_of_a_batch_by_itself(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        with ThreadPoolExecutor() as pool:
            first = pool.submit(client.predict, samples(1, 9))
            assert executor.entered.wait(60)
            together = [
                pool.submit(client.predict, samples(2, seed), max_members=2, keep_ms=LONG_MS, request_id=f"r{seed}")
                for seed in range(3)
            ]
            while server.context.gate.requests_in_flight < 4:
                client.ready()
            executor.release.set()
            for answer in (first, *together):
                answer.result(60)
        server.idle()
        for kept in server.context.kept._states.values():
            assert all(len(held.array) == len(held.rows) for held in kept.ticket.activations.values()), (
                "no other rows are held"
            )
        for seed in range(3):
            answer = client.continue_(f"r{seed}", outputs=["logits"])
            *_, expected = running_average(tiny, samples(2, seed))
            np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)


def test_the_last_member_may_end_after_the_deadline_of_a_request_that_goes_on(tiny: Bundle, models: Path):
    executor = HeldExecutor(2)
    x = samples(2)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        first = client.predict(x, deadline_ms=300, keep_ms=LONG_MS)
        assert (first.members_used, first.stopped_by) == (2, "deadline")
        executor.release.set()
        server.idle()
        second = client.continue_(first.request_id, deadline_ms=LONG_MS, outputs=["logits"])
        assert (second.members_used, second.stopped_by) == (3, "complete")
        *_, expected = running_average(tiny, x)
        np.testing.assert_allclose(logits_of(second), expected, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: CpuExecutor(1), lambda: CpuExecutor(2), lambda: DeviceExecutor(CPU, "cpu")])
def test_rows_may_all_leave_after_the_deadline_of_a_request_that_goes_on(
    tiny: Bundle, models: Path, make: Callable[[], Executor]
):
    # Of one sample that is confident with its second member, not with its first.
    sizes = [[float(confidence(answer, 1.0)[0]) for answer in running_average(tiny, samples(1, s))] for s in range(99)]
    seed, (before, after, _) = max(enumerate(sizes), key=lambda one: one[1][1] - one[1][0])
    executor = Held(make(), member=1)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        first = client.predict(samples(1, seed), deadline_ms=300, keep_ms=LONG_MS, exit_confidence=(before + after) / 2)
        assert (first.members_used, first.stopped_by, first.kept_ms) == (1, "deadline", LONG_MS)
        executor.release.set()
        server.idle()
        second = client.continue_(first.request_id, outputs=["logits"])
        assert (second.members_used, second.stopped_by) == (2, "exit_confidence")
        np.testing.assert_allclose(logits_of(second), list(running_average(tiny, samples(1, seed)))[1], atol=1e-5)
    assert executor.ran == [0, 1], "nothing is run on no rows"


@pytest.mark.parametrize("held", [1, 2])
def test_a_member_that_was_running_at_the_deadline_counts_when_it_goes_on(tiny: Bundle, models: Path, held: int):
    executor = HeldExecutor(held)
    x = samples(2)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        first = client.predict(x, deadline_ms=300, keep_ms=LONG_MS)
        assert (first.members_used, first.kept_ms) == (held, LONG_MS)
        # Still in that member: the deadline of the second request comes before the state is free.
        second = client.continue_(first.request_id, deadline_ms=100, keep_ms=LONG_MS, outputs=["logits"])
        assert (second.members_used, second.stopped_by, second.kept_ms) == (held, "deadline", LONG_MS)
        np.testing.assert_allclose(logits_of(second), list(running_average(tiny, x))[held - 1], atol=1e-5)
        executor.release.set()
        third = client.continue_(first.request_id, outputs=["logits"])
        *_, expected = running_average(tiny, x)
        np.testing.assert_allclose(logits_of(third), expected, atol=1e-5)
        assert executor.members_run == [0, 1, 2]


def test_of_two_at_once_one_wins(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        first = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
        with ThreadPoolExecutor() as pool:
            winner = pool.submit(client.continue_, first.request_id)
            assert executor.entered.wait(60)
            assert refusal(lambda: client.continue_(first.request_id)) == (409, "already_continuing")
            executor.release.set()
            assert winner.result(60).stopped_by == "complete"


def test_what_was_never_kept_is_unknown(client: AnytimeClient):
    answer = client.predict(samples(1), max_members=1)
    assert answer.kept_ms is None
    for request_id in (answer.request_id, "absent", "a b"):
        assert refusal(lambda request_id=request_id: client.continue_(request_id)) == (404, "unknown_request")


def test_a_complete_answer_is_not_kept(client: AnytimeClient, server: Server):
    assert client.predict(samples(1), keep_ms=LONG_MS).kept_ms is None
    assert len(server.context.kept) == 0


def test_an_expired_state_is_gone(tiny: Bundle, models: Path):
    clock = FakeClock()
    app = create_app(settings(models), executor=TimedExecutor(clock, lambda step: 0.001), clock=clock)
    with serving(app) as server, AnytimeClient(server.url) as client:
        answer = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
        clock.advance(LONG_MS / 1e3)
        assert refusal(lambda: client.continue_(answer.request_id)) == (410, "state_gone")


def test_an_expired_state_frees_its_room_without_being_asked(tiny: Bundle, client: AnytimeClient, server: Server):
    client.predict(samples(1), max_members=1, keep_ms=1.0)
    while len(server.context.kept):
        client.ready()
    assert server.context.deployments.find("tiny").leases == 0


@pytest.mark.parametrize("keep_ms", [0.0, -1.0, 1e9])
def test_a_time_to_keep_must_make_sense(client: AnytimeClient, keep_ms: float):
    assert refusal(lambda: client.predict(samples(1), keep_ms=keep_ms)) == (422, "invalid_field")


def test_a_refused_continuation_leaves_the_state_as_it_was(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    app = create_app(settings(models, max_queue_rows=4, max_rows=4), executor=executor)
    with serving(app) as server, AnytimeClient(server.url) as client, ThreadPoolExecutor() as pool:
        kept = client.predict(samples(2, 1), max_members=1, keep_ms=LONG_MS)
        other = pool.submit(client.predict, samples(3, 2))
        assert executor.entered.wait(60)
        assert refusal(lambda: client.continue_(kept.request_id)) == (503, "overloaded")
        executor.release.set()
        other.result(60)
        answer = client.continue_(kept.request_id, outputs=["logits"])
        *_, expected = running_average(tiny, samples(2, 1))
        np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)
        assert executor.members_run.count(0) == 2, "nothing is computed twice"


def test_its_version_stays_while_it_is_kept(tiny: Bundle, models: Path, client: AnytimeClient, server: Server):
    kept = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
    write_tiny(models)
    assert client.load("tiny").version == 2
    assert client.predict(samples(1)).version == 2
    assert client.continue_(kept.request_id).version == 1
    while "tiny/1" in server.context.host.executor._members:
        client.ready()


def test_unloading_drops_it(client: AnytimeClient):
    kept = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
    assert client.unload("tiny") == []
    assert refusal(lambda: client.continue_(kept.request_id)) == (410, "state_gone")
    assert refusal(lambda: client.predict(samples(1))) == (404, "unknown_model")
    assert client.load("tiny").version == 1
    assert client.predict(samples(1)).stopped_by == "complete"


def test_unloading_drops_that_of_a_replaced_version_too(tiny: Bundle, models: Path, client: AnytimeClient):
    kept = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
    write_tiny(models)
    client.load("tiny")
    assert client.unload("tiny") == []
    assert refusal(lambda: client.continue_(kept.request_id)) == (410, "state_gone")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"inputs": [[1, 2, 3, 4]]}', b'{"deadline_ms": -1}'])
def test_a_bad_body_leaves_the_state_alone(client: AnytimeClient, server: Server, body: bytes):
    kept = client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
    assert httpx.post(f"{server.url}/predict/{kept.request_id}/continue", content=body).status_code in (400, 422)
    assert client.continue_(kept.request_id).stopped_by == "complete"


@pytest.mark.anyio
async def test_the_asyncio_client_does_the_same(models: Path, server: Server):
    async with AsyncAnytimeClient(server.url) as client:
        kept = await client.predict(samples(1), max_members=1, keep_ms=LONG_MS)
        assert (await client.continue_(kept.request_id)).members_used == 3
        write_tiny(models)
        assert (await client.load("tiny")).version == 2
        assert await client.unload("tiny") == []

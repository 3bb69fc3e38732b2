"""What must hold whatever happens: nobody hangs, nothing is left behind, and the books balance."""

from __future__ import annotations

import gc
import json
import logging
import random
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient, AnytimeError
from service.engine.cpu import CpuExecutor
from service.engine.executor import Executor
from service.engine.member_cost import MemberCost
from service.engine.step import Step
from service.engine.ticket import Logits, Ticket
from service.settings import Settings
from tests.fakes import FailingExecutor, FakeClock, HeldExecutor, TimedExecutor
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny


@pytest.fixture(autouse=True)
def _forgetful_log() -> Iterator[None]:
    """Records of failures hold tracebacks, and those the tickets that are counted here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def storm(models: Path, /, executor: Executor | None = None, **changes: Any) -> Iterator[Server]:
    """A server to be mistreated; afterwards, nothing may be left of what was done to it."""
    arguments = {name: changes.pop(name) for name in ("clock", "new_executor") if name in changes}
    settings = Settings(**{"models_dir": models, "device": "cpu", "cpu_threads": 1, "max_batch_rows": 4, **changes})
    app = create_app(settings, executor=executor or CpuExecutor(threads=1), **arguments)
    with serving(app) as server:
        yield server
        while server.context.gate.requests_in_flight:
            httpx.get(f"{server.url}/metrics")
        if server.context.worker.alive:
            server.idle()
        assert server.context.gate.rows_in_flight == 0
        assert server.context.worker._unsettled == set()
        assert all(one.leases == 0 for one in server.context.deployments.all())
        count = books(server)
        assert count["admitted"] == count["answered"] + count["failed"] + count["cancelled"]
        for _ in range(100):
            # The last tasks may still be on their way out of the routes.
            if not live_tickets():
                break
            httpx.get(f"{server.url}/healthz")
        assert live_tickets() == 0


def books(server: Server) -> dict[str, float]:
    value = server.context.metrics.registry.get_sample_value
    ended = {fate: value("anytime_ended_total", {"outcome": fate}) for fate in ("answered", "failed", "cancelled")}
    return {"admitted": value("anytime_admitted_total"), **ended}


def live_tickets() -> int:
    gc.collect()
    return sum(isinstance(one, Ticket) for one in gc.get_objects())


def wire_to(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=60)


def head(length: int) -> bytes:
    return b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % length


def body(seed: int = 0, **fields: Any) -> bytes:
    return json.dumps({"inputs": samples(2, seed).tolist(), **fields}).encode()


def read_all(wire: socket.socket) -> bytes:
    return b"".join(iter(lambda: wire.recv(65536), b""))


def test_a_fifth_of_the_clients_hang_up(tiny: Bundle, models: Path):
    dice = random.Random(0)
    patient = [dice.random() > 0.2 for _ in range(200)]

    def visit(number: int) -> bool:
        content = body(number)
        with wire_to(server) as wire:
            wire.sendall(head(len(content)) + content)
            return b" 200 OK" in read_all(wire) if patient[number] else True

    with storm(models) as server:
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(visit, range(200)))
        rejected = server.context.metrics.registry.get_sample_value
        assert books(server)["answered"] >= sum(patient)
        assert rejected("anytime_rejected_total", {"reason": "internal_error"}) == 0


def test_clients_that_hang_up_behind_a_long_step_leave_nothing(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    with storm(models, executor) as server:
        wires = [wire_to(server) for _ in range(20)]
        for number, wire in enumerate(wires):
            content = body(number)
            wire.sendall(head(len(content)) + content)
        assert executor.entered.wait(60)
        while server.context.gate.requests_in_flight < 20:
            httpx.get(f"{server.url}/healthz")
        for wire in wires:
            wire.close()
        while server.context.gate.requests_in_flight:
            httpx.get(f"{server.url}/healthz")
        executor.release.set()
        server.idle()
        assert books(server)["cancelled"] == 20
        assert executor.members_run == [0], "only what had been started was run"


def test_slow_writers_keep_nobody_waiting(tiny: Bundle, models: Path):
    content = body()
    with storm(models) as server:
        slow = [wire_to(server) for _ in range(20)]
        for wire in slow:
            wire.sendall(head(len(content)) + content[:10])
        with AnytimeClient(server.url) as client:
            assert all(client.predict(samples(1)).stopped_by == "complete" for _ in range(20))
        assert books(server)["admitted"] == 20, "half a body is no request yet"
        for number, wire in enumerate(slow):
            with wire:
                if number % 2:
                    wire.sendall(content[10:])
                    assert b" 200 OK" in read_all(wire)


@pytest.mark.parametrize("nan", [False, True])
def test_a_member_at_fault_costs_only_those_it_fails_on(tiny: Bundle, models: Path, nan: bool):
    executor = FailingExecutor(1, lambda one: one.request_id.startswith("evil"), nan=nan)
    with storm(models, executor) as server, AnytimeClient(server.url) as client:

        def visit(number: int) -> tuple[int, str]:
            name = "evil" if number % 5 == 0 else "good"
            answer = client.predict(samples(2, number), request_id=f"{name}-{number}")
            return answer.members_used, answer.stopped_by

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(visit, range(50)))
    assert outcomes == [(1, "member_failed") if number % 5 == 0 else (3, "complete") for number in range(50)]


def test_a_bundle_is_replaced_under_load(models: Path):
    members = {1: 3, 2: 2, 3: 4}
    expected = {}
    x = samples(2)
    for version in (1, 2, 3):
        bundle = write_tiny(models, members[version])
        assert bundle.manifest.version == version
        *_, expected[version] = running_average(bundle, x)
    (write_tiny(models).path / "member_00.onnx").write_bytes(b"bad")
    over = threading.Event()
    seen: list[set[int]] = [set(), set()]

    def visit(number: int) -> None:
        with AnytimeClient(server.url) as client:
            while not over.is_set():
                answer = client.predict(x, outputs=["logits"])
                assert answer.members_used == answer.members_total == members[answer.version]
                got = np.array([one.logits for one in answer.predictions])
                np.testing.assert_allclose(got, expected[answer.version], atol=1e-5)
                seen[number].add(answer.version)

    with storm(models, models="tiny/1", max_batch_rows=2) as server, AnytimeClient(server.url) as operator:
        with ThreadPoolExecutor(2) as pool:
            clients = [pool.submit(visit, number) for number in range(2)]
            try:
                for version in (2, 3):
                    assert operator.load("tiny", version).version == version
                    while not all(version in own for own in seen):
                        assert operator.ready()
                        assert not any(client.done() for client in clients)
                    with pytest.raises(AnytimeError, match="SHA-256") as caught:
                        operator.load("tiny", 4)
                    assert caught.value.code == "bad_bundle"
            finally:
                over.set()
            for client in clients:
                client.result(60)
        assert [card.version for card in operator.models()] == [1, 3], "the pinned one stays"
        (failure,) = httpx.get(f"{server.url}/models").json()["failures"]
        assert (failure["name"], failure["version"]) == ("tiny", 4)
        assert str(models) not in failure["detail"]
        while len(server.context.host.executor._members) > 2:
            operator.ready()


class Killed(BaseException):
    """What no handler of a failing member catches."""


class Mortal(CpuExecutor):
    """A bug ends the thread when a request of that name is at its second member."""

    fusion = None

    def __init__(self) -> None:
        super().__init__(threads=1)

    def run(self, step: Step) -> Logits:
        if step.member == 1 and any(one.request_id == "evil" for one in step.tickets):
            raise Killed
        return super().run(step)


def status(server: Server, path: str) -> int:
    return httpx.get(server.url + path).status_code


def test_a_killed_device_thread_comes_back_once(tiny: Bundle, models: Path):
    opening, go_on, mortal = threading.Event(), threading.Event(), Mortal()
    held: list[list[str]] = []

    def fresh() -> Executor:
        held.append(list(mortal._members))
        opening.set()
        assert go_on.wait(60)
        return Mortal()

    with storm(models, mortal, new_executor=fresh) as server, AnytimeClient(server.url) as client:
        kept = client.predict(samples(1), max_members=1, keep_ms=60_000)
        answer = client.predict(samples(2), request_id="evil", outputs=["logits"])
        assert (answer.members_used, answer.stopped_by) == (1, "shutdown")
        got = np.array([one.logits for one in answer.predictions])
        np.testing.assert_allclose(got, next(running_average(tiny, samples(2))), atol=1e-5)
        assert opening.wait(60)
        assert held == [[]], "there may be no memory for both"
        assert (status(server, "/readyz"), status(server, "/healthz")) == (503, 200)
        with pytest.raises(AnytimeError) as caught:
            client.predict(samples(1))
        assert caught.value.status == 503
        go_on.set()
        while not client.ready():
            assert status(server, "/healthz") == 200
        assert client.predict(samples(1)).stopped_by == "complete"
        with pytest.raises(AnytimeError, match="the device has been restarted since"):
            client.continue_(kept.request_id)
        assert server.context.metrics.registry.get_sample_value("anytime_device_restarts_total") == 1
        assert client.predict(samples(2), request_id="evil").stopped_by == "shutdown"
        while status(server, "/healthz") == 200:
            assert status(server, "/readyz") == 503
        assert (status(server, "/readyz"), status(server, "/healthz")) == (503, 503)


def test_a_device_that_cannot_be_had_again_stays_dead(tiny: Bundle, models: Path):
    def fresh() -> Executor:
        raise RuntimeError("the device has fallen off the bus")

    with storm(models, Mortal(), new_executor=fresh) as server, AnytimeClient(server.url) as client:
        assert client.predict(samples(2), request_id="evil").stopped_by == "shutdown"
        while status(server, "/healthz") == 200:
            assert status(server, "/readyz") == 503


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_predictions_that_are_wrong_tenfold_are_put_right(tiny: Bundle, models: Path, factor: float):
    clock = FakeClock()
    executor = TimedExecutor(clock, lambda step: 1.0)
    with storm(models, executor, clock=clock) as server, AnytimeClient(server.url) as client:

        def mislead() -> None:
            server.context.costs.add("tiny/1", [MemberCost({1: [factor] * 5}, 0.95) for _ in range(3)])

        # A rehearsal between decision and answer would pass for a slow answer on this clock.
        server.context.reserve.observe = lambda *_: None
        server.context.worker.call(mislead).result(60)
        used = []
        for _ in range(12):
            try:
                used.append(client.predict(samples(1), deadline_ms=2500).members_used)
            except AnytimeError as error:
                assert error.code == "no_prefix_in_time"
                used.append(0)
            # What turned work away is rehearsed when the device has nothing else to do.
            server.idle()
        executor.steps.clear()
    assert used[0] == (3 if factor < 1 else 0)
    assert used[-5:] == [2] * 5


def test_memory_is_flat_after_the_first_hundreds(tiny: Bundle, models: Path):
    def burst(seed: int) -> None:
        for number in range(50):
            client.predict(samples(2, seed + number), keep_ms=1000, max_members=1 + number % 3)
        server.context.kept.clear("end of the burst")
        gc.collect()

    with storm(models, feedback_requests=10, max_kept_requests=10) as server, AnytimeClient(server.url) as client:
        burst(0)
        tracemalloc.start()
        try:
            held = []
            for seed in range(1000, 6000, 1000):
                burst(seed)
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    # Windows and pools may still fill up in one burst; what leaks grows in all of them.
    assert min(np.diff(held)) < 50 * 1024, "a kilobyte for each request would be a leak"

"""The variants of the server that the benchmark of front-ends compares do what they stand for."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bottleneck
from benchmarks.bottleneck import Reading
from benchmarks.dense import CLASSES, write_dense
from benchmarks.dissected import MESSAGE, REPLY
from benchmarks.server import Wire, body, serving
from bundle import Bundle
from bundle.reference import running_average

VALUES = 4


@pytest.fixture
def dense(tmp_path: Path) -> Bundle:
    return write_dense(tmp_path / "models", VALUES)


def variant(name: str, tmp_path: Path, samples: np.ndarray):
    (tmp_path / "samples").write_bytes(samples.tobytes())
    module = ("benchmarks.dissected", name, str(tmp_path))
    return serving(tmp_path / "models", module, device="cpu", cpu_threads=1, max_batch_rows=2)


def test_the_engine_answers_what_is_in_shared_memory(dense: Bundle, tmp_path: Path):
    samples = np.random.default_rng(0).random((3, VALUES), np.float32)
    (expected,) = running_average(dense, samples)
    with variant("engine", tmp_path, samples), socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(tmp_path / "engine"))
        wire.settimeout(60)
        due = time.monotonic() + 60
        wire.sendall(b"".join(MESSAGE.pack(slot, due) for slot in (2, 0, 1)))
        replies, size = b"", REPLY.size + 4 * CLASSES
        while len(replies) < 3 * size:
            replies += wire.recv(size)
    for start in range(0, 3 * size, size):
        slot, members = REPLY.unpack_from(replies, start)
        logits = np.frombuffer(replies, np.float32, CLASSES, start + REPLY.size)
        assert members == 1
        np.testing.assert_allclose(logits, expected[slot], atol=1e-5)


def test_the_first_body_stands_for_all(dense: Bundle, tmp_path: Path):
    samples = np.random.default_rng(1).random((1, VALUES), np.float32)
    with variant("decoded", tmp_path, samples) as server:
        wire = Wire(server.address)
        first = wire.predict(body(samples, deadline_ms=60_000, outputs=["logits"]))
        second = wire.predict(b"{}")
        wire.close()
    assert (first.status, second.status) == (200, 200)
    assert first.document["predictions"] == second.document["predictions"]


def test_a_measurement_parts_the_event_loop_into_its_stages(tmp_path: Path):
    found = dict(bottleneck._measure(tmp_path, VALUES, connections=2, seconds=0.05, rounds=1))
    assert set(found) == {"json", "npy"}
    for costs in found.values():
        assert set(costs) == {"whole", "decoded", "engine", "hand-over"}
        whole = costs["whole"]
        assert min(whole.decode, whole.admit, whole.encode, whole.device) > 0
        assert costs["decoded"].decode == 0
        assert len(bottleneck._bounds(costs)) == 10


def test_costs_are_what_was_used_between_two_readings():
    """Whatever the process had used before: here half of its life in system calls, and of the load a quarter."""
    before = Reading(loop=4.0, device=9.0, user=200, system=200, stages=(1.0, 1.0, 2.0, 1.0))
    after = Reading(loop=5.0, device=9.5, user=275, system=225, stages=(1.1, 1.02, 2.05, 1.2))
    cost = bottleneck._parts(before, after, requests=1000, took=2.0)
    assert cost.rate == 500
    assert (cost.loop, cost.device, cost.kernel) == pytest.approx((1000, 500, 250))
    assert (cost.decode, cost.admit, cost.encode, cost.other) == pytest.approx((120, 30, 200, 400))


def test_a_load_too_short_for_a_tick_has_no_share_of_the_kernel():
    reading = Reading(loop=4.0, device=9.0, user=200, system=200, stages=(0.0,) * 4)
    assert bottleneck._parts(reading, replace(reading, loop=4.001), requests=1, took=1.0).kernel == 0


def test_a_reading_is_of_the_process_that_is_named():
    reading = Reading.of(os.getpid(), (1.0, 2.0))
    assert reading.loop > 0
    assert reading.user + reading.system > 0
    assert reading.stages == (1.0, 2.0)

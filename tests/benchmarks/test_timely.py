from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks import open_loop
from benchmarks.open_loop import Hit, Shot, bursts, fire, poisson
from benchmarks.recorded import MEMBERS, calibrated, images, record, write_recorded, write_teacher
from benchmarks.server import Running, Wire, body
from benchmarks.timely import LEAST, Schedule, measure, schedule
from benchmarks.timely_arms import ALL, DEMANDING, FIRST, OURS, SHALLOW, STAGES, STATIC, TEACHER, Arm, arms
from benchmarks.timely_picture import draw
from benchmarks.timely_table import Cell, pool, tables, verdict
from bundle.reference import running_average

NUMBERS = np.array([0, 3, 256, 299])


def test_a_recorded_bundle_answers_what_was_recorded(tmp_path: Path):
    recording = record(300, 0)
    bundle = write_recorded(tmp_path, recording, calibrated(recording, record(300, 1)))
    for k, logits in enumerate(running_average(bundle, images(NUMBERS))):
        np.testing.assert_allclose(logits, recording.answers()[k][NUMBERS], atol=1e-5)
    assert k == MEMBERS
    (alone,) = running_average(write_teacher(tmp_path, recording), images(NUMBERS))
    np.testing.assert_allclose(alone, recording.logits[-1][NUMBERS], atol=1e-5)


def test_the_ladder_leaves_a_choice():
    accuracy = record(20_000, 0).accuracy()
    assert 0.87 < accuracy[0] < 0.90
    assert accuracy[0] + 0.05 < accuracy[-2] < accuracy[-1] < 0.96


def test_arrivals_are_a_poisson_process():
    times = poisson(1000.0, 20.0, np.random.default_rng(0))
    assert (np.diff(times) > 0).all()
    assert times[-1] < 20
    # The number has the mean as its variance: five standard deviations.
    assert abs(len(times) - 20_000) < 5 * np.sqrt(20_000)


def test_at_light_load_arrivals_go_on_until_there_are_enough():
    light = poisson(1.0, 20.0, np.random.default_rng(0), at_least=60)
    assert len(light) == 60
    assert light[-1] > 20
    np.testing.assert_array_equal(light[light < 20], poisson(1.0, 20.0, np.random.default_rng(0)))
    assert len(poisson(1000.0, 20.0, np.random.default_rng(0), at_least=60)) > 19_000


def test_bursts_come_at_the_same_rate():
    times = bursts(1000.0, 16, 20.0, np.random.default_rng(0))
    instants, sizes = np.unique(times, return_counts=True)
    assert (sizes == 16).all()
    assert abs(len(instants) - 1250) < 5 * np.sqrt(1250)
    assert len(bursts(1.0, 16, 1.0, np.random.default_rng(0), at_least=60)) == 64
    np.testing.assert_array_equal(
        bursts(100.0, 1, 5.0, np.random.default_rng(0)), poisson(100.0, 5.0, np.random.default_rng(0))
    )


def requests(load: float, deadlines: str = "20", repetition: int = 0) -> bytes:
    return schedule(load, 100.0, deadlines, 3.0, repetition, samples=300).numbers[:LEAST].tobytes()


def test_no_two_cells_and_no_two_repetitions_ask_the_same():
    cells = [
        (load, deadlines, repetition)
        for load in (0.01, 0.02, 0.1)
        for deadlines in ("20", "50")
        for repetition in range(3)
    ]
    assert len({requests(*cell) for cell in cells}) == len(cells)
    assert requests(0.1) == requests(0.1), "but every arm is asked the same"


def test_a_cell_holds_enough_requests_at_any_load():
    asked = schedule(0.01, 100.0, "mixed", 3.0, 0, samples=300)
    assert len(asked.times) == LEAST
    assert set(asked.budgets_ms) == {20.0, 50.0, 100.0}


def test_a_cell_counts_what_was_right_and_what_was_in_time():
    arm = Arm("any", Running("http://nobody", 0), lambda ms: {"deadline_ms": ms})
    asked = Schedule(np.arange(5.0), np.array([0, 1, 0, 1, 0]), np.full(5, 20.0))

    def answer(index: int, seconds: float) -> Hit:
        content = {"predictions": [{"index": index}], "members_used": 4}
        return Hit(200, json.dumps(content).encode(), seconds, 0.001)

    def send(address: str, shots: Sequence[Shot]) -> list[Hit]:
        assert [json.loads(shot.compose(7.0))["deadline_ms"] for shot in shots] == [7.0] * 5
        assert [(shot.at, shot.deadline_s) for shot in shots] == [(float(at), 0.02) for at in range(5)]
        return [answer(3, 0.020), answer(8, 0.001), answer(3, 0.021), answer(3, 0.001), Hit(503, b"{}", 0.001, 0.002)]

    cell = measure(arm, 1.0, "20", asked, np.array([3, 8]), send)
    assert replace(cell, stolen=0.0) == Cell(
        arm="any",
        load=1.0,
        deadlines="20",
        sent=5,
        timely_right=2,
        timely=3,
        answered=4,
        refused=1,
        members=4.0,
        client_late_ms=2.0,
    ), "a deadline is met to the instant; who is right too late, or wrong in time, is not counted"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/never":
            self.server.held.wait()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    """Room for all connections of a test at once: who finds none comes again a second later."""


@pytest.fixture
def echo() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    server.held = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.held.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def shot(at: float, path: str, deadline_s: float = 60.0) -> Shot:
    """One that a busy machine answers in time, too, unless it is asked for by `deadline_s`."""
    return Shot(at, path, lambda left_ms: json.dumps({"at": at, "left_ms": left_ms}).encode(), deadline_s)


def test_every_shot_gets_its_own_answer_and_asks_for_what_is_left(echo: str):
    hits = fire(echo, [shot(index / 1000, "/") for index in range(20)])
    answers = [json.loads(hit.content) for hit in hits]
    assert [answer["at"] for answer in answers] == [index / 1000 for index in range(20)]
    for hit, answer in zip(hits, answers, strict=True):
        assert answer["left_ms"] == pytest.approx(60e3 - 1e3 * hit.sent_late_s)
        assert hit.seconds >= hit.sent_late_s


def test_latency_counts_from_the_schedule_however_late_the_client_is(echo: str):
    """A minute too late from the start; the answer comes at once."""
    (hit,) = fire(echo, [Shot(-60.0, "/", lambda left_ms: json.dumps(left_ms).encode(), 120.0)])
    assert hit.status == 200
    assert 59 < hit.sent_late_s <= hit.seconds
    assert json.loads(hit.content) == pytest.approx(120e3 - 1e3 * hit.sent_late_s)


def test_a_server_that_never_answers_is_given_up(echo: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_loop, "GIVE_UP_S", 0.01)
    lost, answered = fire(echo, [shot(0, "/never", deadline_s=0.05), shot(0, "/")])
    assert (lost.status, answered.status) == (0, 200)


def test_all_ways_to_serve_answer_with_what_they_stand_for(tmp_path: Path):
    recording = record(2000, 0)
    first, last = recording.answers()[[0, -1]].argmax(axis=2)
    # Where the teacher's answer is neither the first member's nor that of a mean over all stages.
    number = np.flatnonzero((first != last) & (recording.logits.mean(axis=0).argmax(axis=1) != last))[0]
    first, last = first[number], last[number]
    with arms(tmp_path, recording, record(300, 1), max_batch_rows=1) as (served, rate):
        assert rate > 0
        found = {}
        for arm in served:
            wire = Wire(arm.server.address)
            reply = wire.predict(body(images(np.array([number])), **arm.knobs(60_000.0))).document
            wire.close()
            found[arm.name] = reply["predictions"][0]["index"], reply.get("members_used")
    assert found == {
        OURS: (last, STAGES),
        SHALLOW: (first, 1),
        DEMANDING: (last, STAGES),
        FIRST: (first, None),
        ALL: (last, None),
        TEACHER: (last, None),
    }
    assert set(STATIC) < set(found)


def test_repetitions_are_pooled():
    cell = {"arm": "a", "load": 1.0, "deadlines": "20", "sent": 10, "timely": 8, "refused": 1, "client_late_ms": 1.0}
    cells = [
        Cell(**cell, timely_right=7, answered=9, members=2.0),
        Cell(**cell, timely_right=5, answered=3, members=6.0),
    ]
    pooled = pool(cells)["20", "a", 1.0]
    assert (pooled.sent, pooled.timely_right, pooled.answered) == (20, 12, 12)
    assert pooled.members == pytest.approx(3.0)


def cell(arm: str, timely_right: int, load: float = 1.0) -> Cell:
    return Cell(
        arm=arm,
        load=load,
        deadlines="20",
        sent=200,
        timely_right=timely_right,
        timely=190,
        answered=199,
        refused=1,
        members=2.5,
        client_late_ms=0.3,
    )


def test_the_table_has_a_column_for_each_arm_and_details_of_the_first():
    cells = pool([cell("a", 100), cell("b", 150)])
    last = tables(cells, ["a", "b"], [1.0]).splitlines()[-1]
    assert " ".join(last.split()) == "| 1 | 0.500 | 0.750 | 2.50 | 0.5 % | 95.48 % | 0.3 | 0.0 % |"


def test_the_verdict_is_over_the_best_static_choice_of_each_cell():
    cells = pool([cell("a", 180), cell("b", 180), cell("c", 20), cell("other", 200)])
    cells |= pool([cell("a", 150, 3.0), cell("b", 90, 3.0), cell("c", 153, 3.0), cell("other", 0, 3.0)])
    told = verdict(cells, "a", ["b", "c"])
    assert "in 1 of 2 cells" in told
    assert told.endswith("at deadline 20 and load 3: -1.5 points to `c`.")


def test_the_picture_has_a_style_for_each_arm(tmp_path: Path):
    names = [OURS, *STATIC, "another"]
    draw(tmp_path / "picture.png", pool([cell(name, 100) for name in names]), names, record(300, 0), "a machine")
    assert (tmp_path / "picture.png").stat().st_size > 1000

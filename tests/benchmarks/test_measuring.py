"""The parts of the benchmarks that a wrong number could hide in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.chain import pixels, write_chain
from benchmarks.ladder import Rung, deadlines_ms, summarise
from benchmarks.server import Reply, Wire, body, serving
from benchmarks.table import percentile, render
from bundle.reference import running_average


def test_the_chain_is_a_bundle_whose_members_need_each_other(tmp_path: Path):
    bundle = write_chain(tmp_path, members=3)
    prefixes = list(running_average(bundle, pixels(2)))
    assert [prefix.shape for prefix in prefixes] == [(2, 10)] * 3
    assert np.isfinite(prefixes).all()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.99, 10), (1.0, 10), (0.1, 1), (0.0, 1)])
def test_percentile_is_a_measured_value(share: float, expected: int):
    assert percentile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], share) == expected


def test_the_ladder_goes_from_too_short_to_generous():
    # Noise can make a longer prefix look faster: the ladder still goes up.
    assert deadlines_ms([10.0, 20.0, 19.0], reserve_ms=2.0) == [5.0, 12.0, 18.0, 24.0, 42.0]


def test_a_rung_counts_refusals_as_unanswered_and_lateness_for_all():
    document = {"members_used": 2, "predictions": [{"index": 1}, {"index": 0}]}
    replies = [Reply(200, document, 0.004), Reply(504, {}, 0.001), Reply(200, document, 0.006)]
    rung = Rung(5.0, replies, np.array([1, 1]))
    assert (len(rung.answered), rung.members, rung.accuracy) == (2, 2.0, 0.5)
    assert rung.met == pytest.approx(2 / 3)
    assert "2/3" in summarise([rung])


def test_tables_are_markdown():
    assert render(("a", "long"), [(1, 2), (333, 4)]) == "|   a | long |\n|----:|-----:|\n|   1 |    2 |\n| 333 |    4 |"


def test_a_server_process_is_ready_when_it_is_yielded_and_gone_afterwards(tmp_path: Path):
    write_chain(tmp_path, members=2)
    with serving(tmp_path, device="cpu", max_batch_rows=2) as server:
        wire = Wire(server.address)
        reply = wire.predict(body(pixels(1), max_members=1))
        wire.close()
        assert (reply.status, reply.document["members_used"]) == (200, 1)
        assert server.resident_mib() > 1
    assert not Path(f"/proc/{server.pid}").exists()

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.stolen import BEARABLE, TRIES, Stolen, undisturbed


def line(*ticks: int) -> str:
    return f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n"


def test_it_is_a_share_of_all_time_since_the_beginning(tmp_path: Path):
    stat = tmp_path / "stat"
    stat.write_text(line(100, 1, 50, 800, 0, 0, 9, 40, 0, 0))
    stolen = Stolen(stat)
    assert stolen.share() == 0
    # Of 200 ticks 30; time of guests is in that of users.
    stat.write_text(line(200, 1, 80, 840, 0, 0, 9, 70, 50, 0))
    assert stolen.share() == pytest.approx(30 / 200)


@pytest.mark.parametrize("content", ["", "cpu  1 2 3 4\n", "no numbers here\n"])
def test_a_system_that_does_not_say_takes_nothing(tmp_path: Path, content: str):
    stat = tmp_path / "stat"
    assert Stolen(stat).share() == 0
    stat.write_text(content)
    assert Stolen(stat).share() == 0


@dataclass
class Run:
    stolen: float


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ([BEARABLE, 0.0], 0),
        ([BEARABLE + 0.01, BEARABLE, 0.0], 1),
        ([0.3, 0.1, 0.2, 0.0], 1),
        ([0.1, 0.3, 0.2, 0.0], 0),
    ],
)
def test_a_disturbed_run_is_repeated_and_the_least_disturbed_kept(shares: list[float], kept: int):
    runs = [Run(share) for share in shares]
    coming = iter(runs)
    rests: list[int] = []
    assert undisturbed(lambda: next(coming), before=lambda: rests.append(1)) is runs[kept]
    assert len(rests) == len(shares) - len(list(coming))
    assert len(rests) == min(TRIES, 1 + next(k for k, share in enumerate(shares) if share <= BEARABLE))

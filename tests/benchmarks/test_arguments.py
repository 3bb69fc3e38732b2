"""What is out of range is said in a sentence and an exit status, before anything is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import benchmarks.__main__ as together
from benchmarks import (
    bottleneck,
    fused,
    lateness,
    overhead,
    parallel,
    picture,
    scaling,
    scheduler_cost,
    simulate,
    soak,
    timely,
    wire,
)
from benchmarks.arguments import program

Main = Callable[[Sequence[str]], object]


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (wire.main, "--rounds 0", "must be at least 1, not 0"),
        (wire.main, "--connections 8 0", "must be at least 1, not 0"),
        (wire.main, "--mosec nowhere", "there is no file nowhere"),
        (fused.main, "--rounds 0", "must be at least 1, not 0"),
        (soak.main, "--minutes 0.1", "must be at least 0.5, not 0.1"),
        (soak.main, "--minutes nan", "must be at least 0.5, not nan"),
        (lateness.main, "--requests 3", "must be at least 8, not 3"),
        (scheduler_cost.main, "--waiting 0", "must be at least 1, not 0"),
        (overhead.main, "--requests 0", "must be at least 1, not 0"),
        (picture.main, "--requests 0", "must be at least 1, not 0"),
        (parallel.main, "--threads 0", "must be at least 1, not 0"),
        (bottleneck.main, "--seconds 0", "must be at least 0.01, not 0"),
        (timely.main, "--loads 0", "must be at least 0.001, not 0"),
        (timely.main, "--repetitions two", "invalid whole number value: 'two'"),
        (simulate.main, "--requests 10", "must be at least 100, not 10"),
        (together.main, "--requests 10", "unrecognized arguments: --requests 10"),
    ],
)
def test_what_is_out_of_range_is_said(main: Main, arguments: str, told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(told)


def test_a_program_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").symlink_to(sys.executable)
    assert program("python") == tmp_path / "python", "a link to an interpreter is an environment"


def test_help_measures_nothing(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        scaling.main(["--help"])
    assert ended.value.code == 0
    assert "straight line" in capsys.readouterr().out


def test_models_are_found_from_any_folder(tmp_path: Path):
    asked = "from benchmarks.repository import MODELS; print((MODELS / 'digits/1/manifest.json').is_file())"
    root = str(Path(__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "True"


def test_only_who_asks_for_a_picture_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulate, "LOADS", (0.5,))
    simulate.main(["--requests", "100"])
    assert list(tmp_path.iterdir()) == []
    simulate.main(["--requests", "100", "--picture", "deep/simulation.png"])
    assert (tmp_path / "deep" / "simulation.png").stat().st_size > 1000

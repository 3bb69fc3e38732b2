from __future__ import annotations

import pytest

from benchmarks import halt


def test_steps_of_both_kinds_are_called_off_on_any_number_of_threads(capsys: pytest.CaptureFixture[str]):
    halt.main(["--runs", "3"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = [line for line in lines if line and line[0] in ("1", "2")]
    assert [(threads, member) for threads, member, *_ in table] == [("1", "0"), ("1", "6"), ("2", "0"), ("2", "6")]
    assert all(given_up.endswith("of 3") for *_, given_up in table)

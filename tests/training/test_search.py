"""The search: its objective by hand, and a search that is ended and goes on."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

from training.cli import main
from training.errors import BadConfig, Busy
from training.lock import alone
from training.progress import Quiet
from training.recipes import RECIPES
from training.search import FOLDER, area, command, search

TINY = ["threads=1", "teacher_epochs=1", "epochs=1", "rounds=2", "max_search=1", "batch_size=512", "bound_factor=20"]
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


class Heard(Quiet):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.mark.parametrize(
    ("costs", "accuracies", "expected"),
    [
        ([], [], 0.25),  # chance at any cost
        ([0.5], [0.9], 0.5 * 0.25 + 0.5 * 0.9),
        ([0.2, 0.6], [0.5, 0.8], 0.2 * 0.25 + 0.4 * 0.5 + 0.4 * 0.8),
        ([0.5, 1.5], [0.9, 1.0], 0.5 * 0.25 + 0.5 * 0.9),  # what costs more than the teacher helps no budget
        ([2.0], [1.0], 0.25),
    ],
)
def test_the_area_is_the_mean_accuracy_over_budgets_up_to_the_teachers_cost(costs, accuracies, expected):
    assert area(costs, accuracies, chance=0.25) == pytest.approx(expected)


@pytest.mark.slow
def test_a_search_goes_on_and_prints_a_command_that_trains_its_best(tmp_path: Path):
    def sought(trials: int) -> tuple[list[str], list[str]]:
        heard = Heard()
        lines = search(["ellipsoid", "--trials", str(trials), "--models", str(tmp_path), *SETTINGS], heard)
        return lines, [sentence.split(":")[0] for sentence in heard.sentences]

    first, told = sought(1)
    assert told == ["trial 0"]
    assert first[0].startswith("best of 1 trials is number 0: area 0.")
    second, told = sought(2)
    assert told == ["trial 1"], "the first is remembered"
    assert sought(2) == (second, []), "and now there is nothing to do"
    words = second[1].split()
    assert words[:2] == ["train-ensemble", "ellipsoid"]
    assert {word.split("=")[0] for word in words if "=" in word} >= {"gamma", "temperature", "connection", "epochs"}
    assert not (tmp_path / "ellipsoid" / FOLDER / "trial").exists()


def test_the_printed_command_is_for_a_shell():
    settings = ["data=my own.npz", "member_widths=3,4"]
    printed = command(RECIPES["npz"], settings)
    assert shlex.split(printed) == ["train-ensemble", "npz", "--set", settings[0], "--set", settings[1]]


def test_a_second_search_in_the_same_folder_is_refused(tmp_path: Path):
    with alone(tmp_path / "ellipsoid" / FOLDER), pytest.raises(Busy, match="Another search is going on in"):
        search(["ellipsoid", "--models", str(tmp_path), *SETTINGS], Quiet())


@pytest.mark.slow
def test_trials_of_other_member_widths_are_of_another_search(tmp_path: Path):
    def sought(widths: str) -> list[str]:
        heard = Heard()
        given = ["--trials", "1", "--models", str(tmp_path), *SETTINGS, "--set", f"member_widths={widths}"]
        search(["ellipsoid", *given], heard)
        return [sentence.split(":")[0] for sentence in heard.sentences]

    assert sought("4,4") == ["trial 0"]
    assert sought("9,9") == ["trial 0"], "not an answer that was found with others"
    assert sought("4,4") == []


def test_logits_have_no_cost_to_measure_an_area_by(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    arrays = {f"{part}_{name}": value for part in ("train", "test") for name, value in (("x", x), ("logits", x))}
    np.savez(tmp_path / "mine.npz", **arrays, train_y=x.argmax(1), test_y=x.argmax(1))
    given = ["npz", "--models", str(tmp_path), "--set", f"data={tmp_path / 'mine.npz'}"]
    with pytest.raises(BadConfig, match="A search needs a teacher whose cost is known"):
        search(given, Quiet())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digit"], "There is no recipe 'digit'"),
        (["digits", "--trials", "0"], "--trials 0 must be at least 1."),
        (["digits", "--set", "gamma=1"], "A search looks for gamma itself, so --set gamma would be ignored"),
        (["digits", "--set", "connection=none"], "A search looks for connection itself"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(["search", *words]) == 2
    assert capsys.readouterr().err.startswith(f"train-ensemble: {sentence}")

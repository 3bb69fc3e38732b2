"""`train-ensemble reproduce`: cells are kept and not repeated, tables follow from them, mistakes are one sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training import publisher
from training import picture
from training.cli import main
from training.config import RecipeConfig
from training.data.cifar import CIFAR10
from training.errors import BadConfig
from training.progress import Quiet
from training.recipes import RECIPES
from training.reproduce import EXPERIMENTS, figure2
from training.reproduce.bench import Bench
from training.reproduce.command import Plan, run
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.render import DOCUMENT, render, result_path
from training.reproduce.series import Series
from training.reproduce.store import Store
from training.reproduce.table import arm_of, markdown, percent, spread

ROOT = Path(__file__).parent.parent.parent
NAMES = [
    *(f"figure2-{name}" for name in ("digits", "ellipsoid", "cube", "dsa19", "google13", "cifar10", "cifar100")),
    "figure3",
    "table1",
    "theorem1",
    "ablate-connections",
    "ablate-gamma",
    "ablate-refinement",
    "find-wl",
    "compare-ensembles",
]

DIGITS = RECIPES["digits"].config


def cell(arm: str, seed: int = 0, recipe: str = "digits", **values) -> Cell:
    return Cell(
        arm=arm,
        recipe=recipe,
        seed=seed,
        values=values,
        config={},
        data_sha256=None,
        commit="0123456789abcdef",
        hardware="a machine",
        packages={},
        created="2026-01-01T00:00:00+00:00",
        seconds=60.0,
        command="train-ensemble reproduce fake --seeds 2",
    )


def points(*accuracies: float, each: float = 10.0, ms: float | None = None) -> list[Values]:
    timed = [{"ms": {"1": ms * k, "64": 10 * ms * k}} if ms else {} for k in range(1, len(accuracies) + 1)]
    return [
        {"flops": each * k, "accuracy": accuracy, **extra}
        for k, (accuracy, extra) in enumerate(zip(accuracies, timed, strict=True), start=1)
    ]


class Recorder:
    """An experiment of two arms that counts its runs and can be made to break."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.broken: tuple[str, int] | None = None
        self.experiment = Experiment(
            name="fake",
            summary="what is remembered",
            arms=(
                Arm(name="plain", recipe="digits", run=self.arm("plain")),
                Arm(name="short", recipe="digits", run=self.arm("short"), settings=self.settings),
            ),
            seeds=2,
            report=lambda cells: f"{len(cells)} cells",
        )
        self.epochs = 3

    def settings(self, config: RecipeConfig) -> RecipeConfig:
        return dataclasses.replace(config, epochs=self.epochs)

    def arm(self, name: str):
        def record(_bench: Bench, config: RecipeConfig) -> Values:
            if (name, config.seed) == self.broken:
                raise KeyboardInterrupt
            self.runs.append((name, config.seed))
            return {"epochs": config.epochs}

        return record

    def run(self, docs: Path, seeds: int = 2, *assignments: str) -> list[tuple[str, int]]:
        self.runs.clear()
        run(self.experiment, Plan(seeds, None, assignments), docs, Quiet())
        return list(self.runs)


def test_what_is_finished_is_not_run_again(tmp_path: Path):
    recorder = Recorder()
    recorder.broken = ("short", 1)
    with pytest.raises(KeyboardInterrupt):
        recorder.run(tmp_path)
    assert recorder.runs == [("plain", 0), ("short", 0), ("plain", 1)]
    recorder.broken = None
    assert recorder.run(tmp_path) == [("short", 1)], "only what the interrupted run left"
    assert recorder.run(tmp_path) == []
    assert recorder.run(tmp_path, 3) == [("plain", 2), ("short", 2)], "more seeds"
    assert not list(tmp_path.rglob("*.partial"))


def test_another_setting_makes_a_result_stale_and_replaces_it(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1)
    recorder.epochs = 5
    assert recorder.run(tmp_path, 1) == [("short", 0)]
    cells = Store(result_path(tmp_path, recorder.experiment)).cells
    assert [(cell.arm, cell.values["epochs"]) for cell in cells] == [("plain", DIGITS.epochs), ("short", 5)]


def test_another_file_of_the_same_name_makes_a_result_stale_and_replaces_it(tmp_path: Path):
    recorder, archive = Recorder(), tmp_path / "mine.npz"
    arm = Arm(name="plain", recipe="npz", run=recorder.arm("plain"))
    recorder.experiment = dataclasses.replace(recorder.experiment, arms=(arm,))

    def rerun(samples: float, logits: float) -> bool:
        x, y = np.full((20, 3), samples, np.float32), np.arange(20) % 2
        parts = {"x": x, "y": y, "logits": np.full((20, 2), logits)}
        np.savez(archive, **{f"{part}_{name}": value for part in ("train", "test") for name, value in parts.items()})
        return bool(recorder.run(tmp_path, 1, f"data={archive}"))

    assert rerun(1.0, 0.0)
    assert not rerun(1.0, 0.0), "the same content"
    assert rerun(2.0, 0.0)
    assert rerun(2.0, 0.5), "another teacher"
    path = result_path(tmp_path, recorder.experiment)
    (kept,) = json.loads(path.read_text())["cells"]
    assert None not in {kept["data_sha256"], kept["teacher_sha256"]}
    path.write_text(json.dumps({"cells": [{**kept, "data_sha256": None, "teacher_sha256": None}]}))
    assert not rerun(3.0, 0.0), "of an older result nobody knows what it was measured on"


def test_a_result_says_how_it_was_made_but_not_where(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1, "epochs=7", "member_widths=3,4")
    (found,) = [cell for cell in Store(result_path(tmp_path, recorder.experiment)).cells if cell.arm == "plain"]
    assert found.command == "train-ensemble reproduce fake --seeds 1 --set epochs=7 --set member_widths=3,4"
    assert (found.config["epochs"], found.config["seed"], found.data_sha256) == (7, 0, None)
    assert {"torch", "numpy", "python"} <= found.packages.keys()
    assert "cores" in found.hardware
    assert str(tmp_path) not in result_path(tmp_path, recorder.experiment).read_text()


def test_one_recipe_can_be_run_alone_and_the_others_results_stay(tmp_path: Path):
    recorder = Recorder()
    other = Arm(name="plain", recipe="cube", run=recorder.arm("cube"))
    recorder.experiment = dataclasses.replace(recorder.experiment, arms=(*recorder.experiment.arms, other))
    recorder.run(tmp_path, 1)
    recorder.epochs = 4
    recorder.runs.clear()
    run(recorder.experiment, Plan(2, "cube"), tmp_path, Quiet())
    assert recorder.runs == [("cube", 1)]
    cells = Store(result_path(tmp_path, recorder.experiment)).cells
    assert [(cell.recipe, cell.arm, cell.seed) for cell in cells] == [
        ("digits", "plain", 0),
        ("digits", "short", 0),
        ("cube", "plain", 0),
        ("cube", "plain", 1),
    ]
    assert cells[-1].command == "train-ensemble reproduce fake --seeds 2 --recipe cube"


def test_two_commands_side_by_side_keep_each_others_results(tmp_path: Path):
    path = tmp_path / "fake.json"
    one, two = Store(path), Store(path)
    one.add(cell("plain", recipe="cube"))
    two.add(cell("plain", recipe="digits"))
    one.keep([("digits", "plain"), ("cube", "plain")])
    assert [kept.recipe for kept in Store(path).cells] == ["digits", "cube"]


def test_arms_that_an_experiment_no_longer_has_are_dropped(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1)
    recorder.experiment = dataclasses.replace(recorder.experiment, arms=recorder.experiment.arms[1:])
    recorder.run(tmp_path, 1)
    assert [cell.arm for cell in Store(result_path(tmp_path, recorder.experiment)).cells] == ["short"]


def test_the_list_explains_every_experiment_in_a_line(capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line) < 140 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "An experiment is needed; there are: figure2-digits, "),
        (["figure4"], "There is no experiment 'figure4'; there are: figure2-digits, "),
        (["theorem1", "--seeds", "0"], "--seeds 0 must be at least 1."),
        (["theorem1", "--recipe", "npz"], "theorem1 has no arm of recipe 'npz', only of: digits, ellipsoid, cube."),
        (["theorem1", "--set", "seed=7"], "--set seed would be ignored: --seeds K runs the seeds 0 to K - 1."),
        (["theorem1", "--set", "gama=1"], "There is no setting 'gama'; there are: name, seed,"),
        (["figure2-cifar10", "--set", "archives=nowhere", "--set", "url=file:///nowhere"], "There is no nowhere/"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["reproduce", *arguments, "--docs", str(tmp_path / "docs")]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"train-ensemble: {sentence}")
    assert output.err.count("\n") == 1
    assert not (tmp_path / "docs").exists()


def test_a_damaged_result_is_named(tmp_path: Path):
    path = tmp_path / "damaged.json"
    path.write_text('{"cells": [{"arm": "x"}]}')
    with pytest.raises(BadConfig, match=r"damaged\.json does not hold results of this program"):
        Store(path)


def test_a_damaged_result_of_another_experiment_stops_the_command_before_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "figure3.json").write_text("{")
    given = ["--set", "archives=nowhere", "--set", "url=file:///nowhere"]
    assert main(["reproduce", "figure2-cifar10", "--docs", str(tmp_path), *given]) == 2
    assert "figure3.json does not hold results of this program" in capsys.readouterr().err, "not that no archive is had"


def test_the_committed_document_is_what_its_results_give(tmp_path: Path):
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "results", dirs_exist_ok=True)
    written = render(tmp_path, list(EXPERIMENTS.values())).read_text()
    assert written == (ROOT / "docs" / DOCUMENT).read_text()


def test_a_result_of_other_settings_than_the_recipes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder()
    recorder.run(tmp_path, 1, "epochs=7")
    assert "other settings" not in render(tmp_path, [recorder.experiment]).read_text(), "its command says so"
    changed = dataclasses.replace(RECIPES["digits"], config=dataclasses.replace(DIGITS, batch_size=13))
    monkeypatch.setitem(RECIPES, "digits", changed)
    assert "other settings than the recipe has now: digits." in render(tmp_path, [recorder.experiment]).read_text()


def test_a_mean_over_runs_of_different_settings_is_told(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 2)
    document = render(tmp_path, [recorder.experiment])
    assert "same settings" not in document.read_text()
    recorder.run(tmp_path, 1, "batch_size=13")
    render(tmp_path, [recorder.experiment])
    assert "Not all of these runs are of the same settings: digits." in document.read_text()
    recorder.run(tmp_path, 2, "batch_size=13")
    render(tmp_path, [recorder.experiment])
    assert "same settings" not in document.read_text(), "all seeds again"


def test_arms_of_different_commands_are_told_where_there_is_one_seed(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1)
    recorder.broken = ("short", 0)
    with pytest.raises(KeyboardInterrupt):
        recorder.run(tmp_path, 1, "batch_size=13")
    assert "Not all of these runs are of" in render(tmp_path, [recorder.experiment]).read_text()


def test_results_of_other_data_side_by_side_are_no_mixture(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1)
    recorder.run(tmp_path, 1, "name=mine", "batch_size=13")
    assert "same settings" not in render(tmp_path, [recorder.experiment]).read_text()


def test_a_result_of_a_setting_that_is_no_more_is_told_as_aged(tmp_path: Path):
    recorder = Recorder()
    recorder.run(tmp_path, 1, "batch_size=13")
    path = result_path(tmp_path, recorder.experiment)
    path.write_text(path.read_text().replace("--set batch_size", "--set once_was"))
    assert "other settings than the recipe has now: digits." in render(tmp_path, [recorder.experiment]).read_text()


def test_figure_2_has_no_arm_twice():
    names = {name: [arm.name for arm in EXPERIMENTS[f"figure2-{name}"].arms] for name in ("digits", "cube")}
    assert len(names["digits"]) == 7
    assert names["digits"][1] == figure2.REFINED
    unrefined = dataclasses.replace(DIGITS, refine_epochs=0)
    assert figure2.own_arm(unrefined) == figure2.GREEDY
    assert figure2.own_arm(dataclasses.replace(unrefined, connection="none")) == figure2.REWEIGHTED
    assert all(len(set(arms)) == len(arms) for arms in names.values())


def test_spread_and_tables():
    assert (spread([]), spread([1.5]), spread([1.0, 3.0])) == ("—", "1.50", "2.00 ± 1.41")
    assert percent([0.5, 0.5], 0) == "50 ± 0"
    assert markdown(["a", "bc"], [["xyz", 1]]) == "| a   | bc |\n|-----|---:|\n| xyz |  1 |"


def test_a_row_of_one_cell_names_its_seed_where_there_are_several():
    one, two = cell("residual", 0), cell("residual", 1)
    assert arm_of(one, [one]) == "residual"
    assert [arm_of(row, [one, two]) for row in (one, two)] == ["residual, seed 0", "residual, seed 1"]


def test_gains_are_paired_by_seed():
    cells = [
        cell("one", seed, points=points(accuracy, accuracy + 0.1)) for seed, accuracy in enumerate((0.5, 0.7, 0.9))
    ] + [cell("two", seed, points=points(0.6)) for seed in (0, 2)]
    series = Series(cells)
    assert series.gains("one", 1, "two", 0) == pytest.approx([0.0, 0.4])
    assert series.gains("two", 1, "one", 1) == []
    assert (series.longest("one"), series.longest("two"), series.longest("three")) == (2, 1, 0)


def test_by_time_a_line_joins_the_single_models_that_no_faster_one_beats():
    costs = [(3.0, 0.90), (1.0, 0.80), (2.0, 0.95), (2.5, 0.85), (4.0, 0.96)]
    timed = [{"flops": k, "accuracy": right, "ms": {"1": ms, "64": 1.0}} for k, (ms, right) in enumerate(costs)]
    cells = [cell("many", points=timed), cell("one", points=timed[:1])]
    _, (axes,) = picture.panels()
    Series(cells).curve(axes, "many", "blue", "s--", timed=True, frontier=True)
    markers, line, _ = axes.lines[0], axes.lines[-2], axes.lines[-1]
    assert list(markers.get_xdata()) == [1.0, 2.0, 2.5, 3.0, 4.0], "every model is drawn"
    assert list(line.get_xdata()) == [1.0, 2.0, 4.0]
    Series(cells).curve(axes, "one", "red", "x-")
    ring = axes.lines[-1]
    assert (ring.get_label(), ring.get_marker(), ring.get_markerfacecolor()) == ("one", "o", "none")


def figure2_cells() -> list[Cell]:
    stopped = "round 2 found no weak learner"
    return [
        one
        for seed in (0, 1)
        for one in (
            cell(figure2.TEACHER, seed, points=points(0.99, each=100, ms=1.0)),
            cell(figure2.REFINED, seed, points=points(0.90, 0.95 + seed / 50, ms=0.25), rounds=[], stopped=None),
            cell(figure2.SINGLE, seed, points=points(0.91, 0.955)),
            cell(figure2.INDEPENDENT, seed, points=points(0.89, 0.90)),
            cell(figure2.PAPER, seed, points=points(0.80), rounds=[], stopped=stopped),
        )
    ]


def test_figure_2_tells_costs_spreads_and_gaps(tmp_path: Path):
    told = figure2.report(figure2_cells())
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in told.splitlines() if "|" in line]
    assert [figure2.REFINED, "2", "0.200", "96.00 ± 1.41", "0.500 ± 0.000", "5.000 ± 0.000", "2"] in rows
    assert ["1", "-1.00 ± 0.00", "1.00 ± 0.00", "no"] in rows
    assert ["2", "0.50 ± 1.41", "6.00 ± 1.41", "yes"] in rows
    assert "B-DISTIL paper, seed 1, ended with 1 members: round 2 found no weak learner." in told
    figure2.draw(figure2_cells(), tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_figure_2_on_cifar10_from_its_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The command for a GPU, at the size of a CPU."""
    archive = publisher.tar_gz(tmp_path / "a" / CIFAR10.archive.file, publisher.cifar10_files(each=20))
    given = [f"archives={archive.parent}", f"checksum={publisher.checksum(archive)}", *CPU_SIZED]
    arguments = [part for assignment in given for part in ("--set", assignment)]
    assert main(["reproduce", "figure2-cifar10", "--seeds", "1", "--docs", str(tmp_path / "docs"), *arguments]) == 0
    capsys.readouterr()
    cells = json.loads((tmp_path / "docs" / "results" / "figure2-cifar10.json").read_text())["cells"]
    assert [found["arm"] for found in cells] == [arm.name for arm in EXPERIMENTS["figure2-cifar10"].arms]
    by_arm = {found["arm"]: found["values"]["points"] for found in cells}
    for arm in (figure2.REFINED, figure2.SINGLE, figure2.INDEPENDENT, figure2.REWEIGHTED):
        assert len(by_arm[arm]) == 2, arm
        costs = [point["flops"] for point in by_arm[arm]]
        assert costs == sorted(costs)
    assert all(set(point["ms"]) == {"1", "64"} for found in by_arm.values() for point in found)
    assert (tmp_path / "docs" / "results" / "figure2-cifar10.png").read_bytes().startswith(b"\x89PNG")
    document = (tmp_path / "docs" / DOCUMENT).read_text()
    assert "## figure2-cifar10" in document
    assert str(tmp_path) not in document


CPU_SIZED = (
    "threads=1",
    "rounds=2",
    "max_search=1",
    "epochs=1",
    "refine_epochs=1",
    "teacher_epochs=1",
    "refine_epochs=1",
    "batch_size=64",
    "teacher_widths=2,4",
    "teacher_blocks=1",
    "member_widths=2,3",
    "bound_factor=20",
)

"""What the experiments measure, on the toy problem and by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.training import publisher
from tests.training.test_reproduce import cell, points
from tests.training.toy import toy_game
from training import Config
from training.baselines import resched
from training.bdistil import run_rounds
from training.cli import main
from training.data import daily_sports
from training.ensemble import Ensemble
from training.progress import Quiet
from training.recipes import RECIPES
from training.reproduce import (
    EXPERIMENTS,
    ablate_connections,
    ablate_gamma,
    ablate_refinement,
    arms,
    compare_ensembles,
    figure3,
    find_wl,
    table1,
    theorem1,
)
from training.reproduce.bench import Bench
from training.reproduce.command import Plan
from training.reproduce.prefixes import baseline_points, ensemble_points
from training.reproduce.timing import BATCHES, Stopwatch, total

DIGITS = RECIPES["digits"].config


def test_paper_mode_is_the_papers_with_the_recipes_networks():
    recipe = dataclasses.replace(DIGITS, refine_epochs=12)
    literal, plain = arms.paper(recipe), Config(name="plain")
    for key in arms.PAPER_KEYS:
        assert getattr(literal, key) == getattr(plain, key), key
    assert (literal.eta, literal.eta_rule, literal.task_loss, literal.on_failure) == (1.0, "literal", "member", "stop")
    assert (literal.epochs, literal.refine_epochs) == (recipe.epochs + 12, 0), "the same passes in all"
    assert (literal.member_widths, literal.gamma, literal.rounds) == (recipe.member_widths, recipe.gamma, recipe.rounds)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_arm_can_be_set_up(name: str):
    experiment = EXPERIMENTS[name]
    for arm in experiment.arms:
        config = arm.settings(RECIPES[arm.recipe].config)
        assert config.seed == 0
        assert config.name == arm.recipe
    assert len({(arm.recipe, arm.name) for arm in experiment.arms}) == len(experiment.arms)


def test_a_single_model_may_be_as_deep_as_the_teacher_half_as_deep_or_a_member(tmp_path: Path):
    bench = Bench(RECIPES["digits"], dataclasses.replace(DIGITS, teacher_blocks=4), tmp_path, Quiet())
    assert [family.name for family in arms.families(bench)] == ["conv-8-16x4", "conv-8-16x2", "conv-2-4"]
    bench.prepared = dataclasses.replace(bench.prepared, teacher=nn.Identity())
    assert [family.name for family in arms.families(bench)] == ["conv-8-16x4", "conv-8-16x2", "conv-2-4"]


def test_prefixes_of_an_ensemble_are_the_means_of_their_members(tmp_path: Path):
    game = toy_game(tmp_path, rounds=2, epochs=1, connection="dense")
    ensemble = run_rounds(game).ensemble
    found = ensemble_points(game, ensemble, None)
    assert [set(point) for point in found] == [{"flops", "accuracy"}] * 2
    # S / t is what the running average lacks; on the training part both ways must agree.
    average_NL = ensemble.teacher_train_NL + ensemble.S_train_NL / 2
    training = dataclasses.replace(game.data, test=game.data.train)
    again = ensemble_points(
        dataclasses.replace(game, data=training, target=dataclasses.replace(game.target, test_NL=game.target.train_NL)),
        ensemble,
        None,
    )
    assert again[1]["accuracy"] == pytest.approx((average_NL.argmax(1).numpy() == game.data.train.y).mean())
    assert found[0]["flops"] < found[1]["flops"]


class Counting(Stopwatch):
    """Counts what is timed, and the outputs of each graph."""

    def __init__(self, x) -> None:
        super().__init__(x)
        self.timed, self.outputs = 0, list[int]()

    def times(self, content, inputs):
        self.timed += 1
        self.outputs.append(len(onnx.load_from_string(content).graph.output))
        return {str(batch): float(batch) for batch in BATCHES}


def test_one_structure_is_timed_once_and_an_answer_takes_the_sum(tmp_path: Path):
    game = toy_game(tmp_path, epochs=1)
    stopwatch = Counting(game.data.test.x)
    found = baseline_points(game, resched(game, game.classes[0], 3), stopwatch)
    assert stopwatch.timed == 1
    assert [point["ms"] for point in found] == [{"1": k * 1.0, "64": k * 64.0} for k in (1, 2, 3)]
    assert total([]) == {"1": 0, "64": 0}


@pytest.mark.parametrize("connection", ["residual", "dense"])
def test_a_member_is_timed_with_its_taps_where_another_reads_it(connection: str, tmp_path: Path):
    game = toy_game(tmp_path, rounds=3, epochs=1, connection=connection)
    ensemble = run_rounds(game).ensemble
    stages = len(ensemble.members[0].network.stages)
    stopwatch = Counting(game.data.test.x)
    stopwatch.prefixes(ensemble)
    assert stopwatch.outputs == [1 + stages, 1 + stages, 1], "as in the bundle: nobody reads the last member"


@pytest.mark.parametrize("recipe", ["dsa19", "google13"])
def test_figure_3_counts_sequences_without_the_archive(recipe: str, tmp_path: Path):
    config = dataclasses.replace(RECIPES[recipe].config, rounds=2, connection="dense", first_expansion=1)
    values = figure3.run(Bench(RECIPES[recipe], config, tmp_path, Quiet()), config)
    first, second = values["rounds"]
    assert first["connections"] == 0
    assert 0 < second["connections"] == second["flops"] - first["flops"]
    assert first["flops"] < values["teacher_flops"]
    assert all(values[key][str(batch)] > 0 for key in ("ms", "ms_unconnected") for batch in BATCHES)


def test_figure_3_is_reproduced_without_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "figure3", "--recipe", "dsa19", "--docs", "docs", "--set", "rounds=2"]) == 0
    results = json.loads(Path("docs/results/figure3.json").read_text())["cells"]
    assert [(one["recipe"], one["data_sha256"]) for one in results] == [("dsa19", None)] * len(figure3.KINDS)


def test_figure_3_and_find_wl_tell_seeds_apart():
    rounds = [{"flops": 10, "connections": 0}, {"flops": 11, "connections": 1}]
    ms = {str(batch): 1.0 for batch in BATCHES}
    flops = {"rounds": rounds, "teacher_flops": 100, "ms": ms, "ms_unconnected": ms}
    outcome = {"definition1": True, "accepted": False, "edge": 1.0, "eq7_share": 0.5, "reason": "why"}
    tried = {"tried": {"r = 0": [outcome]}, "controls": {"noise": outcome}}
    for report, values in ((figure3.report, flops), (find_wl.report, tried)):
        told = report([cell("one", seed, **values) for seed in (0, 1)])
        assert "one, seed 0 " in told
        assert "one, seed 1 " in told
        assert ", seed" not in report([cell("one", **values)])


def test_theorem_1_follows_the_residual_round_by_round(tmp_path: Path):
    game = toy_game(tmp_path, rounds=3, epochs=1)
    ensemble = run_rounds(game).ensemble
    rounds = theorem1.follow(game, ensemble)
    assert rounds[-1]["sup_norm"] == pytest.approx(float(ensemble.S_train_NL.abs().max()) / 3)
    assert [one["sup_norm"] <= one["G"] for one in rounds] == [True] * 3, "a mean is within its largest part"
    assert rounds[0]["G"] <= rounds[1]["G"] <= rounds[2]["G"]
    assert rounds[0]["eq7_share"] is None, "every pair is a tie"
    assert rounds[1]["smallest_edge"] == pytest.approx(ensemble.members[1].round.smallest_edge)
    assert rounds[2]["bounds"]["eq7"] == pytest.approx(rounds[2]["G"] / 3)


def test_the_adversary_beats_eq_10_and_no_other_bound():
    played = theorem1.run_adversary(None, None)["rounds"]
    assert all(one["paper_eta"] > one["bounds"]["paper"] for one in played)
    assert all(one["paper_eta"] <= one["bounds"]["paper_eta"] for one in played)
    assert all(one["best_eta"] <= one["bounds"]["best_eta"] for one in played)
    told = theorem1.report([cell(theorem1.ADVERSARY, samples=50_000, rounds=played)])
    assert "+44 %" in told


def one_member(game) -> Ensemble:
    ensemble = run_rounds(dataclasses.replace(game, config=dataclasses.replace(game.config, rounds=1))).ensemble
    assert len(ensemble) == 1
    return ensemble


def test_find_wl_controls_only_let_the_teacher_in(tmp_path: Path):
    game = toy_game(tmp_path, epochs=2)
    ensemble = one_member(game)
    verdicts = find_wl.control_verdicts(game, ensemble)
    assert {name: verdict.accepted for name, verdict in verdicts.items()} == {
        "constant": False,
        "noise": False,
        "teacher": True,
    }
    assert verdicts["teacher"].smallest_edge == pytest.approx(0, abs=1e-9)


def test_find_wl_constant_control_meets_definition_1_without_looking(tmp_path: Path):
    """Pitfall 5: with a residual that asks each label for one direction, the control has a positive edge everywhere."""
    game = toy_game(tmp_path, epochs=2)
    ensemble = one_member(game)
    ensemble.S_train_NL = torch.tensor([[1.0, -0.5, -0.5]]).double().expand(len(game.data.train), 3)
    verdict = find_wl.control_verdicts(game, ensemble)["constant"]
    assert verdict.smallest_edge > 0
    assert not verdict.accepted


def test_find_wl_never_goes_on_from_another_architectures_first_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    base = dataclasses.replace(DIGITS, teacher_epochs=1)
    bench = Bench(RECIPES["digits"], base, tmp_path, Quiet())
    config = dataclasses.replace(find_wl.settings(base), epochs=1, max_search=1, bound_factor=20.0)
    monkeypatch.setattr(find_wl, "INITS", 1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(find_wl, "judge_trial", interrupted)
        find_wl.run("convolutional").run(bench, config)
    found = find_wl.run("fully connected").run(bench, config)
    assert [len(tried) for tried in found["tried"].values()] == [1, 1]


def test_find_wl_trains_every_init_anew(tmp_path: Path):
    game = toy_game(tmp_path, epochs=1, max_search=find_wl.INITS, connection="residual", first_expansion=0)
    ensemble = one_member(game)
    edges = [find_wl.judge_trial(game, ensemble, 1, init).smallest_edge for init in (0, 1, 0)]
    assert edges[0] != edges[1]
    assert edges[0] == edges[2]


def rounds(*accepted: bool) -> list[dict[str, object]]:
    return [
        {"weak_learner": one, "eq7_share": 0.25 + one / 2, "smallest_edge": one - 0.5, "attempts": 2 - one}
        for one in accepted
    ]


def test_ablate_gamma_leaves_the_first_round_out():
    name = ablate_gamma._name(ablate_gamma.MEMBER, 0.01)
    told = ablate_gamma.report([cell(name, points=points(0.5, 0.6, 0.7), rounds=rounds(True, True, False))])
    (row,) = [line for line in told.splitlines() if line.startswith("| paper")]
    cells = [part.strip() for part in row.strip("|").split("|")]
    assert cells == ["paper", "0.01", "3.0", "50", "0.50", "-0.500", "1.5", "70.00"]


def test_ablate_gamma_has_nothing_to_say_of_a_run_that_ended_at_once(tmp_path: Path):
    name = ablate_gamma._name(ablate_gamma.AVERAGE, ablate_gamma.OFF)
    found = [cell(name, points=points(0.5), rounds=rounds(True))]
    assert "—" in ablate_gamma.report(found)
    ablate_gamma.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()


def test_ablate_connections_tells_gain_cost_and_lost_parallelism(tmp_path: Path):
    cells = [
        cell("none", points=points(0.80, 0.90, ms=1.0), sources=[[], []]),
        cell("dense", points=points(0.80, 0.95, each=11, ms=1.5), sources=[[], [0]]),
    ]
    told = ablate_connections.report(cells)
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in told.splitlines()]
    assert ["digits", "dense", "95.00", "5.00", "2.50", "1.10", "1.50", "1.50", "2", "1"] in lines
    ablate_connections.draw(cells, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()


def test_ablate_connections_compares_runs_that_ended_early():
    cells = [
        *(cell("none", seed, points=points(0.80, 0.90), sources=[[], []]) for seed in (0, 1, 2)),
        cell("dense", 0, points=points(0.80, 0.96, each=11), sources=[[], [0]]),
        cell("dense", 1, points=points(0.85, each=11), sources=[[]]),
        cell("dense", 2, points=[], sources=[]),
    ]
    lines = [
        [part.strip() for part in line.strip("|").split("|")] for line in ablate_connections.report(cells).splitlines()
    ]
    # The mean gain is 3 points where both have two members, 5 where one has.
    ours = ["90.50 ± 7.78", "0.50 ± 7.78", "4.00 ± 1.41", "0.83 ± 0.39", "—", "—", "2", "2"]
    assert ["digits", "dense", *ours] in lines


def judged(*accuracies: float, validation: float, each: float = 10.0) -> list[dict[str, object]]:
    return [{**point, "validation": validation} for point in points(*accuracies, each=each)]


def test_ablate_refinement_compares_each_change_with_the_recipe_at_its_budgets(tmp_path: Path):
    cells = [
        cell(ablate_refinement.RECIPE, points=judged(0.8, 0.9, validation=0.8), chance=0.1),
        cell("labels", points=judged(0.82, 0.89, validation=0.81), chance=0.1),
        cell("wider members", points=judged(0.9, 0.95, each=15, validation=0.9), chance=0.1),
    ]
    told = ablate_refinement.report(cells)
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in told.splitlines()]
    # Of two budgets, half of them pay for nothing: (0.1 + 0.8) / 2.
    assert ["digits", "the recipe", "2", "80.00", "85.00", "90.00", "45.00", "45.00", "1"] in lines
    assert ["digits", "labels", "2", "+2.00", "+0.50", "-1.00", "+1.00", "+0.50", "1"] in lines
    # Three quarters of the budgets pay for nothing, and none for both: (3 * 0.1 + 0.9) / 4.
    assert ["digits", "wider members", "2", "+10.00", "+7.50", "+5.00", "-15.00", "-15.00", "1"] in lines
    ablate_refinement.draw(cells, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()


@pytest.mark.parametrize("data_set", ablate_refinement.DATA_SETS)
def test_members_of_another_size_cost_no_more_than_the_recipes(data_set: str, tmp_path: Path):
    base = dataclasses.replace(RECIPES[data_set].config, teacher_epochs=1)
    bench = Bench(RECIPES[data_set], base, tmp_path, Quiet())
    with bench.game(base) as game:
        *_, whole = arms.budgets_of(game)
    for name in ablate_refinement.SIZES[data_set]:
        config = ablate_refinement.CHANGES[name].settings(base)
        with bench.game(config, classes=ablate_refinement.classes_of(bench, config)) as game:
            budgets = arms.budgets_of(game)
        assert 0.75 * whole < budgets[-1] <= whole
        assert len(budgets) == config.rounds


def test_ablate_refinement_trains_members_of_the_size_that_its_settings_say(tmp_path: Path):
    base = dataclasses.replace(DIGITS, teacher_epochs=1, epochs=1, refine_epochs=1)
    bench = Bench(RECIPES["digits"], base, tmp_path, Quiet())
    config = dataclasses.replace(ablate_refinement.CHANGES["narrower members"].settings(base), rounds=2)
    narrow = ablate_refinement.run(bench, config)
    assert [point["flops"] for point in narrow["points"]] == [6720, 13552]
    assert narrow["refinement"]["epochs"] == 1
    assert all(0.1 < point["validation"] <= 1 for point in narrow["points"])


def test_compare_ensembles_gives_every_method_the_same_budget(tmp_path: Path):
    cells = [
        cell(compare_ensembles.BDISTIL, points=points(0.8, 0.9, ms=1.0)),
        cell("independent", points=points(0.7, 0.75)),
        cell("multi-exit", points=points(0.85, 0.86, 0.87, each=6)),
    ]
    told = compare_ensembles.report(cells)
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in told.splitlines()]
    assert ["digits", "1", "80.00", "70.00", "—", "—", "85.00"] in lines, "6 of 10 FLOPs; the next exit costs 12"
    assert ["digits", "2", "90.00", "75.00", "—", "—", "87.00"] in lines
    assert ["digits", "multi-exit", "3", "0.90", "—", "—"] in lines
    compare_ensembles.draw(cells, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").is_file()


def test_compare_ensembles_holds_all_methods_to_the_seeds_that_bdistil_has():
    cells = [
        cell(compare_ensembles.BDISTIL, 0, points=points(0.8, 0.9)),
        cell(compare_ensembles.BDISTIL, 1, points=points(0.6)),
        *(cell("independent", seed, points=points(right, right)) for seed, right in enumerate((0.7, 0.5))),
    ]
    told = compare_ensembles.report(cells)
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in told.splitlines()]
    assert ["digits", "1", "70.00 ± 14.14", "60.00 ± 14.14", "—", "—", "—"] in lines
    assert ["digits", "2", "90.00", "70.00", "—", "—", "—"] in lines, "nobody is asked for a second answer on seed 1"


def instants(*shares: tuple[float, float, float]) -> list[dict[str, object]]:
    return [{"accuracy": accuracy, "exited": exited, "forced": forced} for accuracy, exited, forced in shares]


def test_table_1_stands_beside_the_papers():
    cells = [
        cell(
            table1.BDISTIL,
            seed,
            recipe="dsa19",
            threshold=0.9,
            instants=instants(*shares),
            teacher_accuracy=0.9,
            mistakes={"up for down": 0.01 * seed, "to for fro": 0.004},
        )
        for seed, shares in enumerate(
            (
                ((0.80, 0.5, 0.70), (0.82, 0.6, 0.78), (0.83, 1.0, 0.86)),
                ((0.84, 0.5, 0.74), (0.86, 0.6, 0.80), (0.87, 1.0, 0.88)),
            )
        )
    ]
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in table1.report(cells).splitlines()]
    ours = ["82.00 ± 2.83", "0.50 ± 0.00", "84.00 ± 2.83", "0.60 ± 0.00", "87.00 ± 1.41", "2"]
    assert ["dsa19", "B-DISTIL", *ours] in lines
    assert ["dsa19", "B-DISTIL in the paper", "82.1", "0.53", "84.1", "0.58", "87.2", ""] in lines
    assert ["dsa19", "B-DISTIL", "72.00 ± 2.83", "79.00 ± 1.41", "87.00 ± 1.41"] in lines
    assert ["dsa19, B-DISTIL at 100 % by seed: 86.00, 88.00."] in lines
    assert ["dsa19, its teacher by seed: 90.00, 90.00."] in lines
    assert ["dsa19, mistaken most often, in % of all test samples: up for down 0.50; to for fro 0.40."] in lines


def test_table_1_keeps_your_own_sequences_apart_from_a_data_set_of_their_name():
    values = {"instants": instants(*[(0.5, 0.5, 0.5)] * 3), "teacher_accuracy": 0.9, "mistakes": {}}
    published = cell(table1.BDISTIL, recipe="dsa19", **values)
    yours = dataclasses.replace(cell(table1.BDISTIL, recipe="npz", **values), config={"name": "dsa19"})
    rows = [[part.strip() for part in line.split("|")] for line in table1.report([published, yours]).splitlines()]
    named = [row[1] for row in rows if row[2:3] == [table1.BDISTIL]]
    assert named == ["dsa19", "dsa19 (npz)"] * 2, "in either table"


def test_table_1_of_your_own_sequences_stands_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    random, docs = np.random.default_rng(0), tmp_path / "docs"
    for name in ("tones", "steps"):
        parts = {part: np.arange(size) % 3 for part, size in (("train", 60), ("val", 30), ("test", 30))}
        x = {f"{part}_x": random.normal(size=(len(y), 8, 2)).astype(np.float32) for part, y in parts.items()}
        np.savez(tmp_path / f"{name}.npz", **x, **{f"{part}_y": y for part, y in parts.items()})
        tiny = ["rounds=2", "epochs=1", "refine_epochs=1", "teacher_epochs=1", "teacher_widths=4", "member_widths=3"]
        given = [
            f"data={tmp_path / name}.npz",
            f"name={name}",
            "family=gru",
            "frame_steps=2",
            "connection=dense",
            *tiny,
        ]
        arguments = [part for assignment in given for part in ("--set", assignment)]
        assert main(["reproduce", "table1", "--recipe", "npz", "--seeds", "1", "--docs", str(docs), *arguments]) == 0
        capsys.readouterr()
    text = (docs / "results" / "table1.json").read_text()
    cells = json.loads(text)["cells"]
    assert str(tmp_path) not in text
    assert sorted((found["config"]["name"], found["arm"]) for found in cells) == [
        (name, arm) for name in ("steps", "tones") for arm in (table1.BDISTIL, table1.SAME_WIDTH, table1.SAME_COST)
    ]
    assert [one["steps"] for one in cells[0]["values"]["instants"]] == [4, 6, 8]
    rows = (docs / "RESULTS.md").read_text()
    assert all(f"| {name}" in rows for name in ("steps", "tones"))


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("family=auto", "Table 1 is about recurrent members, and conv-3 is none: use family=lstm or gru."),
        ("frame_steps=2", "frame_steps=2 is for the families lstm and gru, not for convolutional."),
        ("frame_steps=0", "frame_steps=0 must be at least 1."),
    ],
)
def test_sequences_of_another_family_are_one_sentence_before_any_training(
    assignment: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    parts = {f"{part}_x": np.zeros((30, 8, 2), np.float32) for part in ("train", "test")}
    np.savez(tmp_path / "mine.npz", **parts, **{f"{part}_y": np.arange(30) % 3 for part in ("train", "test")})
    given = [f"data={tmp_path / 'mine.npz'}", "member_widths=3", assignment]
    arguments = [part for setting in given for part in ("--set", setting)]
    docs = tmp_path / "docs"
    assert main(["reproduce", "table1", "--recipe", "npz", "--docs", str(docs), *arguments]) == 2
    assert capsys.readouterr().err == f"train-ensemble: {sentence}\n"
    assert not list(docs.rglob("teacher-*"))


def test_your_own_sequences_are_run_on_request_only():
    assert {arm.recipe for arm in Plan(1).arms(table1.EXPERIMENT)} == {"dsa19", "google13"}
    assert {arm.recipe for arm in Plan(1, "npz").arms(table1.EXPERIMENT)} == {"npz"}


@pytest.mark.slow
def test_table_1_from_the_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The command, at the size of a CPU."""
    archive = publisher.zipped(tmp_path / "a" / daily_sports.ARCHIVE.file, publisher.daily_sports_files())
    tiny = ["rounds=2", "epochs=1", "refine_epochs=0", "teacher_epochs=1", "teacher_widths=4", "member_widths=3"]
    given = [f"archives={archive.parent}", "max_search=1", "bound_factor=20", *tiny]
    arguments = [part for assignment in given for part in ("--set", assignment)]
    docs = ["--docs", str(tmp_path / "docs")]
    assert main(["reproduce", "table1", "--recipe", "dsa19", "--seeds", "1", *docs, *arguments]) == 0
    capsys.readouterr()
    cells = json.loads((tmp_path / "docs" / "results" / "table1.json").read_text())["cells"]
    assert [found["arm"] for found in cells] == [table1.BDISTIL, table1.SAME_WIDTH, table1.SAME_COST]
    for found in cells:
        at = found["values"]["instants"]
        assert [one["steps"] for one in at] == [60, 90, 125]
        assert [one["exited"] for one in at] == sorted(one["exited"] for one in at)
    assert cells[0]["values"]["members"] == 2
    assert "in the paper" in (tmp_path / "docs" / "RESULTS.md").read_text()

"""``train-ensemble reproduce NAME``: run what is missing of an experiment, draw it, write RESULTS.md again."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.config import RecipeConfig
from training.errors import BadConfig
from training.lock import alone
from training.progress import Reporter
from training.publish import commit, created, packages
from training.recipes import RECIPES
from training.reproduce import EXPERIMENTS, hardware
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.render import RESULTS, picture_path, render, result_path
from training.reproduce.store import Store

WORK = ".work"
"""Folder beside the results: teachers, and arms that were interrupted; it may be deleted at any time."""


def parser() -> argparse.ArgumentParser:
    """The arguments of ``train-ensemble reproduce``."""
    parser = argparse.ArgumentParser(
        prog="train-ensemble reproduce",
        description="Run an experiment, going on where it was interrupted; write its JSON, its PNG and RESULTS.md.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="see --list")
    parser.add_argument("--seeds", type=int, metavar="K", help="run seeds 0 to K - 1 (as many as --list says)")
    parser.add_argument("--recipe", metavar="NAME", help="run the arms of this recipe only (all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe's setting")
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR", help="where results are (docs)")
    parser.add_argument("--list", action="store_true", help="explain each experiment in a line, and stop")
    parser.add_argument("--render", action="store_true", help="draw and write again from the results there are")
    return parser


def reproduce(arguments: Sequence[str], reporter: Reporter) -> list[str]:
    """Do what the arguments say; returns the lines to print.

    Raises:
        BadConfig: no such experiment or setting, found before anything is trained.
    """
    options = parser().parse_args(arguments)
    if options.list:
        width = max(map(len, EXPERIMENTS))
        return [f"{one.name:<{width}} {one.summary}; {one.seeds} seeds" for one in EXPERIMENTS.values()]
    for one in EXPERIMENTS.values():
        Store(result_path(options.docs, one))  # a file that cannot be read stops the command now, not after its runs
    if not options.render:
        experiment = _find(options.name)
        seeds = experiment.seeds if options.seeds is None else options.seeds
        run(experiment, Plan(seeds, options.recipe, tuple(options.set)), options.docs, reporter)
    return [f"results: {_write(options.docs)}"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What of an experiment is to be run, and under which settings."""

    seeds: int
    """From 0."""
    recipe: str | None = None
    """The only one whose arms are run; None: all."""
    assignments: tuple[str, ...] = ()
    """Changed settings, as ``key=value``."""

    def arms(self, experiment: Experiment) -> list[Arm]:
        """The arms that are run.

        Raises:
            BadConfig: no seed, a seed of its own, or a recipe that the experiment does not have.
        """
        recipes = list(dict.fromkeys(arm.recipe for arm in experiment.arms))
        if self.seeds < 1:
            raise BadConfig(f"--seeds {self.seeds} must be at least 1.")
        if any(assignment.partition("=")[0] == "seed" for assignment in self.assignments):
            raise BadConfig("--set seed would be ignored: --seeds K runs the seeds 0 to K - 1.")
        if self.recipe not in {None, *recipes}:
            raise BadConfig(f"{experiment.name} has no arm of recipe {self.recipe!r}, only of: {', '.join(recipes)}.")
        return [arm for arm in experiment.arms if self.recipe == arm.recipe or (not self.recipe and not arm.on_request)]

    def base(self, arm: Arm, seed: int) -> RecipeConfig:
        """The recipe's settings on one seed, before the arm changes them."""
        return RECIPES[arm.recipe].config.override([*self.assignments, f"seed={seed}"])

    def command(self, experiment: Experiment, base: RecipeConfig) -> str:
        """What repeats it, without the places where files lie: results travel."""
        words = ["train-ensemble", "reproduce", experiment.name, "--seeds", str(self.seeds)]
        words += ["--recipe", self.recipe] if self.recipe else []
        for key in (assignment.partition("=")[0] for assignment in self.assignments):
            value = base.record()[key]
            words += ["--set", f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"]
        return shlex.join(words)


def run(experiment: Experiment, plan: Plan, docs: Path, reporter: Reporter) -> None:
    """Every arm on every seed, seed by seed, except what is finished: under the same settings, on the same files."""
    arms = plan.arms(experiment)
    cells = [(plan.base(arm, seed), arm) for seed in range(plan.seeds) for arm in arms]
    store, benches = Store(result_path(docs, experiment)), dict[tuple[str, int], Bench]()
    for base, arm in cells:  # by now every setting is found right
        config = arm.settings(base)
        if (arm.recipe, config.seed) not in benches:
            work = docs / RESULTS / WORK
            benches = {key: bench for key, bench in benches.items() if key[1] == config.seed}  # data of other seeds
            benches[arm.recipe, config.seed] = Bench(RECIPES[arm.recipe], base, work, reporter)
        bench = benches[arm.recipe, config.seed]
        files = bench.files_sha256() if arm.reads_data else (None, None)
        if store.has(arm.recipe, arm.name, config.record(), *files):
            continue
        store.add(_cell(arm, bench, config, plan.command(experiment, base)))
    store.keep([(arm.recipe, arm.name) for arm in experiment.arms])


def _cell(arm: Arm, bench: Bench, config: RecipeConfig, command: str) -> Cell:
    bench.reporter.say(f"{arm.recipe}, {arm.name}, seed {config.seed}")
    start = time.perf_counter()
    values = arm.run(bench, config)
    return Cell(
        arm=arm.name,
        recipe=arm.recipe,
        seed=config.seed,
        values=values,
        config=config.record(),
        data_sha256=bench.data_sha256,
        teacher_sha256=bench.teacher_sha256,
        commit=commit(),
        hardware=hardware.describe(),
        packages=packages(),
        created=created().isoformat(),
        seconds=round(time.perf_counter() - start, 1),
        command=command,
    )


def _find(name: str | None) -> Experiment:
    if name not in EXPERIMENTS:
        named = f"There is no experiment {name!r}" if name else "An experiment is needed"
        raise BadConfig(f"{named}; there are: {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def _write(docs: Path) -> Path:
    with alone(docs / RESULTS):
        for experiment in EXPERIMENTS.values():
            cells = Store(result_path(docs, experiment)).cells
            if cells and experiment.draw:
                experiment.draw(cells, picture_path(docs, experiment))
        return render(docs, list(EXPERIMENTS.values()))

"""``train-ensemble reproduce NAME``: run what is missing of an experiment, draw it, write RESULTS.md again."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from training.config import RecipeConfig
from training.errors import BadConfig
from training.progress import Reporter
from training.publish import commit, created, packages
from training.recipes import RECIPES
from training.reproduce import EXPERIMENTS, hardware
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.render import picture_path, render, result_path
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
    if not options.render:
        experiment = _find(options.name)
        seeds = experiment.seeds if options.seeds is None else options.seeds
        run(experiment, options.docs, seeds, options.set, reporter)
    return [f"results: {_write(options.docs)}"]


def run(experiment: Experiment, docs: Path, seeds: int, assignments: Sequence[str], reporter: Reporter) -> None:
    """Every arm on every seed, seed by seed, except those that are finished under the same settings."""
    if seeds < 1:
        raise BadConfig(f"--seeds {seeds} must be at least 1.")
    bases = {
        (arm.recipe, seed): RECIPES[arm.recipe].config.override([*assignments, f"seed={seed}"])
        for arm in experiment.arms
        for seed in range(seeds)
    }
    store = Store(result_path(docs, experiment))
    for seed in range(seeds):
        benches = dict[str, Bench]()
        for arm in experiment.arms:
            base = bases[arm.recipe, seed]
            if store.has(arm.recipe, arm.name, seed, arm.settings(base).record()):
                continue
            work = docs / "results" / WORK
            bench = benches.setdefault(arm.recipe, Bench(RECIPES[arm.recipe], base, work, reporter))
            store.add(_cell(arm, bench, arm.settings(base), _command(experiment, seeds, assignments, base)))
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
        commit=commit(),
        hardware=hardware.describe(),
        packages=packages(),
        created=created().isoformat(),
        seconds=round(time.perf_counter() - start, 1),
        command=command,
    )


def _command(experiment: Experiment, seeds: int, assignments: Sequence[str], base: RecipeConfig) -> str:
    """What repeats it, without the places where files lie: results travel."""
    words = ["train-ensemble", "reproduce", experiment.name, "--seeds", str(seeds)]
    for key in (assignment.partition("=")[0] for assignment in assignments):
        value = base.record()[key]
        words += ["--set", f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"]
    return shlex.join(words)


def _find(name: str | None) -> Experiment:
    if name not in EXPERIMENTS:
        named = f"There is no experiment {name!r}" if name else "An experiment is needed"
        raise BadConfig(f"{named}; there are: {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def _write(docs: Path) -> Path:
    for experiment in EXPERIMENTS.values():
        cells = Store(result_path(docs, experiment)).cells
        if cells and experiment.draw:
            experiment.draw(cells, picture_path(docs, experiment))
    return render(docs, list(EXPERIMENTS.values()))

"""``train-ensemble RECIPE``: train a teacher, decompose it, write the bundle and a picture of it.

``train-ensemble reproduce NAME`` is in :mod:`training.reproduce.command`, ``train-ensemble search RECIPE`` in
:mod:`training.search`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn

from bundle import Bundle, BundleError, Manifest, Prefix, Round, Teacher
from training import ranks
from training.baselines import measure, no_resched, resched
from training.checkpoint import Checkpoint
from training.config import RecipeConfig
from training.errors import BadConfig, TrainingError
from training.game import Game
from training.pipeline import checkpoint_of, game_of, play, run_of
from training.progress import Bars, Reporter, reporter
from training.recipes import RECIPES, Prepared, Recipe
from training.report import write_report
from training.reproduce.command import reproduce
from training.targets import Logits
from training.teacher import prepare_teacher

BAD_INPUT, INTERRUPTED = 2, 130
REPRODUCE, SEARCH = "reproduce", "search"
"""The words that make it ``train-ensemble reproduce`` and ``train-ensemble search``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, with one sentence on stderr when it is not 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == [REPRODUCE]:
            _reproduce(words[1:])
        elif words[:1] == [SEARCH]:
            _search(words[1:])
        else:
            _train(_parser().parse_args(words))
    except (TrainingError, BundleError, OSError) as error:
        print(f"train-ensemble: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        again = "the same command" if words[:1] == [REPRODUCE] else "the same command with --resume"
        print(f"train-ensemble: interrupted; {again} goes on.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _train(options: argparse.Namespace) -> None:
    if options.list:
        for recipe in RECIPES.values():
            print(f"{recipe.name:<10} {recipe.summary}")
        return
    recipe, config = _settings(options)
    console = Console()
    with ranks.joined(config.device), reporter(console) as listener:
        bundle = train(recipe, config, options.models, listener, resume=options.resume, picture=options.picture)
        if not ranks.first():
            return
    console.print(_table(bundle.manifest))
    if bundle.manifest.exits:
        console.print(_exits(bundle.manifest))
    console.print(f"bundle: {bundle.path}", highlight=False, soft_wrap=True)
    if options.picture:
        console.print(f"picture: {_picture(options.models, config)}", highlight=False, soft_wrap=True)


def _reproduce(words: Sequence[str]) -> None:
    with Bars(Console()) as bars:
        lines = reproduce(words, bars)
    print("\n".join(lines))


def _search(words: Sequence[str]) -> None:
    from training.search import search  # noqa: PLC0415 - it imports for a second what nobody else needs

    with Bars(Console()) as bars:
        lines = search(words, bars)
    print("\n".join(lines))


def train(
    recipe: Recipe,
    config: RecipeConfig,
    models: Path,
    reporter: Reporter,
    *,
    resume: bool = False,
    picture: bool = True,
) -> Bundle:
    """Everything that the command does: teacher, rounds, bundle; with `picture` also baselines and picture."""
    with ranks.one_first():
        prepared = recipe.prepare(config)
    checkpoint = checkpoint_of(models, recipe.name, config, prepared.data, prepared.classes, prepared.teacher)
    with run_of(checkpoint, config, resume=resume):
        game = _prepare_game(prepared, config, checkpoint, reporter)
        bundle = play(game, models, recipe.name)
        if picture:
            _draw(game, prepared, bundle.manifest, _picture(models, config))
    return bundle


def _picture(models: Path, config: RecipeConfig) -> Path:
    return models / config.name / "report.png"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train-ensemble",
        description="Train a teacher, decompose it into an ensemble whose every prefix answers, write it as a bundle.",
        epilog="train-ensemble reproduce --list: the paper's experiments. "
        "train-ensemble search RECIPE: settings that suit its data.",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="where bundles are (models)")
    parser.add_argument("--seed", type=int, metavar="N", help="decides everything random (0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to train (auto)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument(
        "--with-teacher", action="store_true", help="append the teacher as a last stage, for requests with time for it"
    )
    parser.add_argument("--resume", action="store_true", help="go on from an interrupted run of the same command")
    parser.add_argument(
        "--no-picture",
        action="store_false",
        dest="picture",
        help="no picture, so none of the baselines in it",
    )
    parser.add_argument("--list", action="store_true", help="explain each recipe in a line, and stop")
    return parser


def _settings(options: argparse.Namespace) -> tuple[Recipe, RecipeConfig]:
    recipe = RECIPES.get(options.recipe)
    if recipe is None:
        named = f"There is no recipe {options.recipe!r}" if options.recipe else "A recipe is needed"
        raise BadConfig(f"{named}; there are: {', '.join(RECIPES)}.")
    flags = {"seed": options.seed, "device": options.device, "with_teacher": "true" if options.with_teacher else None}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return recipe, recipe.config.override([*options.set, *given])


def _prepare_game(prepared: Prepared, config: RecipeConfig, checkpoint: Checkpoint, reporter: Reporter) -> Game:
    teacher = prepare_teacher(prepared, config, checkpoint, reporter)
    game = game_of(teacher, prepared.data, prepared.classes, config, checkpoint, reporter)
    described = game.target.teacher
    reporter.say(f"teacher {described.name}: {_score(described)} on {len(game.data.test)} test samples")
    return game


def _draw(game: Game, prepared: Prepared, manifest: Manifest, picture: Path) -> None:
    """Train the baselines of equal cost, and draw them with the ensemble."""
    total = manifest.teacher.flops or sum(member.flops for member in manifest.members)
    budgets = [prefix.flops_fraction * total for prefix in manifest.averaged]
    single = prepared.classes[-1] if isinstance(prepared.teacher, nn.Module | Logits) else prepared.teacher
    independent = measure(game, resched(game, prepared.classes[0], len(budgets)))
    oracle = measure(game, no_resched(game, [single], budgets))
    if ranks.first():
        write_report(picture, manifest, independent, oracle, total)


def _table(manifest: Manifest) -> Table:
    teacher = manifest.teacher
    table = Table(
        title=f"{manifest.name}/{manifest.version}: {manifest.evaluation.samples} held-out samples",
        title_justify="left",
    )
    regression = manifest.task == "regression"
    columns = ("RMSE", "R²", "to the teacher") if regression else ("accuracy", "agreement", "ECE")
    for column in ("members", "FLOPs fraction", *columns, "smallest edge", "accepted"):
        table.add_column(column, justify="right")
    for prefix, member in zip(manifest.prefixes, manifest.members, strict=True):
        found = member.round
        table.add_row(
            str(prefix.members),
            f"{prefix.flops_fraction:.3f}",
            *_measures(prefix),
            "tie" if not member.index else f"{found.smallest_edge:.4f}" if found else "",
            _acceptance(found),
        )
    table.add_row("teacher", "1.000" if teacher.flops else "", _score(teacher))
    return table


def _exits(manifest: Manifest) -> Table:
    table = Table(title="early exits, measured on the held-out samples", title_justify="left")
    for column in ("risk at most", "with probability", "threshold", "FLOPs fraction", "accuracy", "differ"):
        table.add_column(column, justify="right")
    for rule in manifest.exits:
        table.add_row(
            f"{rule.risk:g}",
            f"{rule.confidence:g}",
            ", ".join(sorted({f"{threshold:.4f}" for threshold in rule.thresholds if threshold is not None})),
            f"{rule.flops_fraction:.3f}",
            f"{100 * rule.accuracy:.2f} %",
            f"{100 * rule.disagreement:.2f} %",
        )
    return table


def _measures(prefix: Prefix) -> tuple[str, ...]:
    """Of a classifier as calibrated, where it is."""
    if prefix.accuracy is None:
        return _score(prefix), f"{prefix.r2:.3f}", f"{prefix.teacher_rmse:.4g}"
    believed = prefix.calibrated or prefix
    return _score(prefix), f"{100 * (prefix.agreement or 0):.2f} %", f"{believed.ece:.3f}"


def _score(measured: Prefix | Teacher) -> str:
    return f"{measured.rmse:.4g}" if measured.accuracy is None else f"{100 * measured.accuracy:.2f} %"


def _acceptance(found: Round | None) -> str:
    if found is None:
        return ""
    return "yes" if found.weak_learner else "no"


if __name__ == "__main__":
    sys.exit(main())

"""Figure 3: what connections cost beside the members that read through them. Nothing is trained: weights do not matter.

FLOPs are those of the member with its connections and of the connections alone, as fractions of the teacher's, as in
the paper. The measured time is that of the last member, which reads most, over the same member without connections.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from bundle import Round
from training import flops, picture
from training.config import RecipeConfig
from training.connections import Kind, sources_of
from training.determinism import derive_seed, seeded
from training.ensemble import Features, TrainedMember
from training.networks import Convolutional, FullyConnected, ModelClass, Normalise, Recurrent, ResNet, StagedNetwork
from training.recipes.recurrent import RecurrentConfig
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.table import arm_of, markdown
from training.reproduce.timing import BATCHES, Stopwatch

KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "none")
SAMPLES = max(BATCHES)
COLUMNS = 4
"""Panels in a row of the picture."""
COLOURS = (picture.BLUE, picture.ORANGE, picture.GREEN, picture.PURPLE)


Role = Literal["teacher", "member"]


@dataclass(frozen=True, slots=True)
class Networks:
    """A recipe's networks without its data: shape of a sample, labels, and the class of teacher and of members."""

    shape: tuple[int, ...]
    labels: int
    family: Callable[[RecipeConfig, Role], ModelClass]


def _sizes(config: RecipeConfig, role: Role) -> dict[str, Any]:
    if role == "teacher":
        return {"widths": config.teacher_widths, "blocks": config.teacher_blocks}
    return {"widths": config.member_widths, "blocks": config.member_blocks}


def _residual(config: RecipeConfig, role: Role) -> ModelClass:
    return ResNet(**_sizes(config, role), downsample="block" if role == "teacher" else "pool")


def _recurrent(config: RecipeConfig, role: Role) -> ModelClass:
    if not isinstance(config, RecurrentConfig):
        raise TypeError("a recurrent recipe needs a RecurrentConfig")
    return Recurrent(cell=config.cell, **_sizes(config, role), frame=config.frame_steps)


def _convolutional(config: RecipeConfig, role: Role) -> ModelClass:
    return Convolutional(**_sizes(config, role))


def _fully_connected(config: RecipeConfig, role: Role) -> ModelClass:
    return FullyConnected(**_sizes(config, role))


NETWORKS = {
    "digits": Networks((8, 8), 10, _convolutional),
    "ellipsoid": Networks((32,), 2, _fully_connected),
    "cube": Networks((4, 8), 4, _convolutional),
    "dsa19": Networks((125, 45), 19, _recurrent),
    "google13": Networks((99, 32), 13, _recurrent),
    "cifar10": Networks((3, 32, 32), 10, _residual),
    "cifar100": Networks((3, 32, 32), 100, _residual),
}


def connected(kind: Kind) -> Callable[[RecipeConfig], RecipeConfig]:
    """The recipe with this connection from the second member on."""
    return lambda config: dataclasses.replace(config, connection=kind, first_expansion=1)


def run(bench: Bench, config: RecipeConfig) -> Values:
    """FLOPs of every round's member and of its connections, and the last member's time with and without them."""
    known = NETWORKS[bench.recipe.name]
    family = known.family(config, "member")
    x = np.random.default_rng(config.seed).normal(size=(SAMPLES, *known.shape)).astype(np.float32)
    features, rounds = Features(torch.from_numpy(x)), list[Values]()
    for index in range(config.rounds):
        sources = sources_of(config.connection, 1, index)
        member = _member(family, known, config, index, sources)
        cost = flops.count(member.network, features.x[:1], features.read(sources, slice(0, 1)))
        rounds.append({"flops": cost.total, "connections": cost.connections})
        if index == config.rounds - 1:
            break
        features.add(index, features.evaluate(member.network, sources)[1])
    alone = _member(family, known, config, 0, ())
    teacher = known.family(config, "teacher")
    stopwatch = Stopwatch(x)
    return {
        "rounds": rounds,
        "teacher_flops": flops.count(_build(teacher, known, "none", 0, 0), features.x[:1]).total,
        "ms": stopwatch.member(features, member, taps=False),
        "ms_unconnected": stopwatch.member(features, alone, taps=False),
    }


def _member(
    family: ModelClass, known: Networks, config: RecipeConfig, index: int, sources: tuple[int, ...]
) -> TrainedMember:
    network = _build(family, known, config.connection, len(sources), derive_seed(config.seed, "figure3", index))
    nobody = Round(attempts=1, model_class=family.name, expansion=1, smallest_edge=0, eq7_share=0, weak_learner=False)
    return TrainedMember(network.freeze(), sources, 0, nobody)


def _build(family: ModelClass, known: Networks, kind: Kind, sources: int, seed: int) -> StagedNetwork:
    # Nothing to shift, one value a feature of a sequence as in training: of all steps, an export of few would not fit.
    normalise = Normalise.of(np.zeros((1, *known.shape)), sequences=isinstance(family, Recurrent))
    return seeded(seed, lambda: family.build(normalise, known.shape, known.labels, kind, sources))


def report(cells: Sequence[Cell]) -> str:
    """One row for each recipe and kind."""
    header = [
        "networks",
        "connection",
        "FLOPs of member 2, of the teacher's",
        "its connections'",
        "last member",
        "its connections'",
        "connections' share of all",
        *(f"time with / without, batch {batch}" for batch in BATCHES),
    ]
    return "\n\n".join([_EXPLANATION, markdown(header, [_row(cell, arm_of(cell, cells)) for cell in cells])])


_EXPLANATION = """The networks are the recipes', the connections from the second member on. The paper gives Figure 3 as
bars without numbers, and says that the overhead is negligible beside the member. Residual connections have no
parameters; the projections and gates of the others read all taps of a stage at once or one after the other, and their
cost grows with what is read."""


def _row(cell: Cell, arm: str) -> list[object]:
    rounds, teacher = cell.values["rounds"], cell.values["teacher_flops"]
    second, last = rounds[1], rounds[-1]
    share = sum(one["connections"] for one in rounds) / sum(one["flops"] for one in rounds)
    parts = [one[key] / teacher for one in (second, last) for key in ("flops", "connections")]
    with_, without = cell.values["ms"], cell.values["ms_unconnected"]
    times = [f"{with_[str(batch)] / without[str(batch)]:.2f}" for batch in BATCHES]
    return [cell.recipe, arm, *(f"{part:.4f}" for part in parts), f"{100 * share:.1f} %", *times]


def draw(cells: Sequence[Cell], path: Path) -> None:
    """FLOPs by round: the member, and its connections below it, one panel for each recipe."""
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    rows = math.ceil(len(recipes) / COLUMNS)
    figure, panels = picture.panels(len(recipes), width=11.0, height=2.8 * rows + 0.6, columns=COLUMNS)
    for number, (axes, recipe) in enumerate(zip(panels, recipes, strict=True)):
        of = {cell.arm: cell.values for cell in cells if cell.recipe == recipe}
        for kind, colour in zip(KINDS, COLOURS, strict=True):
            if kind in of:
                rounds, teacher = of[kind]["rounds"], of[kind]["teacher_flops"]
                T = range(1, len(rounds) + 1)
                axes.plot(T, [one["flops"] / teacher for one in rounds], "o-", color=colour, ms=3, label=f"{kind}")
                axes.plot(T, [one["connections"] / teacher for one in rounds], "x:", color=colour, ms=4)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        picture.plain(axes, title=recipe, x="round", y="" if number % COLUMNS else "fraction of teacher's FLOPs")
    panels[0].plot([], [], "o-", color="black", ms=3, label="member")
    panels[0].plot([], [], "x:", color="black", ms=4, label="its connections")
    picture.legend(figure, panels[0], columns=6)
    picture.save(figure, path)


EXPERIMENT = Experiment(
    name="figure3",
    summary="what connections cost beside their members, in FLOPs and in measured time, for every recipe",
    arms=tuple(
        Arm(name=kind, recipe=recipe, run=run, settings=connected(kind), reads_data=False)
        for recipe in NETWORKS
        for kind in KINDS
    ),
    seeds=1,
    report=report,
    draw=draw,
)

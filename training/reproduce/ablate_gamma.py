"""Open question 2: what the weight of the barrier in Eq. 6 does to weak learning and to accuracy."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from training import picture
from training.config import RecipeConfig
from training.reproduce import arms
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.table import markdown, percent, spread

DATA_SET = "digits"
EPOCHS = 10
"""For each candidate: this is about acceptance first."""
GAMMAS = (0.003, 0.01, 0.03, 0.1, 1.0, 10.0)
OFF = 1e12
"""1/gamma is nothing: no barrier."""
ASIDE = 1.09
"""Factor in gamma by which objectives are drawn beside each other, so that none hides another."""
MEMBER, WEIGHTED, SATURATING, AVERAGE = "paper", "weighted", "saturating", "recipe"
OBJECTIVES = {
    MEMBER: "Eq. 6 as printed, eta = 1 on logits, the recipe's connection",
    WEIGHTED: "the same, each sample and label of the barrier counting with |K+ - K-|, as in Definition 1",
    SATURATING: "the same, the barrier rewarding no more than undoing the residual so far",
    AVERAGE: "the recipe's: the task loss judges the prefix, eta on logits over B",
}
COLOURS = dict(zip(OBJECTIVES, (picture.RED, picture.ORANGE, picture.GREEN, picture.BLUE), strict=True))


def experiment() -> Experiment:
    """Each gamma under each objective, on the digits; a run goes on with the best candidate."""
    return Experiment(
        name="ablate-gamma",
        summary=f"the barrier's weight 1/gamma on {DATA_SET}: how often Definition 1 and Eq. 7 hold, and at what price",
        arms=tuple(
            Arm(
                name=_name(objective, gamma),
                recipe=DATA_SET,
                run=arms.run_bdistil,
                settings=_settings(objective, gamma),
            )
            for objective in OBJECTIVES
            for gamma in (*GAMMAS, OFF)
        ),
        seeds=3,
        report=report,
        draw=draw,
    )


def _name(objective: str, gamma: float) -> str:
    return f"{objective}, gamma {'off' if gamma == OFF else f'{gamma:g}'}"


def _settings(objective: str, gamma: float) -> Callable[[RecipeConfig], RecipeConfig]:
    def settings(config: RecipeConfig) -> RecipeConfig:
        config = arms.unrefined(config) if objective == AVERAGE else arms.paper(config)
        if objective == WEIGHTED:
            config = dataclasses.replace(config, barrier="weighted")
        if objective == SATURATING:
            config = dataclasses.replace(config, barrier="saturating")
        return dataclasses.replace(
            config, gamma=gamma, epochs=EPOCHS, first_expansion=1, max_search=2, on_failure="best"
        )

    return settings


def report(cells: Sequence[Cell]) -> str:
    """One row for each objective and gamma."""
    header = [
        "objective",
        "gamma",
        "members",
        "weak learners %",
        "Eq. 7 share",
        "smallest edge",
        "attempts",
        "accuracy %",
    ]
    rows = [
        [objective, "off" if gamma == OFF else f"{gamma:g}", *_summary(_cells(cells, objective, gamma))]
        for objective in OBJECTIVES
        for gamma in (*GAMMAS, OFF)
        if _cells(cells, objective, gamma)
    ]
    lines = [f"- {name}: {text}." for name, text in OBJECTIVES.items()]
    return "\n".join([_EXPLANATION, *lines, "", markdown(header, rows)])


_EXPLANATION = """From the second round on (in the first every pair is a tie): the share of rounds, in %, whose
candidate was accepted as a weak learner, the mean share of (sample, label) pairs for which Eq. 7 holds, the smallest
edge of Definition 1 over rounds and labels, the candidates trained for each round (at most two), and the accuracy of
the whole ensemble. A run goes on with its best candidate, but ends early where every candidate has a residual beyond
2B; a dash: that was so in the second round. The objectives:
"""


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Share of weak learners, Eq. 7 share and accuracy against gamma."""
    figure, panels = picture.panels(3, width=11.0, height=3.8)
    gammas = [*GAMMAS, GAMMAS[-1] * 10]  # "off" is drawn one step to the right
    measures: tuple[tuple[str, Callable[[Values], float]], ...] = (
        ("rounds with a weak learner (%)", lambda values: 100 * _accepted(values)),
        ("pairs for which Eq. 7 holds (%)", lambda values: 100 * _eq7(values)),
        ("accuracy of the whole ensemble (%)", lambda values: 100 * _final(values)),
    )
    for axes, (label, measure) in zip(panels, measures, strict=True):
        for number, (objective, colour) in enumerate(COLOURS.items()):
            groups = [_cells(cells, objective, gamma) for gamma in (*GAMMAS, OFF)]
            values = [[measure(cell.values) for cell in group if _later(cell.values)] for group in groups]
            means = [statistics.fmean(one) if one else float("nan") for one in values]
            deviations = [statistics.stdev(one) if len(one) > 1 else 0.0 for one in values]
            beside = [gamma * ASIDE ** (number - 1.5) for gamma in gammas]
            axes.errorbar(beside, means, deviations, fmt="o-", color=colour, label=objective, ms=4, capsize=2)
        axes.set_xscale("log")
        axes.set_xticks(gammas, [*(f"{gamma:g}" for gamma in GAMMAS), "off"], fontsize=8)
        axes.minorticks_off()
        axes.set_ylim(bottom=max(axes.get_ylim()[0], -4.0), top=min(axes.get_ylim()[1], 104.0))  # shares end at 100 %
        picture.plain(axes, title=DATA_SET if axes is panels[0] else "", x="gamma", y=label)
    picture.legend(figure, panels[0], columns=4)
    picture.save(figure, path)


def _cells(cells: Sequence[Cell], objective: str, gamma: float) -> list[Cell]:
    return [cell for cell in cells if cell.arm == _name(objective, gamma)]


def _summary(cells: Sequence[Cell]) -> list[str]:
    values = [cell.values for cell in cells]
    searched = [one for one in values if _later(one)]
    return [
        spread([float(len(one["points"])) for one in values], 1),
        percent([_accepted(one) for one in searched], 0),
        spread([_eq7(one) for one in searched]),
        spread([min(found["smallest_edge"] for found in _later(one)) for one in searched], 3),
        spread([statistics.fmean(found["attempts"] for found in _later(one)) for one in searched], 1),
        percent([one["points"][-1]["accuracy"] for one in values if one["points"]]),
    ]


def _later(values: Values) -> list[Values]:
    """Rounds in which Definition 1 says something."""
    later: list[Values] = values["rounds"][1:]
    return later


def _accepted(values: Values) -> float:
    return statistics.fmean(found["weak_learner"] for found in _later(values))


def _eq7(values: Values) -> float:
    return statistics.fmean(found["eq7_share"] for found in _later(values))


def _final(values: Values) -> float:
    accuracy: float = values["points"][-1]["accuracy"]
    return accuracy


EXPERIMENT = experiment()

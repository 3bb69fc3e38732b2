"""What a bundle's manifest says of its quality: measured on the held-out part, calibrated on the validation part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from bundle import Bundle, Evaluation, ExitRule, Prefix
from bundle.reference import running_average
from training.calibrate import fit_temperature, outlook
from training.evaluate import measure, measure_regression, scores
from training.exits import find_threshold, halves, measure_rule, samples_needed
from training.game import Game

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Quality:
    """Entries of the manifest."""

    prefixes: tuple[Prefix, ...]
    calibration: Evaluation | None = None
    exits: tuple[ExitRule, ...] = ()


def assess(game: Game, draft: Bundle, flops: Sequence[float]) -> Quality:
    """Run the bundle as it is served on the validation and the test part, calibrate, and measure.

    Temperatures are fitted on one half of the validation part and exit thresholds on the other (see
    :mod:`training.exits`), outlooks on the whole of it. A regression is only measured: its answers have no confidence
    to calibrate or to leave by.

    Args:
        game: data, teacher and settings.
        draft: an opened bundle; only its graphs and wiring are used.
        flops: of each member. Fractions are of the teacher's, or of the whole ensemble if nobody knows those.
    """
    test, validation = game.data.test, game.data.validation
    served = list(running_average(draft, test.x))
    if game.data.task == "regression":
        return _assess_regression(game, served, flops)
    teacher_NL = game.target.test_NL.cpu().numpy()
    prefixes = measure(served, test.y, teacher_NL, flops, game.target.teacher.flops or sum(flops))
    fitted = list(running_average(draft, validation.x))
    first, second = halves(len(validation), game.config.seed)
    temperatures = [fit_temperature(logits[first], validation.y[first]) for logits in fitted]
    calibrated = tuple(
        prefix.model_copy(
            update={
                "temperature": temperatures[k],
                "calibrated": scores(served[k] / temperatures[k], test.y),
                "outlook": outlook(fitted[k:], temperatures[k:], validation.y),
            }
        )
        for k, prefix in enumerate(prefixes)
    )
    found = find_rules(game, [logits[second] for logits in fitted], temperatures)
    costs = [prefix.flops_fraction for prefix in prefixes]
    exits = tuple(
        measure_rule(served, temperatures, threshold, test.y, costs, (risk, game.config.exit_confidence))
        for risk, threshold in found.items()
    )
    return Quality(calibrated, Evaluation(split="validation", samples=len(validation)), exits)


def _assess_regression(game: Game, served: Sequence[Array], flops: Sequence[float]) -> Quality:
    teacher_NL = game.task.restore(game.target.test_NL).cpu().numpy()
    total = game.target.teacher.flops or sum(flops)
    return Quality(measure_regression(served, game.data.test.y, teacher_NL, flops, total))


def find_rules(game: Game, prefixes: Sequence[Array], temperatures: Sequence[float]) -> dict[float, float]:
    """The certified threshold for each risk of the settings that has one; says which has none, and why."""
    samples, confidence, found = len(prefixes[0]), game.config.exit_confidence, dict[float, float]()
    if len(prefixes) < 2:
        return found
    for risk in game.config.exit_risks:
        threshold = find_threshold(prefixes, temperatures, risk, confidence)
        if threshold is not None:
            found[risk] = threshold
            continue
        needed = samples_needed(risk, confidence)
        why = (
            f"{samples} samples are left for thresholds, {needed} are needed"
            if samples < needed
            else "too many of the most confident answers differ from the whole ensemble's"
        )
        game.reporter.say(f"No exit rule for risk {risk:g} at confidence {confidence:g}: {why}.")
    return found

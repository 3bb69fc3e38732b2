"""Cost and accuracy of an ensemble's prefixes, and of baselines, as every experiment records them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from training import flops
from training.baselines import Answer, measure
from training.baselines.answer import accuracy
from training.ensemble import Ensemble, Features
from training.game import Game
from training.reproduce.timing import Stopwatch

Points = list[dict[str, Any]]
"""For each answer `flops`, `accuracy`, and on the seed that is timed `ms` by batch size."""


def ensemble_points(game: Game, ensemble: Ensemble, stopwatch: Stopwatch | None) -> Points:
    """One point for each prefix, on the test part; with times if there is a stopwatch."""
    features = Features(torch.from_numpy(game.data.test.x).to(game.device))
    total_NL, cost, points = torch.zeros_like(game.target.test_NL), 0.0, Points()
    for index, member in enumerate(ensemble.members):
        logits_NL, taps = features.evaluate(member.network, member.sources)
        features.add(index, taps)
        total_NL = total_NL + logits_NL
        cost += flops.count(member.network, features.x[:1], features.read(member.sources, slice(0, 1))).total
        points.append({"flops": cost, "accuracy": accuracy(total_NL.cpu(), game.data.test.y)})
    return _timed(points, stopwatch.prefixes(ensemble)) if stopwatch else points


def baseline_points(game: Game, answers: Sequence[Answer], stopwatch: Stopwatch | None) -> Points:
    """One point for each answer, on the test part; with times if there is a stopwatch."""
    points: Points = [{"flops": point.flops, "accuracy": point.score} for point in measure(game, answers)]
    return _timed(points, stopwatch.answers(answers)) if stopwatch else points


def _timed(points: Points, times: Sequence[dict[str, float]]) -> Points:
    return [{**point, "ms": ms} for point, ms in zip(points, times, strict=True)]

"""Early exits: the guarantee over many draws of the samples, and that it is the test that gives it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from bundle import open_bundle
from bundle.exits import members_used
from bundle.reference import running_average
from tests.training.toy import CONFIG, toy_data, toy_game
from training import FullyConnected, distil, exits
from training.exits import disagreements, find_threshold, halves, measure_rule, p_value, samples_needed
from training.progress import Quiet
from training.quality import find_rules

POPULATION, DRAWN, RESPLITS = 20_000, 200, 120
RISK, DELTA = 0.05, 0.1


@pytest.fixture(scope="module")
def population() -> list[np.ndarray]:
    """Three prefixes that come nearer to the last one's answers, with confidences that are too high."""
    random = np.random.default_rng(0)
    last = random.normal(scale=2.0, size=(POPULATION, 3))
    return [
        (1.5 * (last + random.normal(scale=noise, size=last.shape))).astype(np.float32) for noise in (1.0, 0.5, 0.0)
    ]


def violations(population: list[np.ndarray]) -> float:
    """Share of draws of samples for which the threshold found has a true risk above RISK."""
    true_risk: dict[float | None, float] = {None: 0.0}
    violated = 0
    for seed in range(RESPLITS):
        rows = np.random.default_rng(seed).choice(POPULATION, DRAWN, replace=False)
        threshold = find_threshold([logits[rows] for logits in population], [1.0] * 3, RISK, 1 - DELTA)
        if threshold not in true_risk:
            true_risk[threshold] = float(disagreements(population, [1.0] * 3, threshold).mean())
        violated += true_risk[threshold] > RISK
    assert len(true_risk) > 5, "the rule depends on the samples"
    return violated / RESPLITS


SLACK = float(binom.ppf(0.999, RESPLITS, DELTA)) / RESPLITS
"""What a violation rate of exactly DELTA stays below in 999 of 1000 runs of this test."""


def test_the_risk_is_exceeded_in_no_more_draws_than_promised(population: list[np.ndarray]):
    assert violations(population) <= SLACK


def test_without_the_p_value_it_would_be(population: list[np.ndarray], monkeypatch: pytest.MonkeyPatch):
    """The plug-in rule, `go on while the risk that was seen is at most epsilon`, breaks the promise."""
    monkeypatch.setattr(exits, "p_value", lambda differing, samples, risk: float(differing / samples > risk))
    assert violations(population) > SLACK


def test_the_p_value_is_the_exact_binomial_tail():
    assert p_value(0, 100, 0.02) == pytest.approx(0.98**100)
    assert p_value(1, 100, 0.02) == pytest.approx(0.98**100 + 100 * 0.02 * 0.98**99)
    assert p_value(100, 100, 0.02) == 1


@pytest.mark.parametrize(("risk", "confidence", "needed"), [(0.01, 0.95, 299), (0.05, 0.95, 59), (0.1, 0.9, 22)])
def test_so_many_samples_are_needed(risk: float, confidence: float, needed: int):
    assert samples_needed(risk, confidence) == needed
    agreeing = [np.tile([9.0, 0.0], (needed, 1))] * 2
    assert find_threshold(agreeing, [1, 1], risk, confidence) is not None
    assert find_threshold([logits[1:] for logits in agreeing], [1, 1], risk, confidence) is None


def test_certain_answers_that_differ_have_no_rule():
    first = np.tile([99.0, 0.0], (500, 1))
    assert find_threshold([first, first[:, ::-1]], [1, 1], 0.05, 0.95) is None


def test_a_threshold_is_certified_with_all_that_come_before_it():
    """Of the samples at 0.6 all differ: the threshold stays above them."""
    confidence = np.repeat([0.95, 0.6], [400, 100])
    last = np.log(np.stack([confidence, 1 - confidence], axis=1))
    first = last.copy()
    first[400:] = first[400:, ::-1]
    found = find_threshold([first, last], [1, 1], 0.05, 0.95)
    assert found == exits.GRID[exits.GRID > 0.6].min()


def test_the_grid_goes_from_conservative_to_permissive():
    assert (np.diff(exits.GRID) < 0).all()
    assert exits.GRID[0] > 0.99999
    assert exits.GRID[-1] < 0.1


def test_halves_are_disjoint_and_by_seed():
    first, second = halves(101, 7)
    assert sorted([*first, *second]) == list(range(101))
    assert (len(first), len(second)) == (50, 51)
    np.testing.assert_array_equal(first, halves(101, 7)[0])
    assert not np.array_equal(first, halves(101, 8)[0])


def test_a_rule_is_measured_by_the_function_of_the_contract():
    """Four samples; the second prefix corrects the second, which leaves too early at 0.7."""
    first = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    last = np.log([[0.9, 0.1], [0.3, 0.7], [0.9, 0.1], [0.1, 0.9]])
    rule = measure_rule([first, last], [1, 1], 0.7, np.array([0, 1, 0, 0]), [0.25, 1.0], (0.05, 0.95))
    assert rule.thresholds == (0.7,)
    assert (rule.risk, rule.confidence) == (0.05, 0.95)
    assert rule.flops_fraction == pytest.approx((0.25 + 0.25 + 1 + 1) / 4)
    assert rule.accuracy == 0.5
    assert rule.disagreement == 0.25


def test_a_bundle_comes_with_calibration_and_rules(tmp_path):
    """Sixty validation samples: thirty for thresholds are enough for a risk of 0.5, not for one of 0.05."""
    data, logits = toy_data()
    config = dataclasses.replace(CONFIG, exit_risks=(0.05, 0.5), rounds=2)
    distil(logits, data, [FullyConnected(widths=(5, 4))], config, models=tmp_path)
    bundle = open_bundle(tmp_path, "toy")
    manifest = bundle.manifest
    assert manifest.calibration is not None
    assert (manifest.calibration.split, manifest.calibration.samples) == ("validation", 60)
    for prefix in manifest.prefixes:
        assert prefix.calibrated is not None
        assert prefix.brier is not None
        assert prefix.temperature != 1
        assert len(prefix.outlook) == 2
    (rule,) = manifest.exits
    assert rule.risk == 0.5
    served = list(running_average(bundle, data.test.x))
    answers = np.stack([one.argmax(axis=1) for one in served])
    used = members_used(served, [prefix.temperature for prefix in manifest.prefixes], rule.thresholds)
    assert used.min() == 1
    taken = answers[used - 1, np.arange(len(used))]
    assert rule.disagreement == pytest.approx(np.mean(taken != answers[-1]))
    assert rule.accuracy == pytest.approx(np.mean(taken == data.test.y))


class Heard(Quiet):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_risk_without_a_rule_is_said_with_its_reason(tmp_path: Path):
    heard = Heard()
    game = dataclasses.replace(toy_game(tmp_path, exit_risks=(0.01, 0.1)), reporter=heard)
    certain = np.tile([99.0, 0.0, 0.0], (100, 1))
    assert find_rules(game, [certain, certain], [1, 1]).keys() == {0.1}
    assert find_rules(game, [certain, np.roll(certain, 1, axis=1)], [1, 1]) == {}
    assert find_rules(game, [certain], [1]) == {}, "one member: nowhere to leave"
    too_few = "No exit rule for risk 0.01 at confidence 0.95: 100 samples are left for thresholds, 299 are needed."
    assert heard.sentences[:2] == [too_few, too_few]
    assert "risk 0.1 at confidence 0.95: too many of the most confident answers differ" in heard.sentences[2]

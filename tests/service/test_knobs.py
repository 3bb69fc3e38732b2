from __future__ import annotations

import pytest

from bundle import Bundle, ExitRule, Manifest
from service.engine.ticket import StoppedBy
from service.errors import InvalidField, NoExitRule
from service.knobs import Terms, terms
from service.schemas import PredictRequest

RISKS = (0.01, 0.05)


@pytest.fixture
def manifest(tiny: Bundle) -> Manifest:
    """Three prefixes of accuracy 0.70, 0.75 and 0.80, with two exit rules."""
    rules = tuple(
        ExitRule(
            risk=risk,
            confidence=0.9,
            thresholds=(None, 1 - risk),
            method="learn_then_test",
            flops_fraction=0.2,
            accuracy=0.8,
            disagreement=risk / 2,
        )
        for risk in RISKS
    )
    return tiny.manifest.model_copy(update={"exits": rules})


def of(manifest: Manifest, **knobs: float) -> Terms:
    return terms(PredictRequest(inputs=[[0.0]], **knobs), manifest)


@pytest.mark.parametrize(
    ("knobs", "limit", "limited_by"),
    [
        ({}, 3, StoppedBy.COMPLETE),
        ({"max_members": 2}, 2, StoppedBy.MAX_MEMBERS),
        ({"max_members": 9}, 3, StoppedBy.COMPLETE),
        ({"target_accuracy": 0.75}, 2, StoppedBy.TARGET_ACCURACY),
        ({"target_accuracy": 0.99}, 3, StoppedBy.COMPLETE),
        ({"target_accuracy": 0.7, "max_members": 2}, 1, StoppedBy.TARGET_ACCURACY),
        ({"target_accuracy": 0.7, "min_members": 2}, 2, StoppedBy.TARGET_ACCURACY),
    ],
)
def test_where_a_request_stops_and_why(manifest: Manifest, knobs: dict[str, float], limit: int, limited_by: StoppedBy):
    agreed = of(manifest, **knobs)
    assert (agreed.member_limit, agreed.limited_by) == (limit, limited_by)


def test_the_boldest_rule_within_the_risk_is_taken(manifest: Manifest):
    assert of(manifest, exit_risk=0.04).exit.thresholds == (None, 0.99)
    assert of(manifest, exit_risk=0.05).exit.thresholds == (None, 0.95)
    assert of(manifest, exit_risk=0.5).exit.reason is StoppedBy.EXIT_RISK


def test_a_confidence_holds_at_every_prefix(manifest: Manifest):
    agreed = of(manifest, exit_confidence=0.8).exit
    assert (agreed.thresholds, agreed.reason) == ((0.8, 0.8), StoppedBy.EXIT_CONFIDENCE)


@pytest.mark.parametrize(
    ("knobs", "error"),
    [
        ({"exit_risk": 0.001}, NoExitRule),
        ({"exit_risk": 0.1, "exit_confidence": 0.9}, InvalidField),
        ({"min_members": 4}, InvalidField),
        ({"min_members": 2, "max_members": 1}, InvalidField),
    ],
)
def test_what_cannot_be_had_is_refused(manifest: Manifest, knobs: dict[str, float], error: type[Exception]):
    with pytest.raises(error):
        of(manifest, **knobs)


def test_a_bundle_without_rules_says_so(tiny: Bundle):
    with pytest.raises(NoExitRule, match="no rules for early exits"):
        of(tiny.manifest, exit_risk=0.1)

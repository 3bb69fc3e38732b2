"""Who becomes a member: Definition 1 over everything, and no vacuous learners."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.training.toy import toy_game, with_residual
from training import boosting, ensemble
from training.ensemble import Ensemble
from training.game import Game
from training.verdict import Verdict, decide, judge


@pytest.fixture
def game(tmp_path: Path) -> Game:
    return toy_game(tmp_path, eta_rule="literal", eta=0.1)


def after_a_member(game: Game, factor: float = 0.5) -> Ensemble:
    """An ensemble whose one member answered `factor` times the teacher, everywhere."""
    teacher = game.target
    found = with_residual(game, (factor - 1) * teacher.train_NL)
    found.S_validation_NL = (factor - 1) * teacher.validation_NL.double()
    return found


def answer(game: Game, found: Ensemble, factor: float) -> Verdict:
    """The verdict on a candidate that answers `factor` times the teacher."""
    return decide(game, found, factor * game.target.train_NL.double(), factor * game.target.validation_NL.double())


def test_a_candidate_that_corrects_the_residual_is_taken(game: Game):
    verdict = answer(game, after_a_member(game), 1.3)
    assert verdict.accepted
    assert verdict.smallest_edge > 0
    assert verdict.eq7_share == 1


def test_pitfall_3_the_first_member_is_accepted_on_its_loss(game: Game):
    verdict = answer(game, game.empty_ensemble(), 0.7)
    assert verdict.accepted
    assert verdict.smallest_edge == 0
    worse = answer(game, game.empty_ensemble(), -0.5)
    assert not worse.accepted
    assert "validation loss" in worse.reason


def test_pitfall_4_a_candidate_that_equals_the_teacher_is_taken_by_rule(game: Game):
    verdict = answer(game, after_a_member(game), 1.0)
    assert verdict.smallest_edge == pytest.approx(0, abs=1e-9)
    assert verdict.accepted


def test_definition_1_must_hold_for_every_label(game: Game):
    """Corrects two labels, and makes the third worse by less than the others gain in loss."""
    found = after_a_member(game)
    teacher, push = game.target, torch.tensor([1.6, 1.6, 0.9], dtype=torch.float64)
    verdict = decide(game, found, push * teacher.train_NL, push * teacher.validation_NL)
    edges = boosting.edges(found.S_train_NL, (push - 1) * teacher.train_NL, game.eta)
    assert (edges > 0).tolist() == [True, True, False]
    assert not verdict.accepted
    assert "Definition 1" in verdict.reason


def constant(rows: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return vector.expand(len(rows), -1).double()


def test_pitfall_5_a_large_constant_passes_definition_1_and_is_rejected(game: Game):
    """A residual with a non-zero weighted mean for every label is all that a large constant needs."""
    random = torch.Generator().manual_seed(0)
    S_NL = torch.randn(len(game.data.train), 3, generator=random) + torch.tensor([-1.0, 0.5, 0.5])
    found, vector = with_residual(game, S_NL), torch.tensor([200.0, -100.0, -100.0])
    edges = boosting.edges(found.S_train_NL, vector - game.target.train_NL, game.eta)
    assert (edges > 0).all(), "Definition 1 alone would take it"
    verdict = decide(game, found, constant(game.target.train_NL, vector), constant(game.target.validation_NL, vector))
    assert not verdict.accepted
    assert "beyond 2B" in verdict.reason
    assert math.isinf(verdict.validation_loss), "it may not even be taken as the best candidate"


def test_pitfall_5_a_bounded_constant_is_rejected_for_its_loss(game: Game):
    random = torch.Generator().manual_seed(0)
    S_NL = torch.randn(len(game.data.train), 3, generator=random) + torch.tensor([-3.0, 1.5, 1.5])
    found, vector = with_residual(game, S_NL), torch.tensor([12.0, -6.0, -6.0])
    l_NL = vector - game.target.train_NL
    assert (boosting.edges(found.S_train_NL, l_NL, game.eta) > 0).all()
    assert float(l_NL.abs().max()) < 2 * game.B
    verdict = decide(game, found, constant(game.target.train_NL, vector), constant(game.target.validation_NL, vector))
    assert not verdict.accepted
    assert "validation loss" in verdict.reason


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_candidate_is_rejected(game: Game, value: float):
    for found in (game.empty_ensemble(), after_a_member(game)):
        verdict = answer(game, found, value)
        assert not verdict.accepted
        assert verdict.reason == "its logits are not finite"


def test_pitfall_11_the_verdict_does_not_depend_on_the_batch_size(game: Game, monkeypatch: pytest.MonkeyPatch):
    found = after_a_member(game)
    network = game.build(game.trials(0, 0)[0], 0)
    for _ in range(3):  # moves BatchNorm's running statistics away from where they start
        network.train()(found.train.x)
    verdicts = []
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(ensemble, "BATCH", size)
        verdicts.append(judge(game, found, network, ()))
    for verdict in verdicts[1:]:
        assert verdict.smallest_edge == pytest.approx(verdicts[0].smallest_edge, rel=1e-5)
        assert verdict.validation_loss == pytest.approx(verdicts[0].validation_loss, rel=1e-5)


def test_pitfall_11_all_samples_decide_not_a_batch(game: Game):
    """Wrong on the last training sample only, where nearly all the weight is."""
    S_NL = 1e-6 * torch.ones_like(game.target.train_NL)
    S_NL[-1] = torch.tensor([40.0, -20.0, -20.0])
    found, l_NL = with_residual(game, S_NL), -torch.sign(S_NL)
    l_NL[-1] = -l_NL[-1]
    verdict = decide(game, found, game.target.train_NL + l_NL, game.target.validation_NL.double())
    assert not verdict.accepted
    assert verdict.smallest_edge < 0
    assert verdict.eq7_share > 0.99


def test_pitfall_12_judging_moves_no_statistics(game: Game):
    found = game.empty_ensemble()
    network = game.build(game.trials(0, 0)[0], 0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    judge(game, found, network, ())
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name

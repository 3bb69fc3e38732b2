"""The rounds of Algorithm 1 and the search of Algorithm 2, on a toy problem."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.toy import toy_data, toy_game, with_residual
from training import FullyConnected, Logits
from training.bdistil import Outcome, run_rounds
from training.boosting import barrier, centre, distillation_loss, log_normaliser, log_weights, wanted_sign
from training.checkpoint import Checkpoint
from training.ensemble import Features
from training.errors import NoWeakLearner, TrainingError
from training.find_wl import Search, barrier_loss, eq6_loss, train_candidate
from training.game import Game, eta_of
from training.networks import StagedNetwork
from training.pipeline import game_of
from training.progress import Quiet

BEST = {"on_failure": "best", "rounds": 3, "max_search": 1}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Game, Outcome]:
    game = toy_game(tmp_path_factory.mktemp("played"), connection="dense", **BEST)
    return game, run_rounds(game)


def hashes(outcome: Outcome) -> list[list[bytes]]:
    return [[value.numpy().tobytes() for value in m.network.state_dict().values()] for m in outcome.ensemble.members]


def test_pitfall_18_exactly_T_members(played: tuple[Game, Outcome]):
    """Read literally, `t < T` from 1 would give T - 1."""
    game, outcome = played
    assert len(outcome.ensemble) == game.config.rounds == 3
    assert outcome.stopped is None


def test_pitfall_17_residual_over_t_is_what_the_running_average_lacks(played: tuple[Game, Outcome]):
    game, outcome = played
    features, total = Features(outcome.ensemble.train.x), 0.0
    for index, member in enumerate(outcome.ensemble.members):
        logits_NL, taps = features.evaluate(member.network, member.sources)
        features.add(index, taps)
        total = total + logits_NL.double()
    lacking_NL = total / 3 - game.target.train_NL
    torch.testing.assert_close(outcome.ensemble.S_train_NL / 3, lacking_NL, rtol=0, atol=1e-5)


def test_pitfalls_12_and_19_earlier_members_are_frozen(tmp_path: Path):
    game = toy_game(tmp_path, connection="residual", **BEST)
    outcome = run_rounds(game)
    ensemble, before = outcome.ensemble, hashes(outcome)
    trial = game.trials(0, 3)[-1]
    assert trial.sources == (2,)
    network = train_candidate(game, ensemble, trial, Search())
    assert hashes(outcome) == before
    for member in ensemble.members:
        assert not member.network.training
        assert all(p.grad is None and not p.requires_grad for p in member.network.parameters())
    assert not any(p.requires_grad for p in network.parameters())
    taps = ensemble.train.read((0, 1), slice(0, 4))
    assert not any(tap.requires_grad for stage in taps for tap in stage)


def test_pitfall_19_pruning_a_dependency_raises(played: tuple[Game, Outcome]):
    _, outcome = played
    last = outcome.ensemble.members[2]
    features = Features(outcome.ensemble.train.x)
    features.add(0, outcome.ensemble.train.read((0,), slice(None))[0])
    assert last.sources == (0, 1)
    with pytest.raises(TrainingError, match="Member 1 is read by a later one"):
        features.evaluate(last.network, last.sources)


def test_a_failed_search_is_recorded_when_the_best_candidate_is_taken(played: tuple[Game, Outcome]):
    _, outcome = played
    first, *later = (member.round for member in outcome.ensemble.members)
    assert (first.smallest_edge, first.eq7_share, first.weak_learner) == (0, 0, True)
    for round_ in later:
        assert round_.weak_learner == (round_.smallest_edge > 0) or not round_.weak_learner
        assert round_.effective_samples <= 150
    assert any(not round_.weak_learner for round_ in later), "choose settings that fail, or this shows nothing"


def test_a_search_without_success_stops_and_says_where_and_why(tmp_path: Path):
    game = toy_game(tmp_path, connection="none", first_expansion=0, on_failure="stop", rounds=5, max_search=2)
    outcome = run_rounds(game)
    assert 1 <= len(outcome.ensemble) < 5
    assert outcome.stopped is not None
    assert outcome.stopped.startswith(
        f"round {len(outcome.ensemble) + 1} found no weak learner in 2 candidates; the best"
    )


class WildLater(FullyConnected):
    """Members after the first start, and stay, far beyond any bound."""

    def build(self, *arguments) -> StagedNetwork:
        network = super().build(*arguments)
        if arguments[-1]:
            network.head[-1].weight.data.mul_(1e5)
        return network


def test_candidates_beyond_the_bound_are_not_even_taken_as_the_best(tmp_path: Path):
    outcome = run_rounds(toy_game(tmp_path, classes=(WildLater(widths=(5, 4)),), **BEST))
    assert len(outcome.ensemble) == 1
    assert outcome.stopped is not None
    assert outcome.stopped.startswith("round 2 found no weak learner in 1 candidates; the last of them: a residual of")


def test_no_first_member_is_an_error(tmp_path: Path):
    game = toy_game(tmp_path, on_failure="stop", learning_rate=1e3, task_loss="member")
    with pytest.raises(NoWeakLearner, match="There is no ensemble: round 1 found no weak learner in 1 candidates"):
        run_rounds(game)


class ZeroHead(FullyConnected):
    """Starts at the answer of a teacher that says nothing, so descent stays there exactly."""

    def build(self, *arguments) -> StagedNetwork:
        network = super().build(*arguments)
        for parameter in network.head.parameters():
            torch.nn.init.zeros_(parameter)
        return network


def test_pitfall_4_a_prefix_that_equals_the_teacher_ends_the_run_early(tmp_path: Path):
    data, logits = toy_data()
    nothing = Logits(**{name: np.zeros_like(getattr(logits, name)) for name in data.splits()})
    config, checkpoint = toy_game(tmp_path).config, Checkpoint(tmp_path / "c", "x")
    game = game_of(nothing, data, [ZeroHead(widths=(4,))], config, checkpoint, Quiet())
    outcome = run_rounds(game)
    assert len(outcome.ensemble) == 1
    assert outcome.stopped == "after 1 of 3 rounds the answer equals the teacher's on the training set"


def test_a_costlier_class_is_searched_when_the_cheaper_fails_and_never_left(tmp_path: Path):
    classes = (FullyConnected(widths=(5, 4)), FullyConnected(widths=(5, 4), blocks=2))
    game = toy_game(tmp_path, classes=classes, rounds=3, on_failure="best", max_search=1, gamma=1e6, epochs=2)
    members = run_rounds(game).ensemble.members
    positions = [member.model_class for member in members]
    assert positions == sorted(positions)
    tried = [member.round.attempts for member in members]
    assert all(1 <= attempts <= 2 for attempts in tried)
    assert any(attempts == 2 for attempts in tried), "both classes were searched in some round"


def test_eq6_with_a_member_alone_is_the_papers_objective(tmp_path: Path):
    game = toy_game(tmp_path, task_loss="member", gamma=0.5)
    random = torch.Generator().manual_seed(0)
    S_NL, logits_NL = torch.randn(150, 3, generator=random), torch.randn(4, 3, generator=random)
    batch, found = torch.tensor([3, 1, 4, 15]), with_residual(game, S_NL)
    f_NL, g_NL = logits_NL - logits_NL.mean(dim=1, keepdim=True), game.target.train_NL[batch]
    expected = distillation_loss(f_NL, g_NL, 4.0) + 2 * barrier(f_NL - g_NL, wanted_sign(S_NL[batch]), game.B)
    torch.testing.assert_close(eq6_loss(game, found, logits_NL, batch), expected)


@pytest.mark.parametrize("variant", ["literal", "weighted", "saturating"])
def test_the_barrier_is_the_one_that_the_settings_name(tmp_path: Path, variant: str):
    game = toy_game(tmp_path, barrier=variant, gamma=0.01)
    random, batch = torch.Generator().manual_seed(0), torch.tensor([3, 1, 4, 15])
    S_NL, logits_NL = 3 * torch.randn(150, 3, generator=random), 9 * torch.randn(4, 3, generator=random)
    found = with_residual(game, S_NL)
    l_NL = centre(logits_NL) - game.target.train_NL[batch]
    plus_NL, minus_NL = log_weights(found.S_train_NL, game.eta)
    expected = {
        "literal": {},
        "weighted": {"weights_NL": 150 * (plus_NL.exp() - minus_NL.exp()).abs()[batch].float()},
        "saturating": {"cap_NL": S_NL[batch].abs()},
    }[variant]
    wanted = barrier(l_NL, wanted_sign(S_NL[batch]), game.B, **expected)
    torch.testing.assert_close(barrier_loss(game, found, l_NL, batch), wanted)
    alone = eq6_loss(toy_game(tmp_path, gamma=1e12), found, logits_NL, batch)
    torch.testing.assert_close(eq6_loss(game, found, logits_NL, batch) - alone, 100 * wanted)


def test_the_weights_of_the_barrier_are_those_of_the_round(played: tuple[Game, Outcome]):
    """They are normalised once a round, and again when a member has joined."""
    game, outcome = played
    again = game.empty_ensemble()
    for member in outcome.ensemble.members:
        again.add(member)
        assert torch.equal(again.log_Z(game.eta), log_normaliser(again.S_train_NL, game.eta))


def test_labels_join_the_task_loss(tmp_path: Path):
    game, random, batch = toy_game(tmp_path, label_weight=0.5), torch.Generator().manual_seed(0), torch.arange(9)
    logits_NL, y_N = torch.randn(9, 3, generator=random), torch.from_numpy(game.data.train.y[:9])
    found = game.empty_ensemble()
    plain = eq6_loss(toy_game(tmp_path), found, logits_NL, batch)
    expected = 0.5 * torch.nn.functional.cross_entropy(centre(logits_NL), y_N)
    torch.testing.assert_close(eq6_loss(game, found, logits_NL, batch) - plain, expected)


def test_the_running_average_is_judged_with_a_gradient_of_the_members_size(tmp_path: Path):
    """With residuals that are all zero so far, both task losses have the same gradient to first order."""
    norms = []
    for task_loss in ("member", "running_average"):
        game = toy_game(tmp_path, task_loss=task_loss, temperature=50.0)
        found = with_residual(game, torch.zeros(150, 3), members=6)
        logits_NL = (game.target.train_NL[:20] + 0.1).mul(1.01).requires_grad_()
        (gradient,) = torch.autograd.grad(eq6_loss(game, found, logits_NL, torch.arange(20)), logits_NL)
        norms.append(float(gradient.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_pitfall_12_training_mode_is_only_for_the_candidate(tmp_path: Path):
    game = toy_game(tmp_path)
    ensemble = run_rounds(game).ensemble
    modes: list[bool] = []
    for member in ensemble.members:
        member.network.register_forward_pre_hook(lambda module, _inputs: modes.append(module.training))
    train_candidate(game, ensemble, game.trials(0, len(ensemble))[0], Search())
    assert modes == [], "earlier members are not even evaluated: their taps are stored"


def test_pitfall_10_eta_can_be_scaled(tmp_path: Path):
    game = toy_game(tmp_path)
    config = game.config
    assert game.eta == pytest.approx(1 / game.B)
    assert eta_of(toy_game(tmp_path, eta_rule="literal", eta=0.3).config, game.B, 150) == 0.3
    theorem = toy_game(tmp_path, eta_rule="theorem").eta
    assert theorem == pytest.approx(math.sqrt(math.log(300) / config.rounds) / (2 * game.B)), "as Theorem 1 prints it"


def test_B_is_fixed_from_the_centred_teacher(tmp_path: Path):
    game = toy_game(tmp_path, bound_factor=2.0)
    assert pytest.approx(2 * float(game.target.train_NL.abs().max())) == game.B
    torch.testing.assert_close(game.target.train_NL.sum(dim=1), torch.zeros(150), atol=1e-4, rtol=0)

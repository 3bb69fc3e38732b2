"""Refinement: all members trained together, connections live, and never worse on validation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bundle import open_bundle
from bundle.reference import running_average
from tests.training.toy import CONFIG, toy_data, toy_game
from training import FullyConnected, boosting, distil, refine
from training.bdistil import Outcome, run_rounds
from training.determinism import repeatable
from training.ensemble import Features
from training.game import Game
from training.refine import Chain, prefix_loss, prefix_weights, validation_loss

SETTINGS = {"connection": "dense", "refine_epochs": 4, "refine_learning_rate": 0.02}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The toy's own settings, so that what is compared is equal to the bit."""
    with repeatable(CONFIG.threads):
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Game, Outcome]:
    game = toy_game(tmp_path_factory.mktemp("played"), **SETTINGS)
    return game, run_rounds(game)


@pytest.fixture(scope="module")
def refined(played: tuple[Game, Outcome]) -> Outcome:
    return refine.refine(*played)


def hashes(outcome: Outcome) -> list[list[bytes]]:
    return [[value.numpy().tobytes() for value in m.network.state_dict().values()] for m in outcome.ensemble.members]


def test_without_epochs_nothing_is_touched(tmp_path: Path):
    game = toy_game(tmp_path, rounds=1)
    outcome = run_rounds(game)
    assert refine.refine(game, outcome) is outcome


def test_a_chain_answers_what_the_stored_residuals_say(played: tuple[Game, Outcome]):
    _, outcome = played
    ensemble = outcome.ensemble
    averages = Chain(ensemble.members).eval()(ensemble.train.x)
    assert len(averages) == 3
    expected = ensemble.teacher_train_NL + ensemble.S_train_NL / 3
    torch.testing.assert_close(boosting.centre(averages[-1]).double(), expected, rtol=0, atol=1e-4)


def test_gradients_go_through_the_connections_into_earlier_members(played: tuple[Game, Outcome]):
    _, outcome = played
    chain = Chain(outcome.ensemble.members).train()
    *_, before, last = chain(outcome.ensemble.train.x)
    own_NL = 3 * last - 2 * before.detach()
    # The logits of the last member alone; those of earlier ones reach it through their taps only.
    heads = [network.head[-1].weight for network in chain.networks]
    blocks = [network.stages[0].block[0].linear.weight for network in chain.networks]
    own_NL.square().sum().backward()
    assert all(bool(weight.grad.abs().sum() > 0) for weight in [*blocks, heads[-1]])
    assert all(p.grad is None for member in outcome.ensemble.members for p in member.network.parameters())


def test_each_member_runs_once_a_batch_in_order_and_in_training_mode(played: tuple[Game, Outcome]):
    _, outcome = played
    chain, ran = Chain(outcome.ensemble.members).train(), list[int]()
    for index, network in enumerate(chain.networks):
        network.register_forward_pre_hook(lambda module, _inputs, index=index: ran.append(index * module.training))
    chain(outcome.ensemble.train.x[:8])
    assert ran == [0, 1, 2]


def test_the_loss_is_the_weighted_mean_over_prefixes(tmp_path: Path):
    random = torch.Generator().manual_seed(0)
    averages, teacher_NL = [torch.randn(5, 3, generator=random) for _ in range(3)], torch.randn(5, 3, generator=random)
    y_N = torch.zeros(5, dtype=torch.int64)
    each = [float(boosting.distillation_loss(average_NL, teacher_NL, 4.0)) for average_NL in averages]
    alike = prefix_loss(toy_game(tmp_path), averages, teacher_NL, y_N)
    assert float(alike) == pytest.approx(sum(each) / 3)
    early = prefix_loss(toy_game(tmp_path, refine_emphasis=-1.0), averages, teacher_NL, y_N)
    assert float(early) == pytest.approx((each[0] + each[1] / 2 + each[2] / 3) / (1 + 1 / 2 + 1 / 3))
    assert prefix_weights(2, 1.0) == pytest.approx([1 / 3, 2 / 3])


def test_it_makes_the_prefixes_better_and_says_how(played: tuple[Game, Outcome], refined: Outcome):
    game, outcome = played
    record = refined.refinement
    assert record is not None
    assert record.validation_loss == pytest.approx(
        validation_loss(game, refined.ensemble, Chain(refined.ensemble.members))
    )
    assert record.validation_loss < 0.8 * record.validation_loss_before
    assert (record.epochs, record.kept > 0) == (4, True)
    assert len(record.smallest_edges) == len(record.eq7_shares) == 3
    assert (record.smallest_edges[0], record.eq7_shares[0]) == (0, 0), "in the first round every pair is a tie"
    assert [m.round for m in refined.ensemble.members] == [m.round for m in outcome.ensemble.members]


def test_features_and_residuals_belong_to_the_refined_members(played: tuple[Game, Outcome], refined: Outcome):
    game, outcome = played
    features, S_NL = Features(refined.ensemble.train.x), 0.0
    for index, member in enumerate(refined.ensemble.members):
        logits_NL, taps = features.evaluate(member.network, member.sources)
        torch.testing.assert_close(logits_NL.mean(dim=1), torch.zeros(len(logits_NL)), atol=1e-5, rtol=0)
        features.add(index, taps)
        S_NL = S_NL + logits_NL.double() - game.target.train_NL
    assert torch.equal(refined.ensemble.S_train_NL, S_NL)
    assert refined.ensemble.S_train_NL.abs().mean() < outcome.ensemble.S_train_NL.abs().mean()


def test_its_facts_are_those_of_definition_1_for_the_refined_members(played: tuple[Game, Outcome], refined: Outcome):
    game, _ = played
    ensemble, last = refined.ensemble, refined.ensemble.members[-1]
    l_NL = ensemble.train.evaluate(last.network, last.sources)[0].double() - game.target.train_NL
    S_NL = ensemble.S_train_NL - l_NL
    record = refined.refinement
    assert record is not None
    assert record.smallest_edges[-1] == pytest.approx(float(boosting.edges(S_NL, l_NL, game.eta).min()), rel=1e-6)
    assert record.eq7_shares[-1] == pytest.approx(boosting.eq7_share(S_NL, l_NL))


def test_pitfall_12_refined_members_are_frozen_and_validation_moves_no_statistics(
    played: tuple[Game, Outcome], refined: Outcome
):
    game, outcome = played
    for member in refined.ensemble.members:
        assert not any(module.training for module in member.network.modules())
        assert not any(p.requires_grad or p.grad is not None for p in member.network.parameters())
    chain = Chain(outcome.ensemble.members).train()
    before = copy.deepcopy(chain.state_dict())
    validation_loss(game, outcome.ensemble, chain)
    assert chain.training
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_when_it_makes_them_worse_the_members_stay_as_they_were_to_the_bit(tmp_path: Path, rate: float):
    game = toy_game(tmp_path, **{**SETTINGS, "refine_learning_rate": rate, "refine_epochs": 2})
    outcome = run_rounds(game)
    before = hashes(outcome)
    kept = refine.refine(game, outcome)
    assert hashes(kept) == hashes(outcome) == before
    assert torch.equal(kept.ensemble.S_train_NL, outcome.ensemble.S_train_NL)
    record = kept.refinement
    assert record is not None
    assert (record.kept, record.validation_loss) == (0, record.validation_loss_before)
    assert record.smallest_edges == pytest.approx([m.round.smallest_edge for m in outcome.ensemble.members], rel=1e-6)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(
    played: tuple[Game, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses, seen = iter([9.0, 5.0, 2.0, float("nan"), 4.0]), list[torch.Tensor]()

    def scripted(_game: Game, _ensemble: object, chain: Chain) -> float:
        seen.append(chain.networks[0].stages[0].transition[0].weight.detach().clone())
        return next(losses)

    monkeypatch.setattr(refine, "validation_loss", scripted)
    game = toy_game(tmp_path, **SETTINGS)
    outcome = refine.refine(game, played[1])
    assert outcome.refinement is not None
    assert (outcome.refinement.kept, outcome.refinement.validation_loss) == (2, 2.0)
    kept = outcome.ensemble.members[0].network.stages[0].transition[0].weight
    assert [torch.equal(kept, weight) for weight in seen] == [False, False, True, False, False]


def test_what_is_served_is_the_refined_ensemble(tmp_path: Path, refined: Outcome):
    data, logits = toy_data()
    config = toy_game(tmp_path, **SETTINGS).config
    distil(logits, data, [FullyConnected(widths=(5, 4))], config, models=tmp_path)
    bundle = open_bundle(tmp_path, CONFIG.name)
    assert bundle.manifest.training is not None
    assert bundle.manifest.training.refinement == refined.refinement
    *_, answer_NL = running_average(bundle, data.validation.x)
    expected_NL = refined.ensemble.teacher_validation_NL + refined.ensemble.S_validation_NL / 3
    torch.testing.assert_close(torch.from_numpy(answer_NL).double(), expected_NL, atol=1e-4, rtol=0)

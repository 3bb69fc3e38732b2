"""The baselines: what they cost, what they share, and that each learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.toy import toy_game
from training import FullyConnected
from training.baselines import batch_ensemble, measure, multi_exit, no_resched, resched, snapshot
from training.baselines.answer import logits_of
from training.baselines.batch_ensemble import RankOne
from training.baselines.no_resched import quality, within
from training.baselines.single import cost_of, flops_of
from training.determinism import seeded
from training.game import Game

SMALL = FullyConnected(widths=(5, 4))
WIDE = FullyConnected(widths=(8, 8))
EXACT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def game(tmp_path: Path) -> Game:
    return toy_game(tmp_path, epochs=4)


def test_a_budget_buys_the_widest_network_it_pays_for(game: Game):
    for budget in (300, 1000, 5000):
        bought = within(game, WIDE, budget)
        assert cost_of(game, bought) <= budget
        wider = FullyConnected(widths=(bought.widths[0] + 1, bought.widths[1] + 1))
        assert cost_of(game, wider) > budget


def test_resched_costs_k_members_and_is_the_same_twice(game: Game):
    each = cost_of(game, SMALL)
    points = measure(game, resched(game, SMALL, 3))
    assert [point.flops for point in points] == [each, 2 * each, 3 * each]
    assert all(0.3 < point.score <= 1 for point in points)
    assert points == measure(game, resched(game, SMALL, 3)), "by seed"


def test_an_answer_is_the_mean_of_its_networks_logits(game: Game):
    answer = resched(game, SMALL, 2)[1]
    one, two = (logits_of(game, network, game.data.test) for network in answer)
    expected = ((one + two) / 2).argmax(dim=1).numpy() == game.data.test.y
    assert measure(game, [answer])[0].score == expected.mean()


def test_no_resched_takes_the_family_that_validates_best_within_each_budget(game: Game):
    budgets = [cost_of(game, SMALL), 3 * cost_of(game, SMALL)]
    families = [FullyConnected(widths=(1,)), WIDE]
    chosen = no_resched(game, families, budgets)
    alone = [no_resched(game, [family], budgets) for family in families]
    for (network,), *candidates in zip(chosen, *alone, strict=True):
        qualities = [quality(game, candidate) for (candidate,) in candidates]
        assert quality(game, network) == max(qualities) > min(qualities)
    assert all(flops_of(game, network) <= budget for (network,), budget in zip(chosen, budgets, strict=True))


def test_snapshots_come_latest_first_from_one_network(game: Game):
    answers = snapshot(game, SMALL, 3)
    assert [len(answer) for answer in answers] == [1, 2, 3]
    latest, before, first = answers[-1]
    assert answers[0] == (latest,)
    weights = [network.network.stages[0].block[0].linear.weight for network in (latest, before, first)]
    assert not torch.equal(weights[0], weights[1])
    # Cycles begin where the last one ended, so neighbours are closer than the ends.
    assert torch.dist(weights[0], weights[1]) < torch.dist(weights[0], weights[2])


def test_batch_ensemble_members_are_one_weight_times_rank_one_each(game: Game):
    answers = batch_ensemble(game, SMALL, 2)
    one, two = (network.network.stages[0].block[0].linear.weight for network in answers[-1])
    ratio = one.double() / two.double()
    assert torch.linalg.matrix_rank(ratio, rtol=1e-4) == 1, "W r1 s1 / W r2 s2"
    assert not torch.allclose(one, two)
    each = cost_of(game, SMALL)
    assert [point.flops for point in measure(game, answers)] == [each, 2 * each]


def test_batch_ensemble_members_begin_near_their_shared_weight():
    weight = torch.ones(400, 300)
    rank_one = seeded(0, lambda: RankOne(weight))
    for vector in (rank_one.r.detach(), rank_one.s.detach()):
        assert float(vector.mean()) == pytest.approx(1, abs=0.1), "random signs have a mean of 0"
        assert float(vector.std()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(rank_one(weight), torch.outer(rank_one.r, rank_one.s))


def test_the_exits_of_one_network_cost_more_and_more_within_the_budget(game: Game):
    budget = 5 * cost_of(game, SMALL)
    answers = multi_exit(game, WIDE, 3, budget)
    points = measure(game, answers)
    costs = [point.flops for point in points]
    assert costs == sorted(set(costs))
    assert 0.6 * budget < costs[-1] <= budget
    (first,), (last,) = answers[0], answers[-1]
    assert first.trunk is last.trunk
    x = torch.from_numpy(game.data.test.x)
    together = [exit_(x) for (exit_,) in answers]
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("make", [resched, snapshot, batch_ensemble])
def test_distilled_members_come_closer_to_the_teacher_than_chance(tmp_path: Path, make):
    game = toy_game(tmp_path, epochs=20)
    assert measure(game, make(game, SMALL, 2))[-1].score > 0.5


def test_multi_exit_learns(game: Game):
    assert measure(game, multi_exit(game, WIDE, 2, 3000))[-1].score > 0.5

"""Gradient descent: every sample once an epoch, resumable to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from training.fitting import Fitting, Schedule

SAMPLES = 65


def fitting(epochs: int = 4, seed: int = 0, batch_size: int = 32) -> Fitting:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    x = torch.randn(SAMPLES, 3)

    def loss(batch: Tensor) -> Tensor:
        return (network(x[batch]) - x[batch].sum(dim=1, keepdim=True)).square().mean()

    schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=0.01, weight_decay=0.0)
    return Fitting(network, loss, SAMPLES, schedule, seed)


@pytest.mark.parametrize("batch_size", [2, 32, 64, 65, 100])
def test_every_sample_is_visited_exactly_once_an_epoch(batch_size: int):
    batches = fitting(batch_size=batch_size).order()
    assert sorted(torch.cat(batches).tolist()) == list(range(SAMPLES))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= max(batch_size, 3)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2, "one sample has no batch statistics"
    if batch_size > 2:
        assert len(batches) == math.ceil(SAMPLES / batch_size)


def test_an_odd_number_of_samples_in_twos_can_be_learned_from():
    fitting(batch_size=2).run_epoch()


def test_order_is_decided_by_the_seed_and_differs_between_epochs():
    first, same, other = fitting(seed=1), fitting(seed=1), fitting(seed=2)
    one = torch.cat(first.order())
    assert torch.equal(one, torch.cat(same.order()))
    assert not torch.equal(one, torch.cat(other.order()))
    assert not torch.equal(one, torch.cat(first.order()))


def test_it_learns():
    run = fitting(epochs=30)
    losses = [run.run_epoch() for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resuming_from_any_epoch_gives_the_same_bits(stop: int):
    straight, interrupted = fitting(), fitting()
    for _ in range(4):
        straight.run_epoch()
    for _ in range(stop):
        interrupted.run_epoch()
    state = copy.deepcopy(interrupted.state())
    interrupted.run_epoch()  # what the killed process did after its last checkpoint
    resumed = fitting()
    resumed.restore(state)
    while resumed.epochs_done < 4:
        resumed.run_epoch()
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name

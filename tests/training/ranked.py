"""`python -m tests.training.ranked FOLDER` with the variables that `torchrun` sets: one process of several.

It plays two rounds on the toy problem, then fits batches so small that some process owns no sample of them, and leaves
what it knows in FOLDER/<rank>.pt.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.training.toy import toy_data, toy_game
from training import ranks
from training.bdistil import run_rounds
from training.fitting import Fitting, Schedule
from training.networks import synchronise

SETTINGS = {"connection": "dense", "rounds": 2, "epochs": 2, "batch_size": 40}


def tiny_batches() -> nn.Module:
    """Three batches of three samples, over batch statistics."""
    torch.manual_seed(1)
    network = synchronise(
        nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    )
    x = ranks.share(torch.randn(9, 1, 3, 3))
    schedule = Schedule(epochs=1, batch_size=3, learning_rate=0.01, weight_decay=0.0)
    fitting = Fitting(network, lambda batch: (network(x[batch]) - 1).square().mean(), len(x), schedule, seed=4)
    fitting.run_epoch()
    return network


def play(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    game = toy_game(folder, **SETTINGS)
    ensemble = run_rounds(game).ensemble
    rounds = [member.round for member in ensemble.members]
    return {
        "samples": torch.from_numpy(ranks.share(toy_data()[0].train.x)),
        "S": ensemble.S_train_NL,
        "members": [member.network.state_dict() for member in ensemble.members],
        "decided": [[one.smallest_edge, one.eq7_share, one.effective_samples] for one in rounds],
        "tiny": tiny_batches().state_dict(),
    }


def prepare(folder: Path) -> bool:
    """Whether somebody was here before; the first one of all says that it cannot be done, which ends nothing."""
    before = (folder / "prepared").exists()
    (folder / "prepared").touch()
    if not before:
        raise ValueError
    return before


def prepared_before(folder: Path) -> bool:
    with contextlib.suppress(ValueError), ranks.one_first():
        return prepare(folder)
    return False


if __name__ == "__main__":
    with ranks.joined("cpu"):
        known = {"prepared_before": prepared_before(Path(sys.argv[1]))}
        torch.save(play(Path(sys.argv[1])) | known, Path(sys.argv[1]) / f"{ranks.rank()}.pt")

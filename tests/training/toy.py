"""A toy problem for the training tests: three noisy blobs, a teacher known by its logits, seconds to train."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from training import Config, Data, FullyConnected, Logits, Split
from training.checkpoint import Checkpoint
from training.ensemble import Ensemble
from training.game import Game
from training.networks import ModelClass
from training.pipeline import game_of
from training.progress import Quiet

FEATURES, CLASSES = 6, 3
SIZES = {"train": 150, "validation": 60, "test": 70}

CONFIG = Config(
    name="toy",
    threads=1,
    rounds=3,
    epochs=3,
    max_search=1,
    batch_size=32,
    first_expansion=1,
    eta_rule="scaled",
    task_loss="running_average",
    on_failure="best",
)


def toy_data(seed: int = 0) -> tuple[Data, Logits]:
    """Points around three centres, labelled by the nearest; the teacher's logits are a quadratic of the point."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(CLASSES, FEATURES))
    parts, logits = {}, {}
    for name, size in SIZES.items():
        x = random.normal(size=(size, FEATURES)).astype(np.float32)
        scores = -((x[:, None] - centres) ** 2).sum(axis=2)
        parts[name] = Split(x, scores.argmax(axis=1))
        logits[name] = scores
    return Data(**parts, classes=("a", "b", "c")), Logits(**logits)


def toy_game(folder: Path, *, classes: tuple[ModelClass, ...] = (FullyConnected(widths=(5, 4)),), **changes) -> Game:
    """A game on the toy problem, with settings of CONFIG changed."""
    data, logits = toy_data()
    checkpoint = Checkpoint(folder / ".checkpoint", "toy")
    return game_of(logits, data, classes, dataclasses.replace(CONFIG, **changes), checkpoint, Quiet())


def with_residual(game: Game, S_NL: torch.Tensor, members: int = 1) -> Ensemble:
    """An ensemble that claims `members` members and the given cumulative residual on the training samples."""
    ensemble = game.empty_ensemble()
    ensemble.S_train_NL = S_NL.double()
    ensemble.members = [None] * members  # nothing below reads a member
    return ensemble

"""Early classification: the loss at every step, thresholds, what Table 1 says, and E-RNN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.training.toy import CONFIG, toy_game
from training import Data, FullyConnected, Logits, Recurrent, Split, boosting
from training.baselines.ernn import ernn
from training.bdistil import run_rounds
from training.checkpoint import Checkpoint
from training.early import (
    Early,
    choose_threshold,
    early_row,
    judged,
    look,
    look_ensemble,
    measure_early,
    steps_of,
    temperatures,
)
from training.errors import BadConfig
from training.find_wl import eq6_loss
from training.game import Game
from training.pipeline import game_of
from training.progress import Quiet
from training.refine import Chain, refine

STEPS, CLASS = 6, Recurrent(cell="gru", widths=(4,))
SETTINGS = {"judged_steps": "every", "rounds": 2, "epochs": 2, "gamma": 1e6, "bound_factor": 20.0}


def sequences(size: int, seed: int) -> Split:
    """Three classes that the first step already tells apart, if not surely."""
    random = np.random.default_rng(seed)
    y = np.arange(size) % 3
    x = random.normal(size=(size, STEPS, 3)) + 1.5 * np.eye(3)[y][:, None]
    return Split(x.astype(np.float32), y)


def game(folder: Path, classes: Sequence[Recurrent] = (CLASS,), **changes) -> Game:
    parts = {name: sequences(size, size) for name, size in {"train": 120, "validation": 60, "test": 61}.items()}
    logits = Logits(**{name: 4 * np.eye(3)[split.y] for name, split in parts.items()})
    config = dataclasses.replace(CONFIG, **{**SETTINGS, **changes})
    data = Data(**parts, classes=("a", "b", "c"), sequences=True)
    return game_of(logits, data, classes, config, Checkpoint(folder / "c", "x"), Quiet())


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory):
    started = game(tmp_path_factory.mktemp("early"))
    return started, run_rounds(started)


def test_the_task_loss_is_the_mean_over_batch_and_steps(tmp_path: Path):
    started = game(tmp_path, task_loss="member")
    ensemble, batch = started.empty_ensemble(), torch.arange(7)
    logits_NTL = torch.randn(7, STEPS, 3, generator=torch.Generator().manual_seed(0))
    teacher_NL = ensemble.teacher_train_NL[batch]
    found = eq6_loss(started, ensemble, logits_NTL[:, -1], batch, logits_NTL)
    each = [
        boosting.distillation_loss(boosting.centre(logits_NTL[i, t])[None], teacher_NL[i][None], CONFIG.temperature)
        for i in range(7)
        for t in range(STEPS)
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_one_step_only_is_the_loss_of_the_last(tmp_path: Path):
    started = game(tmp_path)
    ensemble, batch = started.empty_ensemble(), torch.arange(7)
    logits_NL = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    plain = eq6_loss(started, ensemble, logits_NL, batch)
    torch.testing.assert_close(eq6_loss(started, ensemble, logits_NL, batch, logits_NL[:, None]), plain)


def test_the_residual_after_the_last_step_is_S(played):
    _, outcome = played
    ensemble, batch = outcome.ensemble, torch.tensor([5, 0, 9])
    S_NTL = ensemble.S_of_steps(batch)
    assert S_NTL.shape == (3, STEPS, 3)
    torch.testing.assert_close(S_NTL[:, -1].double(), ensemble.S_train_NL[batch], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(S_NTL[:, 0], S_NTL[:, -1], atol=1e-2)


def test_judging_every_step_gives_better_early_answers(played, tmp_path: Path):
    started, outcome = played
    late = game(tmp_path, judged_steps="last")
    losses = []
    for which, found in ((started, outcome), (late, run_rounds(late))):
        (*_, logits_NKL) = look_ensemble(found.ensemble, which.data.test, every=1)
        first = torch.from_numpy(logits_NKL[:, 0])
        losses.append(float(functional.cross_entropy(first, torch.from_numpy(which.data.test.y))))
    assert losses[0] < losses[1]


def test_every_prefix_is_looked_at_as_it_is_served(played):
    started, outcome = played
    looks = look_ensemble(outcome.ensemble, started.data.validation, every=2)
    assert [logits.shape for logits in looks] == [(60, STEPS // 2, 3)] * 2
    average_NL = outcome.ensemble.S_validation_NL / 2 + outcome.ensemble.teacher_validation_NL
    np.testing.assert_allclose(looks[1][:, -1], average_NL.numpy(), atol=1e-4)


def test_refinement_judges_every_step_too(played):
    started, outcome = played
    chain = Chain(outcome.ensemble.members, "every")
    averages = chain(outcome.ensemble.train.x[:5])
    assert [tuple(average.shape) for average in averages] == [(5, STEPS, 3)] * 2
    refining = dataclasses.replace(started, config=dataclasses.replace(started.config, refine_epochs=1))
    refined = refine(refining, outcome)
    assert refined.refinement is not None
    assert refined.refinement.validation_loss <= refined.refinement.validation_loss_before


def test_ernn_learns_labels_at_every_step(tmp_path: Path):
    started = game(tmp_path, epochs=40)
    network = ernn(started, CLASS)
    logits_NKL = look(network, started.data.test, every=3)
    assert logits_NKL.shape == (61, 2, 3)
    accuracy = (logits_NKL.argmax(axis=2) == started.data.test.y[:, None]).mean(axis=0)
    assert accuracy[0] > 0.8, "after three steps, where chance is a third"
    validation_NKL = look(network, started.data.validation, every=3)
    row = early_row(started.data, validation_NKL, logits_NKL, every=3)
    believable = temperatures(validation_NKL, started.data.validation.y)[:, None]
    assert row.threshold == choose_threshold(validation_NKL / believable, started.data.validation.y)
    assert row == measure_early(logits_NKL / believable, started.data.test.y, row.threshold, every=3)
    again = look(ernn(started, CLASS), started.data.test, every=3)
    np.testing.assert_array_equal(again, logits_NKL)


def test_frames_are_looked_at_where_they_end(tmp_path: Path):
    started = game(tmp_path, classes=[Recurrent(cell="gru", widths=(4,), frame=2)])
    outcome = run_rounds(started)
    (*_, looks) = look_ensemble(outcome.ensemble, started.data.validation, every=2)
    assert looks.shape == (60, STEPS // 2, 3)
    average_NL = outcome.ensemble.S_validation_NL / 2 + outcome.ensemble.teacher_validation_NL
    np.testing.assert_allclose(looks[:, -1], average_NL.numpy(), atol=1e-4)
    changed = Split(started.data.validation.x.copy(), started.data.validation.y)
    changed.x[:, 4:] = 7
    np.testing.assert_array_equal(look_ensemble(outcome.ensemble, changed, every=2)[-1][:, :2], looks[:, :2])
    assert look(outcome.ensemble.members[0].network, changed, every=6).shape == (60, 1, 3)
    with pytest.raises(BadConfig, match="reads 2 steps at once cannot be looked at after every 3"):
        look_ensemble(outcome.ensemble, changed, every=3)


def test_only_recurrent_members_answer_after_every_step(tmp_path: Path):
    with pytest.raises(BadConfig, match=r"judged_steps=every is for recurrent members only, and fc-5-4 is none"):
        toy_game(tmp_path, judged_steps="every")
    network = FullyConnected(widths=(3,)).build(toy_game(tmp_path).normalise, (6,), 3)
    logits_NL, taps = network(torch.zeros(2, 6))
    assert judged("last", network, logits_NL, taps) is logits_NL
    with pytest.raises(TypeError, match="only a recurrent network"):
        steps_of(network, taps)


# ---------------------------------------------------------------- thresholds and Table 1


def confident(probability: float, label: int) -> np.ndarray:
    """Logits of three classes with that probability for `label`."""
    others = (1 - probability) / 2
    return np.log(np.where(np.arange(3) == label, probability, others))


# Four looks at three samples: sure and right at once; wrong at first, then right; never sure, wrong at the end.
LOOKS = np.array(
    [
        [confident(0.9, 0)] * 4,
        [confident(0.8, 1), confident(0.6, 0), confident(0.95, 0), confident(0.97, 0)],
        [confident(0.5, 0), confident(0.5, 0), confident(0.5, 0), confident(0.6, 1)],
    ]
)
LABELS = np.zeros(3, np.int64)


def test_table_1_by_hand():
    half, most, end = measure_early(LOOKS, LABELS, threshold=0.85, every=10).instants
    assert (half.steps, most.steps, end.steps) == (20, 30, 40)
    assert (half.forced, most.forced, end.forced) == pytest.approx((1, 1, 2 / 3))
    assert (half.exited, most.exited, end.exited) == pytest.approx((1 / 3, 2 / 3, 1))
    assert (half.exited_accuracy, most.exited_accuracy, end.exited_accuracy) == pytest.approx((1, 1, 2 / 3))
    assert (half.accuracy, most.accuracy, end.accuracy) == pytest.approx((2 / 3,) * 3)


def test_who_leaves_early_keeps_that_answer():
    half, _, end = measure_early(LOOKS, LABELS, threshold=0.75, every=10).instants
    assert half.exited == pytest.approx(2 / 3)
    assert half.exited_accuracy == pytest.approx(1 / 2)
    assert half.accuracy == end.accuracy == pytest.approx(1 / 3), "the second left when it was wrong"


def test_nobody_leaves_under_a_threshold_of_one():
    found: Early = measure_early(LOOKS, LABELS, threshold=1.0, every=10)
    assert found.instants[0].exited == 0
    assert found.instants[0].exited_accuracy is None
    assert {round(instant.accuracy, 9) for instant in found.instants} == {round(2 / 3, 9)}


def test_the_threshold_is_the_lowest_that_costs_no_more_than_allowed():
    threshold = choose_threshold(LOOKS, LABELS, tolerance=0)
    assert measure_early(LOOKS, LABELS, threshold, 10).instants[-1].accuracy >= 2 / 3
    assert 0.3 <= threshold <= 0.5, "at the bottom the third is answered before it goes wrong"
    only = LOOKS[1:2]
    assert 0.8 < choose_threshold(only, LABELS[:1], tolerance=0) <= 0.82
    assert choose_threshold(only, LABELS[:1], tolerance=1) == pytest.approx(0.3)


def test_a_model_that_is_too_sure_early_gets_a_threshold_all_the_same():
    """Right in six of ten cases at first and in nine at the end, and always as sure as can be."""
    y = np.zeros(200, np.int64)
    looks = np.array(
        [[confident(1 - 1e-9, int(i % 10 >= 6)), confident(1 - 1e-9, int(i % 10 == 9))] for i in range(200)]
    )
    assert choose_threshold(looks, y, tolerance=0.01) == 1.0, "nobody could leave"
    believable = temperatures(looks, y)
    assert believable[0] > believable[1] > 1
    first, last = (np.exp(logits - np.log(np.exp(logits).sum())).max() for logits in looks[0] / believable[:, None])
    assert first < 0.7
    assert 0.85 < last < 0.95


def test_no_threshold_is_low_enough():
    """Sure of the wrong class at first, and only then right."""
    looks = np.array([[confident(0.9999, 1), confident(0.5, 0)]])
    assert choose_threshold(looks, LABELS[:1]) == 1.0

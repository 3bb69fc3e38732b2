"""A regression: standardised inside, in the unit of the labels outside, the game between the two unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import open_bundle
from bundle.reference import running_average
from tests.training.toy import CONFIG, FEATURES, SIZES, toy_game
from training import Data, FullyConnected, Logits, Split, distil
from training.baselines import measure, resched
from training.baselines.answer import score
from training.checkpoint import Checkpoint
from training.errors import BadTeacher
from training.evaluate import measure_regression, r2, rmse
from training.game import Game
from training.networks import Normalise
from training.pipeline import game_of
from training.progress import Quiet
from training.tasks import Classification, Regression

CLASSES = (FullyConnected(widths=(5, 4)),)


def values(seed: int = 0) -> tuple[Data, Logits]:
    """Two outputs of very different units; the teacher knows them, the labels have noise besides."""
    random = np.random.default_rng(seed)
    parts, teacher = {}, {}
    for name, size in SIZES.items():
        x = random.normal(size=(size, FEATURES)).astype(np.float32)
        clean = np.stack([500 + 100 * x[:, 0], 0.01 * (x[:, 1] + x[:, 2])], axis=1)
        parts[name] = Split(x, clean + [5.0, 0.001] * random.normal(size=clean.shape))
        teacher[name] = clean
    return Data(**parts, classes=("price", "rate"), task="regression"), Logits(**teacher)


@pytest.fixture
def game(tmp_path: Path) -> Game:
    data, teacher = values()
    return game_of(teacher, data, CLASSES, CONFIG, Checkpoint(tmp_path / ".checkpoint", "toy"), Quiet())


def test_the_game_is_played_on_standardised_values(game: Game):
    assert isinstance(game.task, Regression)
    assert game.target.train_NL.mean(dim=0).abs().max() < 1e-5
    torch.testing.assert_close(game.target.train_NL.std(dim=0, correction=0), torch.ones(2))
    restored = game.task.restore(game.target.test_NL).numpy()
    np.testing.assert_allclose(restored, values()[1].test, rtol=1e-5, atol=1e-6)
    assert pytest.approx(1.5 * float(game.target.train_NL.abs().max())) == game.B


def test_an_output_that_is_constant_keeps_its_scale():
    task = Regression.of(torch.tensor([[1e6, 3.0], [1e6, 5.0]]))
    assert task.scale_L.tolist() == [1, 1]
    assert task.standardise(torch.tensor([[1e6, 4.0]])).tolist() == [[0, 0]]
    assert Regression.of(torch.zeros(3, 1)).scale_L.tolist() == [1]


def test_the_unit_of_an_output_is_no_matter():
    values_NL = torch.tensor([[1.0, 3.0], [2.0, -5.0], [4.0, 0.5]])
    expected_NL = Regression.of(values_NL).standardise(values_NL)
    for unit in (1e-9, 1e-5, 1e5):
        torch.testing.assert_close(Regression.of(unit * values_NL).standardise(unit * values_NL), expected_NL)


def test_pitfall_15_is_of_classifiers_only(tmp_path: Path, game: Game):
    """Softmax does not see a shift of a sample's outputs, a squared error does."""
    outputs_NL = torch.tensor([[1.0, 3.0]])
    assert isinstance(toy_game(tmp_path).task, Classification)
    assert toy_game(tmp_path).task.gauge(outputs_NL).tolist() == [[-1, 1]]
    assert game.task.gauge(outputs_NL).tolist() == [[1, 3]]
    assert game.task.loss(outputs_NL + 1, outputs_NL, torch.zeros(len(outputs_NL), 1)).item() == 1


def test_a_single_output_is_not_centred_away(game: Game):
    network = CLASSES[0].build(Normalise.of(game.data.train.x), (FEATURES,), 1).eval()
    x = torch.from_numpy(game.data.test.x)
    before = network(x)[0]
    assert torch.equal(game.task.finish(network)(x)[0], before)
    assert before.abs().max() > 0


def test_members_are_served_in_the_unit_of_the_labels(game: Game):
    network = game.task.finish(game.build(game.trials(0, 0)[0], 0))
    x = torch.from_numpy(game.data.test.x)
    own = network(x)[0]
    torch.testing.assert_close(game.task.served(network)(x)[0], game.task.restore(own), rtol=1e-5, atol=1e-4)
    assert torch.equal(network(x)[0], own), "the member of the game is left as it is"


def test_measures_by_hand():
    y = np.array([[0.0], [2.0], [4.0]])
    found = np.array([[1.0], [2.0], [2.0]], np.float32)
    assert rmse(found, y) == pytest.approx(np.sqrt(5 / 3))
    assert r2(found, y) == pytest.approx(1 - 5 / 8)
    (prefix,) = measure_regression([found], y, y + 1, [30], 60)
    assert prefix.rmse == pytest.approx(np.sqrt(5 / 3))
    assert prefix.r2 == prefix.quality == pytest.approx(1 - 5 / 8)
    assert prefix.teacher_rmse == pytest.approx(np.sqrt((0 + 1 + 9) / 3))
    assert prefix.flops_fraction == 0.5
    assert (prefix.accuracy, prefix.nll, prefix.temperature) == (None, None, 1)


def test_a_bundle_of_a_regression(tmp_path: Path):
    data, teacher = values()
    config = dataclasses.replace(CONFIG, epochs=12, rounds=2, learning_rate=0.03)
    distil(teacher, data, CLASSES, config, models=tmp_path)
    bundle = open_bundle(tmp_path, "toy")
    manifest = bundle.manifest
    assert (manifest.task, manifest.classes, manifest.exits) == ("regression", ("price", "rate"), ())
    assert manifest.calibration is None
    assert manifest.teacher.rmse == pytest.approx(rmse(teacher.test, data.test.y))
    assert manifest.teacher.r2 == manifest.teacher.quality > 0.97
    answers = list(running_average(bundle, data.test.x))
    for prefix, answer in zip(manifest.prefixes, answers, strict=True):
        assert prefix.rmse == pytest.approx(rmse(answer, data.test.y))
        assert prefix.teacher_rmse == pytest.approx(rmse(answer, teacher.test))
    assert manifest.prefixes[1].quality > 0, "better than the mean, in the labels' own units"


def test_baselines_are_scored_in_the_unit_of_the_labels(game: Game):
    assert score(game, game.target.test_NL, game.data.test) == pytest.approx(
        rmse(values()[1].test, game.data.test.y), rel=1e-4
    )
    (point,) = measure(game, resched(game, CLASSES[0], 1))
    assert 3 < point.score < 100


def test_a_teacher_of_other_outputs_is_one_sentence(tmp_path: Path):
    data, teacher = values()
    wrong = Logits(train=teacher.train[:, :1], validation=teacher.validation, test=teacher.test)
    with pytest.raises(BadTeacher, match="The teacher has 1 outputs, but the data has 2"):
        distil(wrong, data, CLASSES, CONFIG, models=tmp_path)

"""Augmentation by index: each sample its own view, the same for everyone who looks, none of it in a decision."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.toy import CONFIG, toy_game
from training import Convolutional, Data, Logits, Split
from training.bdistil import run_rounds
from training.boosting import centre
from training.checkpoint import Checkpoint
from training.ensemble import Features, Recomputed, TrainedMember
from training.errors import BadConfig
from training.find_wl import see
from training.fitting import Fitting, Schedule
from training.game import Game
from training.networks import LogitsOnly, Normalise, StagedNetwork
from training.pipeline import game_of
from training.progress import Quiet
from training.views import CUTOUT, PAD, Views, crop_flip, cut_out

SHAPE = (2, 9, 11)
ALL = torch.arange(40)


def images(samples: int = 40, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (samples, *shape), dtype=torch.uint8, generator=generator)


def drawn(x: Tensor, augmentation: str = "crop_flip", seed: int = 0) -> Views:
    views = Views(x, augmentation)
    views.redraw(torch.Generator().manual_seed(seed))
    return views


def one_by_one(x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> np.ndarray:
    """The textbook's way: pad, slice, mirror, image after image."""
    height, width = x.shape[-2:]
    out = []
    for image, row, column, flip in zip(x.numpy(), top.tolist(), left.tolist(), mirrored.tolist(), strict=True):
        framed = np.pad(image, ((0, 0), (PAD, PAD), (PAD, PAD)))
        cropped = framed[:, row : row + height, column : column + width]
        out.append(cropped[:, :, ::-1] if flip else cropped)
    return np.stack(out)


def test_a_batch_is_cropped_and_mirrored_as_one_would_image_by_image():
    random = torch.Generator().manual_seed(1)
    x = images()
    top, left = (torch.randint(0, 2 * PAD + 1, (40,), generator=random) for _ in range(2))
    mirrored = torch.randint(0, 2, (40,), generator=random).bool()
    found = crop_flip(x, top, left, mirrored)
    assert found.dtype == torch.uint8
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), one_by_one(x, top, left, mirrored))


def test_the_middle_corner_moves_nothing():
    x, middle = images(), torch.full((40,), PAD)
    assert torch.equal(crop_flip(x, middle, middle, torch.zeros(40, dtype=torch.bool)), x)


def test_a_square_is_cut_out_around_its_own_place_and_nowhere_else():
    x = images(samples=3, shape=(2, 20, 24))
    row, column = torch.tensor([10, 0, 19]), torch.tensor([12, 3, 23])
    expected = x.clone()
    for image, i, j in zip(expected, row.tolist(), column.tolist(), strict=True):
        image[:, max(0, i - CUTOUT // 2) : i + CUTOUT // 2, max(0, j - CUTOUT // 2) : j + CUTOUT // 2] = 0
    assert torch.equal(cut_out(x, row, column), expected)


@pytest.mark.parametrize("augmentation", ["crop_flip", "crop_flip_cutout"])
@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:]])
def test_a_view_does_not_depend_on_the_batch_that_asks(augmentation: str, shape: tuple[int, ...]):
    views = drawn(images(shape=shape), augmentation)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    assert views[ALL].shape == (40, *shape)
    assert torch.equal(views[order], views[ALL][order])
    assert torch.equal(views[torch.tensor([7])], views[ALL][7:8])


def test_samples_and_epochs_have_views_of_their_own_and_a_seed_repeats_them():
    same = images()[:1].expand(40, *SHAPE).contiguous()
    views = drawn(same)
    first = views[ALL]
    assert len(torch.unique(first.flatten(1), dim=0)) > 20, "not one draw a batch"
    assert torch.equal(first, drawn(same)[ALL])
    views.redraw(torch.Generator().manual_seed(1))
    assert not torch.equal(first, views[ALL])


def test_without_augmentation_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    views = Views(images())
    views.redraw(generator)
    assert torch.equal(generator.get_state(), before), "or runs without augmentation would change"
    assert torch.equal(views[ALL], images())


@pytest.mark.parametrize("stop", [0, 2])
def test_resuming_gives_the_same_bits_under_augmentation(stop: int):
    def fitting() -> Fitting:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 9 * 11, 3))
        views = Views(images().float(), "crop_flip_cutout")
        schedule = Schedule(epochs=3, batch_size=16, learning_rate=0.01, weight_decay=0.0)
        return Fitting(network, lambda batch: network(views[batch] / 255).square().mean(), 40, schedule, 0, views=views)

    straight, interrupted, resumed = fitting(), fitting(), fitting()
    for _ in range(3):
        straight.run_epoch()
    for _ in range(stop):
        interrupted.run_epoch()
    resumed.restore(copy.deepcopy(interrupted.state()))
    while resumed.epochs_done < 3:
        resumed.run_epoch()
    assert torch.equal(straight.network[1].weight, resumed.network[1].weight)


def image_game(folder: Path, **changes) -> Game:
    """Noise whose brightest row tells the label, and a small random network as its teacher."""
    random = np.random.default_rng(0)
    parts = {}
    for name, size in (("train", 60), ("validation", 30), ("test", 30)):
        x, y = random.integers(0, 90, size=(size, 1, 8, 8)).astype(np.uint8), np.arange(size) % 3
        x[np.arange(size), 0, 2 * y + 1] = 200
        parts[name] = Split(x, y)
    data = Data(**parts, classes=("a", "b", "c"))
    torch.manual_seed(0)
    network = Convolutional(widths=(3, 4)).build(Normalise.of(data.train.x), (1, 8, 8), 3)
    settings = {"augment": "crop_flip", "connection": "dense", "rounds": 2, **changes}
    return game_of(
        LogitsOnly(network, "random"),
        data,
        [Convolutional(widths=(2, 3))],
        dataclasses.replace(CONFIG, **settings),
        Checkpoint(folder / ".checkpoint", "images"),
        Quiet(),
    )


def seen_by(game: Game, network: StagedNetwork) -> Tensor:
    """Logits of a network on the views of all samples, in eval mode."""
    with torch.no_grad():
        return centre(network.eval()(drawn(torch.from_numpy(game.data.train.x))[torch.arange(60)])[0])


def test_pitfall_13_a_candidate_that_equals_the_teacher_has_no_residual_on_any_view(tmp_path: Path):
    game = image_game(tmp_path)
    teacher = game.target.network.network
    ensemble = game.empty_ensemble()
    ensemble.add(TrainedMember(copy.deepcopy(teacher).freeze(), (), 0, None))
    seen = see(game, ensemble, drawn(ensemble.train.x), (0,), torch.arange(60))
    assert torch.equal(seen_by(game, teacher), seen.teacher_NL)
    assert not seen.S_NL.abs().gt(1e-6).any()
    assert not torch.allclose(seen.teacher_NL, game.target.train_NL, atol=1e-3), "or the views are the samples"


def test_pitfall_13_the_residual_that_decides_is_of_the_samples_as_they_are(tmp_path: Path):
    ensemble = run_rounds(image_game(tmp_path)).ensemble
    clean, S_NL = Features(ensemble.train.x), torch.zeros_like(ensemble.S_train_NL)
    for member in ensemble.members:
        S_NL += clean.extend(member).double() - ensemble.teacher_train_NL
    torch.testing.assert_close(ensemble.S_train_NL, S_NL, rtol=0, atol=1e-5)


def test_taps_that_are_computed_again_are_those_that_were_stored_and_nothing_is_kept(tmp_path: Path):
    ensemble = run_rounds(image_game(tmp_path)).ensemble
    assert isinstance(ensemble.train, Recomputed)
    stored = Features(ensemble.train.x)
    for member in ensemble.members:
        stored.extend(member)
    batch = torch.tensor([3, 50, 7])
    for again, kept in zip(ensemble.train.read((0, 1), batch), stored.read((0, 1), batch), strict=True):
        torch.testing.assert_close(again, kept, rtol=0, atol=1e-5)
    assert not ensemble.train._taps


def test_augmentation_trains_and_changes_what_is_found(tmp_path: Path):
    plain, augmented, again = (
        run_rounds(image_game(tmp_path / str(number), augment=augment)).ensemble.S_train_NL
        for number, augment in enumerate(["none", "crop_flip", "crop_flip"])
    )
    assert torch.equal(augmented, again)
    assert not torch.allclose(plain, augmented, atol=1e-3)


def test_logits_cannot_answer_new_views(tmp_path: Path):
    with pytest.raises(BadConfig, match="augment=crop_flip is for images"):
        toy_game(tmp_path, augment="crop_flip")
    game = image_game(tmp_path)
    target = game.target
    known = Logits(train=target.train_NL.numpy(), validation=target.validation_NL.numpy(), test=target.test_NL.numpy())
    with pytest.raises(BadConfig, match="augment=crop_flip needs a teacher that answers new samples, but there are"):
        game_of(known, game.data, game.classes, game.config, game.checkpoint, Quiet())

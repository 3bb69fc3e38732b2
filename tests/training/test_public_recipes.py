"""Recipes on public archives, end to end on tiny ones: from the archive to a bundle that answers."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import Manifest, open_bundle
from bundle.reference import running_average
from tests.training import publisher
from training import Logits
from training.cli import main
from training.data import daily_sports, speech_commands
from training.data.cifar import CIFAR10, CIFAR100
from training.errors import BadConfig, BadTeacher
from training.networks import ResNet, StagedNetwork
from training.networks.resnet import CIFAR_SHAPE, IMAGENET_MEAN, IMAGENET_STD, Normalise
from training.recipes import RECIPES

TINY = [
    "threads=1",
    "rounds=2",
    "max_search=1",
    "epochs=1",
    "refine_epochs=1",
    "teacher_epochs=1",
    "refine_epochs=1",
    "batch_size=64",
    "gamma=1000",
    "bound_factor=20",
]
IMAGES = ["teacher_widths=2,4", "teacher_blocks=1", "member_widths=2,3"]
SEQUENCES = ["teacher_widths=6", "member_widths=3"]


def settings(*assignments: str) -> list[str]:
    return [part for assignment in assignments for part in ("--set", assignment)]


def train(recipe: str, archive: Path, tmp_path: Path, *assignments: str) -> Manifest:
    """Run the command on `archive`; its connections are checked here, because every recipe connects."""
    where = [f"archives={archive.parent}", f"checksum={publisher.checksum(archive)}"]
    models = tmp_path / "models"
    assert main([recipe, "--models", str(models), *settings(*where, *TINY, *assignments)]) == 0
    bundle = open_bundle(models, recipe)
    first, second = bundle.manifest.members
    assert not first.connections
    assert {connection.from_member for connection in second.connections} == {0}
    assert second.connection_flops > 0
    assert str(tmp_path) not in (bundle.path / "manifest.json").read_text()
    sample = np.zeros((2, *bundle.manifest.input.shape), bundle.manifest.input.dtype)
    assert [logits.shape for logits in running_average(bundle, sample)] == [(2, len(bundle.manifest.classes))] * 2
    return bundle.manifest


@pytest.mark.slow
def test_cifar10_with_a_teacher_trained_here(tmp_path: Path):
    archive = publisher.tar_gz(tmp_path / "a" / CIFAR10.archive.file, publisher.cifar10_files(each=20))
    manifest = train("cifar10", archive, tmp_path, *IMAGES)
    assert (manifest.input.dtype, manifest.input.shape) == ("uint8", (3, 32, 32))
    assert manifest.classes[3] == "cat"
    assert manifest.evaluation.samples == 20
    assert manifest.teacher.name == "resnet-2-4"


@pytest.mark.slow
def test_cifar100_with_a_published_teacher(tmp_path: Path):
    archive = publisher.tar_gz(tmp_path / "a" / CIFAR100.archive.file, publisher.cifar100_files())
    torch.save(published_names(teacher_of(100)), tmp_path / "resnet8.th")
    checkpoint = [f"teacher_checkpoint={tmp_path / 'resnet8.th'}", "teacher_depth=8"]
    manifest = train("cifar100", archive, tmp_path, *IMAGES, *checkpoint)
    assert (len(manifest.classes), manifest.input.shape) == (100, (3, 32, 32))
    assert (manifest.teacher.name, manifest.teacher.flops) == ("resnet-8", 2 * 12_239_488 + 2 * 64 * 90)
    assert manifest.training is not None
    assert manifest.training.config["teacher_checkpoint"] == "resnet8.th"


def teacher_of(labels: int) -> StagedNetwork:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    torch.manual_seed(0)
    family = ResNet(blocks=1, downsample="block")
    return family.build(Normalise(mean.view(3, 1, 1), std.view(3, 1, 1)), CIFAR_SHAPE, labels)


def published_names(network: StagedNetwork) -> dict[str, torch.Tensor]:
    """The inverse of how a checkpoint is read, for one block a stage."""
    places = {
        "stages.0.transition.0.": "conv1.",
        "stages.0.transition.1.": "bn1.",
        "stages.0.block.0.": "layer1.0.",
        "stages.1.transition.": "layer2.0.",
        "stages.2.transition.": "layer3.0.",
        "head.2.": "linear.",
    }
    return {
        name.replace(own, public): value
        for name, value in network.state_dict().items()
        for own, public in places.items()
        if name.startswith(own)
    }


@pytest.mark.slow
def test_google13(tmp_path: Path):
    archive = publisher.tar_gz(tmp_path / "a" / speech_commands.ARCHIVE.file, publisher.speech_files(), prefix="./")
    manifest = train("google13", archive, tmp_path, *SEQUENCES, "chunk_steps=0")  # dsa19 below has them
    assert not manifest.streaming
    assert (manifest.input.dtype, manifest.input.shape) == ("float32", (99, 32))
    assert manifest.classes == speech_commands.CLASSES
    assert manifest.teacher.name == "lstm-6"
    assert manifest.members[0].flops == 99 * (2 * 32 * 3 + 2 * 4 * 3 * 6) + 2 * 3 * 13


@pytest.mark.slow
def test_dsa19(tmp_path: Path):
    archive = publisher.zipped(tmp_path / "a" / daily_sports.ARCHIVE.file, publisher.daily_sports_files())
    manifest = train("dsa19", archive, tmp_path, *SEQUENCES, "refine_epochs=1")
    assert (manifest.input.dtype, manifest.input.shape) == ("float32", (125, 45))
    assert manifest.classes == daily_sports.CLASSES
    assert (manifest.teacher.name, manifest.evaluation.samples) == ("gru-6/5", 38)
    assert (manifest.chunk_steps, len(manifest.streaming)) == (25, 2)


@pytest.fixture
def nobody() -> str:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/archive"


FILES = {
    "cifar10": CIFAR10.archive.file,
    "cifar100": CIFAR100.archive.file,
    "google13": speech_commands.ARCHIVE.file,
    "dsa19": daily_sports.ARCHIVE.file,
}


@pytest.mark.parametrize("recipe", FILES)
def test_a_missing_archive_is_one_sentence_before_any_training(
    recipe: str, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    where = settings(f"archives={tmp_path / 'a'}", f"url={nobody}")
    assert main([recipe, "--models", str(tmp_path / "models"), *where]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"train-ensemble: There is no {tmp_path / 'a' / FILES[recipe]}, and {nobody} cannot be had")
    assert error.count("\n") == 1
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("recipe", [name for name in FILES if name != "dsa19"])
def test_the_publishers_checksum_is_the_default(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / FILES[recipe]).write_bytes(b"another file")
    assert main([recipe, "--models", str(tmp_path / "models"), *settings(f"archives={tmp_path}")]) == 2
    assert "is damaged, cut short or another file: remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("checksum=12", "checksum='12' is neither md5:<32 digits> nor sha256:<64 digits>"),
        ("teacher_checkpoint=nowhere.npz", "There is no checkpoint nowhere.npz."),
        ("teacher_depth=18", "There is no CIFAR ResNet of depth 18"),
    ],
)
def test_a_mistake_in_a_setting_is_one_sentence(
    assignment: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    archive = publisher.tar_gz(tmp_path / CIFAR10.archive.file, publisher.cifar10_files())
    given = [f"archives={tmp_path}", f"checksum={publisher.checksum(archive)}", "teacher_checkpoint=w.npz", assignment]
    assert main(["cifar10", "--models", str(tmp_path / "models"), *settings(*given)]) == 2
    assert capsys.readouterr().err.startswith(f"train-ensemble: {sentence}")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("family", "shape", "teacher", "member"),
    [
        ("auto", (3, 8, 8), "conv-3-6x2", "conv-2-3"),
        ("resnet", (3, 8, 8), "resnet-pool-3-6x2", "resnet-pool-2-3"),
        ("densenet", (3, 8, 8), "densenet-3-6x2-k8", "densenet-2-3x1-k8"),
        ("auto", (9, 5), "conv-3-6x2", "conv-2-3"),
        ("lstm", (9, 5), "lstm-3-6x2", "lstm-2-3"),
        ("gru", (9, 5), "gru-3-6x2", "gru-2-3"),
        ("fully_connected", (9, 5), "fc-3-6x2", "fc-2-3"),
    ],
)
def test_own_arrays_for_every_family(tmp_path: Path, family: str, shape: tuple[int, ...], teacher: str, member: str):
    x, y = np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32), np.arange(30) % 3
    np.savez(tmp_path / "mine.npz", train_x=x, train_y=y, test_x=x[:6], test_y=y[:6])
    given = [f"data={tmp_path / 'mine.npz'}", f"family={family}", "teacher_widths=3,6", "member_widths=2,3"]
    recipe = RECIPES["npz"]
    prepared = recipe.prepare(recipe.config.override(given))
    assert prepared.data.sequences == (family in {"lstm", "gru"})
    assert not isinstance(prepared.teacher, Logits | torch.nn.Module)
    assert (prepared.teacher.name, prepared.classes[0].name) == (teacher, member)
    network = prepared.classes[0].build(Normalise.of(x, sequences=prepared.data.sequences), shape, 3)
    assert network(torch.from_numpy(x))[0].shape == (30, 3)


def image_arrays(tmp_path: Path, dtype: str, **more: np.ndarray) -> list[str]:
    """Settings of the npz recipe with a published teacher of ten classes."""
    x, y = np.random.default_rng(0).integers(0, 255, size=(50, *CIFAR_SHAPE)).astype(dtype), np.arange(50) % 10
    np.savez(tmp_path / "mine.npz", train_x=x, train_y=y, test_x=x, test_y=y, **more)
    torch.save(published_names(teacher_of(10)), tmp_path / "resnet8.th")
    return [f"data={tmp_path / 'mine.npz'}", f"teacher_checkpoint={tmp_path / 'resnet8.th'}", "teacher_depth=8"]


def test_own_images_with_a_published_teacher(tmp_path: Path):
    recipe = RECIPES["npz"]
    teacher = recipe.prepare(recipe.config.override(image_arrays(tmp_path, "uint8"))).teacher
    assert isinstance(teacher, torch.nn.Module)
    assert teacher.name == "resnet-8"


def test_a_published_teacher_is_for_raw_pixels_and_for_nobody_who_brings_logits(tmp_path: Path):
    recipe = RECIPES["npz"]
    with pytest.raises(BadTeacher, match=r"takes uint8 images of shape .*, but the samples are float32"):
        recipe.prepare(recipe.config.override(image_arrays(tmp_path, "float32")))
    logits = np.zeros((50, 10), np.float32)
    with pytest.raises(BadConfig, match="holds the teacher's logits and teacher_checkpoint names a teacher"):
        recipe.prepare(recipe.config.override(image_arrays(tmp_path, "uint8", train_logits=logits, test_logits=logits)))

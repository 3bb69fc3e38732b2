"""The whole way from a teacher and data to a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from bundle import Bundle, list_versions, open_bundle
from training import ranks
from training.bdistil import run_rounds
from training.checkpoint import Checkpoint
from training.chunks import check_chunks
from training.config import Config
from training.data import Data
from training.determinism import repeatable, seeded
from training.early import check_judged_steps
from training.errors import BadConfig, BadTeacher, NoWeakLearner
from training.export import Graph, export_teacher
from training.fingerprint import fingerprint, teacher_sha256
from training.game import Game, bound_of, eta_of
from training.modes import evaluating
from training.networks import ModelClass, Normalise, Recurrent
from training.progress import Quiet, Reporter
from training.publish import publish
from training.refine import refine
from training.targets import Logits, target_of
from training.views import check_images

RECIPE = "distil"
"""What the manifest names as the recipe of a run that was called from Python."""


def distil(
    teacher: nn.Module | Logits,
    data: Data,
    classes: Sequence[ModelClass],
    config: Config,
    *,
    models: Path = Path("models"),
    resume: bool = False,
) -> Path:
    """Decompose your own teacher into an ensemble and write it as a bundle.

    Everything is checked before any training starts. A run that is killed leaves a checkpoint of its last epoch
    in ``<models>/<name>/.checkpoint``; the same call with ``resume=True`` goes on from there, and on the CPU
    ends with the same bundle to the bit.

    Args:
        teacher: a module from raw samples, as a tensor of the data's dtype, to logits (N, L); or its logits.
        data: samples and labels in three parts.
        classes: where members are searched, in order of cost; equal numbers of stages and widths between classes
            if members of different classes are to be connected.
        config: how.
        models: the models folder; the bundle becomes its next version of ``config.name``.
        resume: go on from an interrupted run of the same call.

    Returns:
        The folder of the bundle.

    Raises:
        BadConfig, BadTeacher, BadCheckpoint: an argument cannot be used (BadData: when `data` was made).
        Busy: another run of that name is going on.
        NoWeakLearner: no first member was found.
    """
    checkpoint = checkpoint_of(models, RECIPE, config, data, classes, teacher)
    with run_of(checkpoint, config, resume=resume):
        game = game_of(teacher, data, classes, config, checkpoint, Quiet())
        return play(game, models, RECIPE).path


def play(game: Game, models: Path, recipe: str) -> Bundle:
    """The rounds, refinement where the settings ask for it, then the bundle.

    A run that was ended after that, such as while its picture was drawn, has its bundle already.
    """
    bundle = _published(game, models)
    if bundle is not None:
        return bundle
    teacher = teacher_stage(game)  # first, because it may turn out that there can be none
    outcome = refine(game, run_rounds(game))
    game.reporter.begin("export and measure", 1)
    if ranks.first():
        bundle = publish(game, outcome, models, recipe, teacher)
        game.checkpoint.save("published", {"version": bundle.manifest.version})
    ranks.wait()
    return bundle or open_bundle(models, game.config.name)


def _published(game: Game, models: Path) -> Bundle | None:
    """What this very run has written, unless somebody removed it."""
    saved = game.checkpoint.load("published")
    if not saved or saved["version"] not in list_versions(models, game.config.name):
        return None
    return open_bundle(models, game.config.name, saved["version"])


def teacher_stage(game: Game) -> Graph | None:
    """The teacher as a graph, if the settings ask for it.

    Raises:
        BadTeacher: it cannot be exported.
    """
    if not game.config.with_teacher or game.target.network is None:
        return None
    return export_teacher(game.target.network, torch.from_numpy(game.data.validation.x))


def game_of(
    teacher: nn.Module | Logits,
    data: Data,
    classes: Sequence[ModelClass],
    config: Config,
    checkpoint: Checkpoint,
    reporter: Reporter,
) -> Game:
    """Check the arguments against each other, and fix what the teacher decides."""
    _check_classes(classes, data)
    check_chunks(config, classes, data.input_shape)
    check_judged_steps(config, classes)
    check_images(config.augment, data.input_shape, sequences=data.sequences)
    if config.augment != "none" and not isinstance(teacher, nn.Module):
        raise BadConfig(
            f"augment={config.augment} needs a teacher that answers new samples, but there are only its logits: "
            "give the network itself, or use augment=none."
        )
    if config.with_teacher and isinstance(teacher, Logits):
        raise BadTeacher("with_teacher needs the teacher itself, but only its logits were given.")
    normalise = Normalise.of(data.train.x, sequences=data.sequences)
    if config.connection != "none" and config.expansions > 1:
        _check_taps(classes, data, normalise)
    device = device_of(config)
    known = teacher_sha256(teacher)  # before it runs, because a buffer of it may count that
    target = target_of(teacher, data, device, config.temperature, config.label_weight)
    B = bound_of(config, target)
    return Game(
        config=config,
        data=data,
        classes=tuple(classes),
        target=target,
        teacher_sha256=known,
        normalise=normalise,
        device=device,
        eta=eta_of(config, B, len(data.train)),
        B=B,
        checkpoint=checkpoint,
        reporter=reporter,
    )


def _check_classes(classes: Sequence[ModelClass], data: Data) -> None:
    if not classes:
        raise BadConfig("classes is empty: give at least one model class to search members in.")
    for model_class in classes:
        if isinstance(model_class, Recurrent) and not data.sequences:
            raise BadConfig(
                f"{model_class.name} reads samples as sequences, but the data does not say that they are: "
                "make it with sequences=True, so that each feature is normalised by itself."
            )


def _check_taps(classes: Sequence[ModelClass], data: Data, normalise: Normalise) -> None:
    """Whether members of one class can read those of another; a single class can read itself."""
    shapes = [_tap_shapes(model_class, data, normalise) for model_class in classes if len(classes) > 1]
    for model_class, found in zip(classes, shapes, strict=False):
        if found != shapes[0]:
            raise BadConfig(
                f"The stages of {classes[0].name} give {shapes[0]} and those of {model_class.name} {found}, so members "
                "cannot be connected: give classes of equal stages, or set connection=none."
            )


def _tap_shapes(model_class: ModelClass, data: Data, normalise: Normalise) -> list[list[int]]:
    network = seeded(0, lambda: model_class.build(normalise, data.input_shape, len(data.classes)))
    with evaluating(network):
        _, taps = network(torch.from_numpy(data.train.x[:1]))
    return [list(tap.shape[1:]) for tap in taps]


def device_of(config: Config) -> torch.device:
    """The device that `config.device` means on this machine.

    Raises:
        BadConfig: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise BadConfig("device=cuda, but torch sees no CUDA device here: use auto or cpu.")
    return torch.device("cuda", ranks.local()) if config.device != "cpu" and available else torch.device("cpu")


def checkpoint_of(
    models: Path,
    recipe: str,
    config: Config,
    data: Data,
    classes: Sequence[ModelClass],
    teacher: ModelClass | nn.Module | Logits,
) -> Checkpoint:
    """The checkpoint folder of a run: hidden, beside the bundle's versions."""
    known = fingerprint(recipe, config.record(), data, classes, teacher)
    return Checkpoint(models / config.name / ".checkpoint", known)


@contextlib.contextmanager
def run_of(checkpoint: Checkpoint, config: Config, *, resume: bool) -> Iterator[None]:
    """A repeatable run around the block.

    Its checkpoint is there from the start; it goes when the block succeeds, or ends in a way that resuming could
    not change. What refuses a resumed run is the machine it was resumed on, such as one without the CUDA device: the
    epochs behind it stay.
    """
    with checkpoint.started(resume=resume), repeatable(config.threads):
        try:
            yield
        except NoWeakLearner:
            checkpoint.remove()
            raise
        except (BadConfig, BadTeacher):
            if not resume:
                checkpoint.remove()
            raise
        checkpoint.remove()

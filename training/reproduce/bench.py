"""One recipe on one seed: its data and its teacher, made when an arm first asks for them and shared by all arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from torch import nn

from training.checkpoint import Checkpoint
from training.config import RecipeConfig
from training.determinism import repeatable
from training.fingerprint import fingerprint, teacher_sha256
from training.game import Game
from training.lock import alone
from training.networks import ModelClass
from training.pipeline import game_of, run_of
from training.progress import Reporter
from training.recipes import Prepared, Recipe
from training.reproduce.timing import Stopwatch
from training.targets import Logits
from training.teacher import prepare_teacher

TIMED_SEED = 0


class Bench:
    """Where the arms of one recipe and seed are run."""

    def __init__(self, recipe: Recipe, config: RecipeConfig, work: Path, reporter: Reporter) -> None:
        self.recipe, self.config, self.reporter = recipe, config, reporter
        self._work = work

    @cached_property
    def prepared(self) -> Prepared:
        """Data, teacher or its class, and the members' classes."""
        return self.recipe.prepare(self.config)

    @property
    def data_sha256(self) -> str | None:
        """Hash of the data; None when no arm has asked for it."""
        return self.prepared.data.sha256() if "prepared" in self.__dict__ else None

    @property
    def teacher_sha256(self) -> str | None:
        """Hash of the teacher that the recipe brings; None when it brings none, or no arm has asked for it."""
        return _brought_sha256(self.prepared) if "prepared" in self.__dict__ else None

    def files_sha256(self) -> tuple[str | None, str | None]:
        """Hashes of the data and of a teacher that is brought, where files decide; None of what the settings fix."""
        if not self.config.reads_files:
            return None, None
        return self.prepared.data.sha256(), _brought_sha256(self.prepared)

    @cached_property
    def teacher(self) -> nn.Module | Logits:
        """Trained here if the recipe brings none; kept in the work folder, because several experiments want it."""
        brought = self.prepared.teacher
        if isinstance(brought, nn.Module | Logits):
            return brought
        checkpoint = self._checkpoint("teacher", self.config, brought, self.prepared.classes)
        with alone(checkpoint.folder), repeatable(self.config.threads):  # of two who want it, one waits for the other
            return prepare_teacher(self.prepared, self.config, checkpoint, self.reporter)

    @cached_property
    def stopwatch(self) -> Stopwatch | None:
        """Times do not depend on weights, so only one seed is timed."""
        return Stopwatch(self.prepared.data.test.x) if self.config.seed == TIMED_SEED else None

    @contextmanager
    def game(self, config: RecipeConfig, classes: Sequence[ModelClass] = ()) -> Iterator[Game]:
        """A game under an arm's settings, which an interrupted run of the very same goes on with.

        Args:
            config: the arm's; of its keys, those of a member's size say nothing here.
            classes: of the members; none: the recipe's.
        """
        prepared, teacher = self.prepared, self.teacher
        classes = classes or prepared.classes
        checkpoint = self._checkpoint("arm", config, teacher, classes)
        with run_of(checkpoint, config, resume=checkpoint.folder.is_dir()):
            yield game_of(teacher, prepared.data, classes, config, checkpoint, self.reporter)

    def _checkpoint(
        self,
        purpose: str,
        config: RecipeConfig,
        teacher: ModelClass | nn.Module | Logits,
        classes: Sequence[ModelClass],
    ) -> Checkpoint:
        known = fingerprint(f"{purpose} {self.recipe.name}", config.record(), self.prepared.data, classes, teacher)
        return Checkpoint(self._work / f"{purpose}-{known[:16]}", known)


def _brought_sha256(prepared: Prepared) -> str | None:
    teacher = prepared.teacher
    return teacher_sha256(teacher) if isinstance(teacher, nn.Module | Logits) else None

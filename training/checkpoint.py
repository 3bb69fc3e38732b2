"""Checkpoints of a run: whole or absent, and only ever read back by the run that wrote them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from training import ranks
from training.errors import BadCheckpoint
from training.lock import alone


class Checkpoint:
    """Named parts of a run's state in one hidden folder beside the bundle.

    Each part is written aside, fsynced and renamed, so a kill leaves the old one or the new one. Parts that
    depend on each other carry the same round number, and the reader compares.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self._fingerprint = folder, fingerprint

    @contextlib.contextmanager
    def started(self, *, resume: bool) -> Iterator[None]:
        """Begin afresh, or make sure that there is something of this very run to go on from; then keep others out.

        Raises:
            BadCheckpoint: `resume`, but nothing was interrupted, or anything that it follows from differs.
            Busy: another run is at work there.
        """
        if resume and not self.folder.is_dir():
            raise BadCheckpoint(f"There is nothing to resume: no interrupted run left a {self.folder}.")
        with self._alone() if ranks.first() else contextlib.nullcontext():
            if resume:
                self.load("run")
            else:
                self._clear()
                self.save("run", {})
            ranks.wait()
            yield

    def _alone(self) -> AbstractContextManager[None]:
        return alone(
            self.folder,
            f"Another run keeps its checkpoint in {self.folder}: wait for its end, "
            "or give this one another name, --set name=NAME.",
        )

    def _clear(self) -> None:
        """Forget an earlier run, but leave the folder itself, which is what others are kept out of."""
        for part in self.folder.iterdir() if ranks.first() else ():
            part.unlink()

    def save(self, part: str, state: dict[str, Any]) -> None:
        """Replace `part` atomically; where several processes train, all hold the same state and the first writes it."""
        if not ranks.first():
            return
        content = io.BytesIO()
        torch.save({"fingerprint": self._fingerprint, "state": state}, content)
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{part}.partial"
        with aside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / f"{part}.pt")

    def load(self, part: str) -> dict[str, Any] | None:
        """The last saved state of `part`, None when there is none.

        Raises:
            BadCheckpoint: it is of another run, or cannot be read.
        """
        path = self.folder / f"{part}.pt"
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise BadCheckpoint(f"{path} cannot be read ({type(error).__name__}): start without --resume.") from error
        if content["fingerprint"] != self._fingerprint:
            raise BadCheckpoint(
                f"{self.folder} is of a run with other settings, seed, data, model classes or teacher: "
                "repeat its command line, or start without --resume."
            )
        state: dict[str, Any] = content["state"]
        return state

    def remove(self) -> None:
        """Forget the run, and the bundle's folder if nothing else is in it."""
        if not ranks.first():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

"""How a run tells what it is doing, without knowing to whom."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training import ranks


class Reporter(Protocol):
    """Hears of every phase and epoch of a run."""

    def begin(self, phase: str, steps: int) -> None:
        """A phase of `steps` steps starts, and the one before it is over."""

    def advance(self, done: int, loss: float | None = None) -> None:
        """`done` steps of the phase are done; `loss` is the mean training loss of the last one."""

    def say(self, sentence: str) -> None:
        """Something worth a line of its own happened."""


class Quiet:
    """Says nothing: the default of the library."""

    def begin(self, phase: str, steps: int) -> None:
        """Nothing."""

    def advance(self, done: int, loss: float | None = None) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


def reporter(console: Console) -> AbstractContextManager[Reporter]:
    """Bars on the console; nothing in a process that is not the first of several."""
    return Bars(console) if ranks.first() else contextlib.nullcontext(Quiet())


class Bars:
    """Progress bars on a terminal; only the sentences where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, phase: str, steps: int) -> None:
        """Replace the bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(phase, total=steps, loss="")

    def advance(self, done: int, loss: float | None = None) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, loss="" if loss is None else f"loss {loss:.4f}")

    def say(self, sentence: str) -> None:
        """A line above the bar."""
        self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

"""A run that may be ended before its time. Standard library only."""

from __future__ import annotations

from collections.abc import Callable


class Halt:
    """What a step carries that may be given up: whoever holds it can end the step's run, from any thread."""

    def __init__(self) -> None:
        self.called = False
        """Whether the run was to end early; it may have been at its end already."""
        self._stops: list[Callable[[], object]] = []

    def __call__(self) -> None:
        """End the run as soon as may be."""
        self.called = True
        for stop in self._stops:
            stop()

    def bind(self, stop: Callable[[], object]) -> None:
        """For who runs the step: `stop` will be called when the run is to end, at once if that was said before.

        It may be called twice, and after the run.
        """
        self._stops.append(stop)
        # Said between two runs, or just now on the other thread: then either of the two finds it.
        if self.called:
            stop()

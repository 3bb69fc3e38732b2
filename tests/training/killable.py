"""`python -m tests.training.killable MODELS KEY=VALUE ... [--resume]`: a run that pauses after every epoch.

It prints each epoch whose checkpoint is written and waits for a line on stdin, so that whoever started it
decides where it dies.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bundle import Bundle
from training.cli import train
from training.progress import Quiet, Reporter
from training.recipes import RECIPES


class Pausing(Quiet):
    def begin(self, phase: str, steps: int) -> None:
        self.phase = phase

    def advance(self, done: int, loss: float | None = None) -> None:
        if loss is not None:
            sys.stdout.write(f"{self.phase} {done}\n")
            sys.stdout.flush()
            sys.stdin.readline()


def run(models: Path, settings: Sequence[str], reporter: Reporter, *, resume: bool) -> Bundle:
    recipe = RECIPES["digits"]
    return train(recipe, recipe.config.override(settings), models, reporter, resume=resume)


if __name__ == "__main__":
    run(Path(sys.argv[1]), [word for word in sys.argv[2:] if "=" in word], Pausing(), resume="--resume" in sys.argv)

"""Arguments of the commands: what is out of range is said in a sentence, before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def count(least: int = 1) -> Callable[[str], int]:
    """The type of a whole number of `least` or more."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return value

    parse.__name__ = "whole number"  # argparse calls it so where the text is no number
    return parse


def number(least: float) -> Callable[[str], float]:
    """The type of a number of `least` or more."""

    def parse(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least:g}, not {text}")
        return value

    parse.__name__ = "number"
    return parse


def program(text: str) -> Path:
    """The type of a file to run: it is found from any working directory, and a link to it stays one."""
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path

"""Rows of numpy arrays that requests share: what was computed in one batch need not be copied into the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class HostRows(NamedTuple):
    """Rows of an array that nobody changes."""

    array: Array
    start: int
    stop: int

    @property
    def rows(self) -> Array:
        """A view of them, (stop - start, ...)."""
        return self.array[self.start : self.stop]


def gather(parts: Sequence[HostRows]) -> Array:
    """The rows of all parts, one under the other; a view where they follow each other in one array.

    That is so while the requests of a batch stay together, in order: the activations of a batch of images are
    megabytes, and new memory costs more than the copy.
    """
    first = parts[0]
    stop = first.start
    for part in parts:
        if part.array is not first.array or part.start != stop:
            return np.concatenate([part.rows for part in parts])
        stop = part.stop
    return first.array[first.start : stop]


def stack(parts: Sequence[Array]) -> Array:
    """Rows of all parts, one under the other; a single part is passed on without a copy."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

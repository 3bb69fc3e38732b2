"""One process at a time in a folder, told by a lock of the kernel's: it is gone with the process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from training.errors import Busy

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def alone(folder: Path, refusal: str | None = None) -> Iterator[None]:
    """Inside, no other process is inside for the same folder, which is made if it is missing.

    Where there are no such locks (Windows, some network disks) nobody is kept out. The block may remove the folder.

    Args:
        folder: not entered twice by one process.
        refusal: what to say when another is inside; None: wait until it has left.

    Raises:
        Busy: another is inside, and there is a `refusal`.
    """
    if sys.platform == "win32":
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    descriptor = _lock(folder, refusal)
    try:
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _lock(folder: Path, refusal: str | None) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # whoever was inside removed it just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            if _is(folder, descriptor):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise Busy(refusal) from error
        except OSError:
            return descriptor  # this disk knows no locks
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is(folder: Path, descriptor: int) -> bool:
    """Whether the folder of that name is still the one that was locked."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

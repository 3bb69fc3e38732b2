"""Features that take minutes to compute, kept beside the archive that they were computed from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def cached(archive: Path, code: ModuleType, compute: Callable[[], Arrays]) -> Arrays:
    """What `compute` makes of `archive`, read from a file if it was computed before.

    The file's name is a digest of the archive's content and of the source of the module `code` that computes, so
    another archive or another way to compute finds nothing and nothing stale is ever read. It is written aside and
    renamed; one that cannot be read is computed again, and a folder that cannot be written to just keeps none.
    """
    path = archive.with_name(f"{archive.name}.features-{_digest(archive, code)}.npz")
    found = _load(path)
    if found is None:
        found = compute()
        with contextlib.suppress(OSError):
            _save(path, found)
    return found


def _digest(archive: Path, code: ModuleType) -> str:
    digest = hashlib.sha256(Path(str(code.__file__)).read_bytes())
    with archive.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _load(path: Path) -> Arrays | None:
    try:
        # numpy leaves a file that it opened itself open where it finds it damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _save(path: Path, arrays: Arrays) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)

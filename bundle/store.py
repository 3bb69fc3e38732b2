"""Bundles on disk: `<models>/<name>/<version>/manifest.json` beside the members' ONNX files.

Writing is all or nothing: everything goes into a hidden folder beside the target, each file and the folder
are fsynced, and one rename makes the version appear. A killed job leaves at most a hidden folder, which no
reader sees and which a write of the same version removes after an hour.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bundle.errors import BundleNotFound, InvalidBundle
from bundle.manifest import FORMAT_VERSION, Manifest, valid_name

MANIFEST = "manifest.json"

ABANDONED_S = 3600.0
"""Nobody takes as long between two files of a bundle."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its files have been checked against the manifest."""

    path: Path
    manifest: Manifest

    def graph(self, index: int) -> Path:
        """The ONNX file of member `index`."""
        return self.path / self.manifest.members[index].file

    def chunk_graph(self, index: int) -> Path:
        """The ONNX file with which member `index` answers a stream."""
        return self.path / self.manifest.streaming[index].file


def open_bundle(models: Path, name: str, version: int | None = None) -> Bundle:
    """Open `name` at `version` (default: the highest).

    Raises:
        BundleNotFound: there is no such name or version.
        InvalidBundle: the manifest or a file breaks the contract.
    """
    if version is None:
        version = latest_version(models, name)
        if version is None:
            known = ", ".join(list_names(models)) or "none"
            raise BundleNotFound(f"There is no bundle {name!r} in {models}; bundles there: {known}.")
    folder = models / name / str(version)
    if version not in list_versions(models, name):
        known = ", ".join(map(str, list_versions(models, name))) or "none"
        raise BundleNotFound(f"Bundle {name!r} in {models} has no version {version}; versions there: {known}.")
    manifest = _read_manifest(folder / MANIFEST)
    if (manifest.name, manifest.version) != (name, version):
        raise InvalidBundle(
            f"{folder / MANIFEST} is of {manifest.name}/{manifest.version}, but its folder says {name}/{version}."
        )
    for file, digest in manifest.files():
        _check_hash(folder / file, digest)
    return Bundle(folder, manifest)


def write_bundle(models: Path, graphs: Mapping[str, bytes], describe: Callable[[int], Manifest]) -> Bundle:
    """Write a bundle as the next version of its name, atomically.

    Args:
        models: the models folder; made if it is missing.
        graphs: content of each ONNX file, by file name.
        describe: gives the manifest for a version number; called again if another job took that number.

    Raises:
        InvalidBundle: the manifest and the graphs do not agree.
    """
    name = describe(1).name
    while True:
        version = (latest_version(models, name) or 0) + 1
        manifest = describe(version)
        _check_agreement(manifest, graphs)
        target = models / name / str(version)
        aside = _write_aside(target, {**graphs, MANIFEST: encode_manifest(manifest)})
        try:
            aside.rename(target)  # fails on a folder that is there and not empty
        except OSError:
            shutil.rmtree(aside)
            if not target.exists():
                raise
            continue
        _fsync(target.parent)
        return Bundle(target, manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """manifest.json: indented, in schema order, one trailing newline; the same manifest gives the same bytes."""
    return (json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def list_names(models: Path) -> list[str]:
    """Names with at least one version, or whose folder cannot be listed: who opens one of these is told why. Sorted.

    Raises:
        InvalidBundle: `models` cannot be listed.
    """
    return [entry.name for entry in _folders(models) if _may_have_versions(models, entry.name)]


def list_versions(models: Path, name: str) -> list[int]:
    """Versions of `name`, ascending; empty when there is none.

    Raises:
        InvalidBundle: its folder cannot be listed.
    """
    if not valid_name(name):
        return []
    return sorted(
        int(entry.name)
        for entry in _folders(models / name)
        # `007` would open as version 7, so it is no version.
        if entry.name.isascii() and entry.name.isdigit() and entry.name == str(int(entry.name))
    )


def latest_version(models: Path, name: str) -> int | None:
    """The highest version of `name`, or None.

    Raises:
        InvalidBundle: its folder cannot be listed.
    """
    return max(list_versions(models, name), default=None)


def sha256(content: bytes) -> str:
    """Hex digest, as the manifest records it."""
    return hashlib.sha256(content).hexdigest()


def _may_have_versions(models: Path, name: str) -> bool:
    try:
        return bool(list_versions(models, name))
    except InvalidBundle:
        return True


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, by name; none if that is not there."""
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    except OSError as error:
        raise InvalidBundle(f"{parent} cannot be listed ({error.strerror}): let this user read it.") from error


def _read_manifest(path: Path) -> Manifest:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidBundle(f"{path} is missing: the folder is no bundle.") from error
    except (ValueError, OSError, RecursionError) as error:
        raise InvalidBundle(f"{path} cannot be read as JSON: {error}.") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise InvalidBundle(
            f"{path} has format_version {found!r}, but this release reads {FORMAT_VERSION}: "
            "write the bundle again, or install the release that wrote it."
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidBundle(f"{path} is not valid: {where + ': ' if where else ''}{message}.") from error


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = sha256(path.read_bytes())
    except OSError as error:
        raise InvalidBundle(f"{path} cannot be read ({error.strerror}), but the manifest lists it.") from error
    if found != expected:
        raise InvalidBundle(
            f"{path} has SHA-256 {found[:12]}..., but the manifest says {expected[:12]}...: "
            "the file was changed or cut short; copy or train the bundle again."
        )


def _check_agreement(manifest: Manifest, graphs: Mapping[str, bytes]) -> None:
    if dict(manifest.files()) != {file: sha256(content) for file, content in graphs.items()}:
        raise InvalidBundle(f"The manifest of {manifest.name} does not list exactly the given graphs and hashes.")


def _write_aside(target: Path, files: Mapping[str, bytes]) -> Path:
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    _remove_abandoned(target)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for name, content in files.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _fsync(aside)
    except BaseException:
        # On a full disk above all, what is of no use must not stay.
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _remove_abandoned(target: Path) -> None:
    """Remove what killed jobs left aside when they wrote this version."""
    for aside in target.parent.glob(f".{target.name}.*.partial"):
        pid = aside.name.split(".")[2]
        # A process of another container or host is not seen, but does not write for so long either.
        old = time.time() - aside.stat().st_mtime > ABANDONED_S
        if old and pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(aside, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # nobody is asked there: any signal would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

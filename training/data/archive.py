"""Public archives: found in a folder or downloaded into it, verified, and read without unpacking to disk."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from training.errors import BadData
from training.lock import alone

CHUNK = 1 << 20
"""Bytes in one read."""
TIMEOUT_S = 30
"""Longest silence of a server."""
HEX_DIGITS = {"md5": 32, "sha256": 64}
"""Digests that a checksum can name, with the length of each."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that its publisher serves at `url`."""

    file: str
    """Its name in the archives folder."""
    url: str
    checksum: str
    """``md5:<hex>`` or ``sha256:<hex>``; empty where the publisher names none, and then only `url` vouches for it."""

    def __post_init__(self) -> None:
        kind, _, digest = self.checksum.partition(":")
        if self.checksum and not re.fullmatch(rf"[0-9a-f]{{{HEX_DIGITS.get(kind, 0)}}}", digest or "-"):
            raise BadData(f"checksum={self.checksum!r} is neither md5:<32 digits> nor sha256:<64 digits>, in hex.")

    def fetch(self, folder: Path) -> Path:
        """The verified archive in `folder`; it is downloaded if it is not there.

        A download goes to a ``.part`` aside, goes on from there when it was interrupted, and gets its name only
        after its checksum was found right. One command downloads into a folder at a time.

        Raises:
            BadData: it is neither there nor to be had, was cut short, or has another checksum.
        """
        path = folder / self.file
        if not path.is_file():
            if not self.url:
                raise BadData(
                    f"There is no {path}, and no url to have it from: put the file there by hand, or set url=."
                )
            try:
                with alone(folder):  # of two commands that want it one downloads, and the other waits for that
                    if not path.is_file():
                        return self._fetch(path)
            except (http.client.HTTPException, OSError, ValueError) as error:
                raise BadData(
                    f"There is no {path}, and {self.url} cannot be had ({_reason(error)}): "
                    "put the file there by hand, or repeat the command where there is a network."
                ) from error
        self._verify(path, f"{path} is damaged, cut short or another file: remove it, to have it downloaded again")
        return path

    def _fetch(self, path: Path) -> Path:
        part = path.with_name(f"{path.name}.part")
        self._download(part)
        try:
            self._verify(part, f"What {self.url} serves is damaged or another file")
        except BadData:
            part.unlink()
            raise
        return part.replace(path)

    def _download(self, part: Path) -> None:
        have = part.stat().st_size if part.is_file() else 0
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            return  # nothing is left to send; whether what is there is right, its checksum says
        with response:
            # A server that knows no ranges begins again, and so does the file.
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as file:
                self._receive(response, file, part)

    def _receive(self, response: http.client.HTTPResponse, file: BinaryIO, part: Path) -> None:
        expected = getattr(response, "length", None)  # None when the server does not say, and for what is no HTTP
        received = 0
        try:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
        except (http.client.HTTPException, OSError) as error:
            raise self._cut_short(part, received, expected) from error
        if expected is not None and received < expected:
            raise self._cut_short(part, received, expected)
        file.flush()
        os.fsync(file.fileno())

    def _cut_short(self, part: Path, received: int, expected: int | None) -> BadData:
        of = f"{received} of {expected}" if expected is not None else str(received)
        return BadData(
            f"The download of {self.url} was cut short after {of} bytes: "
            f"the same command goes on from {part.name}, which keeps them."
        )

    def _verify(self, path: Path, sentence: str) -> None:
        if not self.checksum:
            return
        kind, _, wanted = self.checksum.partition(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != wanted:
            raise BadData(f"{sentence} ({kind} is {found}, but must be {wanted}).")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted file in a .tar, .tar.gz or .zip, in the archive's order.

    Nothing is written to disk, so no name in an archive can reach out of a folder.

    Raises:
        BadData: the file is none of these, is damaged, or is cut short.
    """
    try:
        reader: _Reader = _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
        yield from reader.read(wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise BadData(f"{path} cannot be read: it is damaged, cut short or no archive ({error}).") from error


class _Reader(Protocol):
    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class _Zip:
    path: Path

    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and wanted(entry.filename):
                    yield entry.filename, archive.read(entry)


@dataclass(frozen=True, slots=True)
class _Tar:
    path: Path

    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        # As a stream: one pass, and no index of tens of thousands of entries.
        with tarfile.open(self.path, "r|*") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() and wanted(_plain(entry.name)) else None
                if content is not None:
                    yield _plain(entry.name), content.read()


def _plain(name: str) -> str:
    return name.removeprefix("./")

"""Archives: what is there is verified, what is missing is downloaded, what was interrupted goes on."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.data.archive import Archive, entries
from training.errors import BadData, Busy
from training.lock import alone

CONTENT = bytes(range(256)) * 40
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Publisher(ThreadingHTTPServer):
    """Serves CONTENT on loopback, and remembers which ranges it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.sends: int | None = None
        """Bytes after which the connection is closed; None: all."""
        self.asked: list[str | None] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """Called before each answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data.bin"


class Handler(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        self.server.meanwhile()
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.content[start:]
        self.send_response(206 if wanted and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.sends])

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_missing_archive_is_downloaded_once(publisher: Publisher, tmp_path: Path):
    archive = Archive("data.bin", publisher.url, CHECKSUM)
    for _ in range(2):
        path = archive.fetch(tmp_path / "archives")
        assert path.read_bytes() == CONTENT
    assert publisher.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["data.bin"], "nothing is left aside"


def test_one_command_downloads_into_a_folder_at_a_time(publisher: Publisher, tmp_path: Path):
    archive, refused = Archive("data.bin", publisher.url, CHECKSUM), list[str]()

    def meanwhile() -> None:
        try:
            with alone(tmp_path, "another one downloads"):
                refused.append("nobody does")
        except Busy as error:
            refused.append(str(error))

    publisher.meanwhile = meanwhile
    assert archive.fetch(tmp_path).read_bytes() == CONTENT
    assert refused == ["another one downloads"]


def test_what_another_command_has_downloaded_meanwhile_is_taken(publisher: Publisher, tmp_path: Path):
    archive = Archive("data.bin", publisher.url, CHECKSUM)
    found: list[Path] = []
    waiting = threading.Thread(target=lambda: found.append(archive.fetch(tmp_path)))
    with alone(tmp_path):
        waiting.start()
        (tmp_path / "aside").write_bytes(CONTENT)
        (tmp_path / "aside").replace(tmp_path / "data.bin")
    waiting.join()
    assert found == [tmp_path / "data.bin"]
    assert publisher.asked == []


def test_an_archive_is_had_from_a_mirror_on_disk(tmp_path: Path):
    (tmp_path / "mirror.bin").write_bytes(CONTENT)
    archive = Archive("data.bin", (tmp_path / "mirror.bin").as_uri(), CHECKSUM)
    assert archive.fetch(tmp_path / "archives").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path):
    archive = Archive("data.bin", publisher.url, CHECKSUM)
    publisher.sends = 1000
    with pytest.raises(BadData) as caught:
        archive.fetch(tmp_path)
    assert f"cut short after 1000 of {len(CONTENT)} bytes: the same command goes on" in str(caught.value)
    assert not (tmp_path / "data.bin").exists()
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:1000]
    publisher.sends = None
    assert archive.fetch(tmp_path).read_bytes() == CONTENT
    assert publisher.asked == [None, "bytes=1000-"]


def test_a_server_without_ranges_sends_everything_again(publisher: Publisher, tmp_path: Path):
    (tmp_path / "data.bin.part").write_bytes(b"something else")
    publisher.ranges = False
    assert Archive("data.bin", publisher.url, CHECKSUM).fetch(tmp_path).read_bytes() == CONTENT


def test_a_finished_part_is_taken_if_it_is_right(publisher: Publisher, tmp_path: Path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert Archive("data.bin", publisher.url, CHECKSUM).fetch(tmp_path).read_bytes() == CONTENT
    assert publisher.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [b"", b"x" * 100, b"x" * len(CONTENT)])
def test_a_download_with_another_checksum_is_not_kept(publisher: Publisher, tmp_path: Path, part: bytes):
    (tmp_path / "data.bin.part").write_bytes(part)
    publisher.content = b"y" + CONTENT[1:]
    archive = Archive("data.bin", publisher.url, CHECKSUM)
    with pytest.raises(BadData, match=r"serves is damaged or another file \(sha256 is [0-9a-f]{64}, but must be"):
        archive.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    publisher.content = CONTENT
    assert archive.fetch(tmp_path).read_bytes() == CONTENT


def test_a_file_with_another_checksum_is_refused_and_left_alone(publisher: Publisher, tmp_path: Path):
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(BadData, match=r"data\.bin is damaged, cut short or another file: remove it"):
        Archive("data.bin", publisher.url, CHECKSUM).fetch(tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[:-1]
    assert publisher.asked == []


def test_md5_is_understood_and_no_checksum_means_no_check(publisher: Publisher, tmp_path: Path):
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert Archive("one", publisher.url, md5).fetch(tmp_path).read_bytes() == CONTENT
    with pytest.raises(BadData, match=f"md5 is {md5[4:]}, but must be 0000"):
        Archive("one", publisher.url, f"md5:{'0' * 32}").fetch(tmp_path)
    assert Archive("two", publisher.url, "").fetch(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", ["md5", "md5:", "md5:12", "sha1:" + "0" * 40, "0" * 64, "sha256:" + "G" * 64])
def test_a_checksum_of_another_form_is_one_sentence(checksum: str):
    with pytest.raises(BadData, match="neither md5:<32 digits> nor sha256:<64 digits>"):
        Archive("data.bin", "http://127.0.0.1/", checksum)


def test_without_a_network_the_sentence_says_what_to_do(publisher: Publisher, tmp_path: Path):
    publisher.server_close()  # nobody listens on its port any more
    with pytest.raises(BadData) as caught:
        Archive("data.bin", publisher.url, CHECKSUM).fetch(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"There is no {tmp_path / 'data.bin'}, and {publisher.url} cannot be had (")
    assert "put the file there by hand" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("url", "what"), [("", "no url to have it from"), ("data.bin", "cannot be had"), ("http://", "cannot be had")]
)
def test_a_url_that_is_none_is_one_sentence(tmp_path: Path, url: str, what: str):
    with pytest.raises(BadData, match=what):
        Archive("data.bin", url, "").fetch(tmp_path)


FILES = {"folder/one.txt": b"1" * 5000, "folder/two.bin": bytes(range(256)) * 99, "three": b""}


def tar(path: Path, mode: str, prefix: str = "") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.addfile(_directory(f"{prefix}folder"))
        for name, content in FILES.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


def test_entries_of_every_form(tmp_path: Path):
    paths = [
        tar(tmp_path / "a.tar.gz", "w:gz"),
        tar(tmp_path / "b.tar", "w"),
        tar(tmp_path / "c.tar.gz", "w:gz", "./"),
        zipped(tmp_path / "d.zip"),
    ]
    for path in paths:
        assert dict(entries(path, lambda name: True)) == FILES
        assert dict(entries(path, lambda name: name.endswith(".txt"))) == {"folder/one.txt": b"1" * 5000}


@pytest.mark.parametrize("make", [lambda path: tar(path, "w:gz"), lambda path: tar(path, "w"), zipped])
def test_an_archive_that_is_cut_short_is_one_sentence(tmp_path: Path, make):
    path = make(tmp_path / "data.archive")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(BadData, match=r"data\.archive cannot be read: it is damaged, cut short or no archive"):
        list(entries(path, lambda name: True))


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes):
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(BadData, match="cannot be read"):
        list(entries(tmp_path / "data.zip", lambda name: True))

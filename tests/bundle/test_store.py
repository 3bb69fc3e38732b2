from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import Bundle, BundleNotFound, InvalidBundle, list_names, list_versions, open_bundle, write_bundle
from tests.tiny import tiny_graph, tiny_manifest, write_tiny
from tests.unreadable import readable_by_all, unreadable


def edit(bundle: Bundle, **changes: object) -> None:
    path = bundle.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read(models: Path):
    written = write_tiny(models)
    assert open_bundle(models, "tiny") == written
    assert sorted(file.name for file in written.path.iterdir()) == [
        "manifest.json",
        "member_00.onnx",
        "member_01.onnx",
        "member_02.onnx",
    ]


def test_versions_count_up_and_the_highest_is_opened(models: Path):
    for _ in range(11):
        write_tiny(models, members=1)
    assert list_versions(models, "tiny") == list(range(1, 12))
    assert open_bundle(models, "tiny").manifest.version == 11
    assert open_bundle(models, "tiny", 2).manifest.version == 2


def test_only_plain_numbers_are_versions(tiny: Bundle, models: Path):
    for name in ("007", ".2.123.partial", "latest", "-1", "²"):
        (models / "tiny" / name).mkdir()
    assert list_versions(models, "tiny") == [1]
    assert list_names(models) == ["tiny"]


def test_unknown_name_says_which_there_are(tiny: Bundle, models: Path):
    with pytest.raises(BundleNotFound, match=r"no bundle 'absent' in .*; bundles there: tiny"):
        open_bundle(models, "absent")
    with pytest.raises(BundleNotFound, match="has no version 1000"):
        open_bundle(models, "tiny", 10**300)
    with pytest.raises(BundleNotFound, match=r"has no version 9; versions there: 1"):
        open_bundle(models, "tiny", 9)
    with pytest.raises(BundleNotFound):
        open_bundle(models, "../tiny", 1)


def test_no_models_folder_is_no_bundle(tmp_path: Path):
    assert list_names(tmp_path / "absent") == []
    with pytest.raises(BundleNotFound, match="bundles there: none"):
        open_bundle(tmp_path / "absent", "tiny")


def test_a_folder_that_cannot_be_listed_is_named():
    with readable_by_all() as models:
        write_tiny(models)
        write_tiny(models, name="other")
        with unreadable(models / "tiny"):
            assert list_names(models) == ["other", "tiny"], "who opens it is told"
            assert open_bundle(models, "other").manifest.version == 1
            with pytest.raises(InvalidBundle, match=r"tiny cannot be listed \(Permission denied\)"):
                open_bundle(models, "tiny")
        with unreadable(models), pytest.raises(InvalidBundle, match="cannot be listed"):
            list_names(models)


def test_a_write_that_fails_leaves_nothing_on_the_disk(models: Path):
    resource = pytest.importorskip("resource", reason="files have no limit here")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tiny(models)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((models / "tiny").iterdir()) == []


def test_a_changed_member_is_named(tiny: Bundle, models: Path):
    with tiny.graph(1).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InvalidBundle, match=r"member_01\.onnx has SHA-256 .* changed or cut short"):
        open_bundle(models, "tiny")


def test_a_missing_member_is_named(tiny: Bundle, models: Path):
    tiny.graph(2).unlink()
    with pytest.raises(InvalidBundle, match=r"member_02\.onnx cannot be read"):
        open_bundle(models, "tiny")


def test_a_newer_format_is_refused(tiny: Bundle, models: Path):
    edit(tiny, format_version=2, members="of a shape that this release cannot know")
    with pytest.raises(InvalidBundle, match="format_version 2, but this release reads 1"):
        open_bundle(models, "tiny")


def test_a_broken_manifest_is_one_sentence(tiny: Bundle, models: Path):
    edit(tiny, classes=["red"])
    with pytest.raises(
        InvalidBundle, match=r"manifest\.json is not valid: classes: a classifier needs at least two\.$"
    ):
        open_bundle(models, "tiny")
    for content in ("{", "[" * 200_000):
        (tiny.path / "manifest.json").write_text(content)
        with pytest.raises(InvalidBundle, match="cannot be read as JSON"):
            open_bundle(models, "tiny")
    (tiny.path / "manifest.json").unlink()
    with pytest.raises(InvalidBundle, match="is missing"):
        open_bundle(models, "tiny")


def test_a_moved_bundle_is_refused(tiny: Bundle, models: Path):
    tiny.path.rename(models / "tiny" / "5")
    with pytest.raises(InvalidBundle, match="is of tiny/1, but its folder says tiny/5"):
        open_bundle(models, "tiny")


def test_a_manifest_that_lists_other_graphs_is_not_written(models: Path):
    graphs = [tiny_graph(0)]
    with pytest.raises(InvalidBundle, match="does not list exactly"):
        write_bundle(models, {"member_00.onnx": b"other"}, lambda version: tiny_manifest(graphs, version))
    assert list_names(models) == []


def test_an_interrupted_write_leaves_no_half_bundle(models: Path, monkeypatch: pytest.MonkeyPatch):
    def power_cut(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_cut)
        with pytest.raises(KeyboardInterrupt):
            write_tiny(models)
    assert list_versions(models, "tiny") == []
    assert write_tiny(models).manifest.version == 1
    assert open_bundle(models, "tiny").manifest.version == 1


def test_what_a_killed_writer_left_is_removed_by_the_next_write_of_that_version(models: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [models / "tiny" / f".1.{pid}.partial" for pid in (ended.pid, os.getppid(), "word")]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "member_00.onnx").touch()
        os.utime(folder, (0, 0))
    just_left = models / "tiny" / f".1.{ended.pid}0.partial"
    just_left.mkdir()
    write_tiny(models)
    assert just_left.exists(), "its writer may be in another container"
    assert [folder.exists() for folder in left] == [False, True, True], "only where the writer is no more"


def write_some(models: Path) -> None:
    for _ in range(5):
        write_tiny(models, members=1)


def test_concurrent_writers_each_get_a_version(models: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(models,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert list_versions(models, "tiny") == list(range(1, 16))
    for version in range(1, 16):
        assert open_bundle(models, "tiny", version).manifest.version == version

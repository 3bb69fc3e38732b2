"""A run around its rounds: when its checkpoint goes and when it stays, one bundle for each run, one run a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundle import list_versions
from tests.training.toy import CONFIG, toy_game
from training.checkpoint import Checkpoint
from training.errors import BadConfig, BadTeacher, Busy, NoWeakLearner
from training.pipeline import play, run_of


@pytest.mark.parametrize(
    ("error", "resume", "stays"),
    [
        (KeyboardInterrupt, False, True),
        (BadConfig, False, False),
        (BadTeacher, False, False),
        (NoWeakLearner, False, False),
        (BadConfig, True, True),
        (BadTeacher, True, True),
        (NoWeakLearner, True, False),
    ],
)
def test_a_refused_resume_keeps_the_epochs_that_it_could_not_go_on_with(
    tmp_path: Path, error: type[BaseException], resume: bool, stays: bool
):
    checkpoint = Checkpoint(tmp_path / ".checkpoint", "toy")
    with checkpoint.started(resume=False):
        checkpoint.save("teacher", {"epochs_done": 9})
    if not resume:
        checkpoint.remove()
    with pytest.raises(error), run_of(checkpoint, CONFIG, resume=resume):
        raise error
    assert checkpoint.folder.is_dir() is stays
    if stays and resume:
        assert checkpoint.load("teacher") == {"epochs_done": 9}


def test_a_run_that_was_ended_after_its_bundle_was_written_writes_no_second_one(tmp_path: Path):
    def again() -> Path:
        return play(toy_game(tmp_path, rounds=1, epochs=1), tmp_path, "toy").path

    assert [again(), again()] == [tmp_path / "toy" / "1"] * 2
    assert list_versions(tmp_path, "toy") == [1]
    shutil.rmtree(tmp_path / "toy" / "1")
    assert again().is_dir(), "unless somebody removed it"


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_of_a_name_is_refused_and_leaves_the_first_one_its_checkpoint(tmp_path: Path, resume: bool):
    first, second = (Checkpoint(tmp_path / "toy" / ".checkpoint", seed) for seed in ("seed 0", "seed 1"))
    with run_of(first, CONFIG, resume=False):
        first.save("teacher", {"epochs_done": 9})
        refused = pytest.raises(Busy, match=r"Another run keeps its checkpoint in .*: wait for its end, or give this")
        with refused, run_of(second, CONFIG, resume=resume):
            raise AssertionError("two runs in one folder")
        assert first.load("teacher") == {"epochs_done": 9}
    assert not first.folder.parent.exists()


def test_a_new_run_forgets_what_an_interrupted_one_left(tmp_path: Path):
    first, second = (Checkpoint(tmp_path / ".checkpoint", seed) for seed in ("seed 0", "seed 1"))
    with pytest.raises(KeyboardInterrupt), run_of(first, CONFIG, resume=False):
        first.save("teacher", {"epochs_done": 9})
        raise KeyboardInterrupt
    with run_of(second, CONFIG, resume=False):
        assert second.load("teacher") is None

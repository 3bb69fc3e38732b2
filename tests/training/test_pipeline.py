"""When the checkpoint of a run goes, and when it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.toy import CONFIG
from training.checkpoint import Checkpoint
from training.errors import BadConfig, BadTeacher, Busy, NoWeakLearner
from training.pipeline import run_of


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

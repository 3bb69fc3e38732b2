"""When the checkpoint of a run goes, and when it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.toy import CONFIG
from training.checkpoint import Checkpoint
from training.errors import BadConfig, BadTeacher, NoWeakLearner
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
    checkpoint.start(resume=False)
    checkpoint.save("teacher", {"epochs_done": 9})
    if not resume:
        checkpoint.remove()
    with pytest.raises(error), run_of(checkpoint, CONFIG, resume=resume):
        raise error
    assert checkpoint.folder.is_dir() is stays
    if stays and resume:
        assert checkpoint.load("teacher") == {"epochs_done": 9}

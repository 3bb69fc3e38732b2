"""The command line: one sentence for each mistake, a table at the end, and a run that survives kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundle import open_bundle
from tests.training.killable import run
from training.cli import main
from training.data.cifar import CIFAR10
from training.progress import Quiet

ROOT = Path(__file__).parent.parent.parent
NAMES = ["digits", "ellipsoid", "cube", "regression", "cifar10", "cifar100", "google13", "dsa19", "npz"]
TINY = (
    "threads=1",
    "rounds=2",
    "epochs=2",
    "refine_epochs=2",
    "teacher_epochs=2",
    "batch_size=512",
    "on_failure=best",
    "gamma=1000",
)
TINY_ARGUMENTS = [part for setting in TINY for part in ("--set", setting)]


def test_list_explains_every_recipe_in_a_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line) < 100 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], f"A recipe is needed; there are: {', '.join(NAMES)}."),
        (["digit"], f"There is no recipe 'digit'; there are: {', '.join(NAMES)}."),
        (["digits", "--set", "epoch=3"], "There is no setting 'epoch'; there are: name, seed,"),
        (["digits", "--set", "epochs=three"], "epochs='three' is not of type int."),
        (["digits", "--seed", "-1"], "seed=-1 must be at least 0."),
        (["digits", "--resume"], "There is nothing to resume"),
        (["npz", "--set", "data=nowhere.npz"], "There is no file nowhere.npz: name the archive with --set data="),
        (["npz"], "There is no file data.npz"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*arguments, "--models", str(tmp_path / "models")]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"train-ensemble: {sentence}")
    assert output.err.count("\n") == 1
    assert not (tmp_path / "models").exists(), "before any training starts"


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Thirty samples of three classes with a teacher's logits, and what is changed about them."""
    x, y, logits = np.zeros((30, 4), np.float32), np.arange(30) % 3, np.zeros((30, 3), np.float32)
    parts = {f"{part}_{name}": value for part in ("train", "test") for name, value in (("x", x), ("y", y))}
    return {**parts, "train_logits": logits, "test_logits": logits, **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_x": np.full((30, 4), np.nan, np.float32)}, "train x holds NaN or infinity in "),
        ({"test_x": np.full((30, 4), np.inf, np.float32)}, "test x holds NaN or infinity in 120 places."),
        ({"test_logits": np.zeros((30, 4), np.float32)}, "The teacher has 4 classes, but the data has 3."),
        ({"train_y": np.arange(30) % 5}, "train y holds labels from 0 to 4, but there are 3 classes (from 0)."),
        ({"train_logits": np.full((30, 3), np.nan)}, "The teacher's train logits hold NaN or infinity."),
    ],
)
def test_data_or_a_teacher_that_cannot_be_used_are_one_sentence(
    changes: dict[str, np.ndarray], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "mine.npz", **arrays(**changes))
    assert main(["npz", "--models", str(tmp_path / "models"), "--set", f"data={tmp_path / 'mine.npz'}"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"train-ensemble: {sentence}")
    assert output.err.count("\n") == 1
    assert output.out == "", "no candidate, no teacher"
    assert not list(tmp_path.glob("models/*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "There is no {path}, and file:///nowhere cannot be had ("), (b"no archive", "{path} is damaged, ")],
)
def test_an_archive_that_is_missing_or_another_is_one_sentence(
    content: bytes | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / CIFAR10.archive.file
    if content is not None:
        path.write_bytes(content)
    given = ["--set", f"archives={tmp_path}", "--set", "url=file:///nowhere"]
    assert main(["cifar10", "--models", str(tmp_path / "models"), *given]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("train-ensemble: " + sentence.format(path=path))
    assert output.err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_arguments_that_argparse_refuses_are_exit_code_2_too():
    with pytest.raises(SystemExit) as caught:
        main(["digits", "--device", "tpu"])
    assert caught.value.code == 2


@pytest.mark.slow
def test_own_arrays_give_a_bundle_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    random = np.random.default_rng(0)
    arrays = {}
    for name, size in (("train", 120), ("test", 40)):
        x = random.normal(size=(size, 5)).astype(np.float32)
        scores = x[:, :3] * 3
        arrays |= {f"{name}_x": x, f"{name}_y": scores.argmax(1), f"{name}_logits": scores}
    np.savez(tmp_path / "mine.npz", **arrays)
    models = tmp_path / "models"
    settings = ["--set", f"data={tmp_path / 'mine.npz'}", "--set", "name=mine", *TINY_ARGUMENTS]
    assert main(["npz", "--models", str(models), "--with-teacher", *settings]) == 2
    assert "with_teacher needs the teacher itself" in capsys.readouterr().err
    assert main(["npz", "--models", str(models), "--seed", "3", *settings]) == 0
    printed = capsys.readouterr().out
    for part in ("mine/1: 40 held-out samples", "FLOPs", "accuracy", "agreement", "edge", "teacher", "100.00 %"):
        assert part in printed
    manifest = open_bundle(models, "mine").manifest
    assert len(manifest.members) == 2
    assert manifest.input.shape == (5,)
    assert manifest.training is not None
    assert manifest.training.seed == 3
    assert manifest.training.config["data"] == "mine.npz"
    assert (models / "mine" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (models / "mine" / "1" / "manifest.json").read_text()


class Killable:
    """A run in a process of its own that waits for a word after every epoch, so that it can be killed in any."""

    def __init__(self, models: Path, *, resume: bool) -> None:
        command = [sys.executable, "-m", "tests.training.killable", str(models), *TINY, "max_search=2"]
        self.process = subprocess.Popen(
            [*command, *(["--resume"] if resume else [])],
            cwd=ROOT,
            env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run_until(self, phase: str, epoch: int) -> None:
        """Let it go on until the checkpoint of `epoch` in a phase is written."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found, _, done = line.strip().rpartition(" ")
            if phase in found and int(done) == epoch:
                return
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        raise AssertionError(f"ended before {phase!r} came to epoch {epoch}")

    def kill(self) -> None:
        """SIGKILL: nothing of the process runs any more."""
        self.process.kill()
        self.process.communicate()
        assert self.process.returncode == -9


@pytest.mark.slow
@pytest.mark.timeout(300)  # five processes that import torch, or train: long where others are busy too
def test_killed_thrice_and_resumed_the_bundle_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    straight = run(tmp_path / "straight", [*TINY, "max_search=2"], Quiet(), resume=False).path

    killed = tmp_path / "killed"
    phases = ["teacher", "member 2 of 2: conv-2-4, r = 1, restart 1", "refinement of all members"]
    for attempt, phase in enumerate(phases):
        process = Killable(killed, resume=attempt > 0)
        process.run_until(phase, epoch=1)
        process.kill()
        assert not (killed / "digits" / "1").exists()
    resumed = run(killed, [*TINY, "max_search=2"], Quiet(), resume=True).path

    assert {path.name: path.read_bytes() for path in resumed.iterdir()} == {
        path.name: path.read_bytes() for path in straight.iterdir()
    }
    manifest = open_bundle(killed, "digits").manifest
    assert manifest.training is not None
    assert manifest.training.refinement is not None
    assert manifest.training.refinement.kept > 0, "or the killed refinement would not matter"
    rounds = [member.round for member in manifest.members]
    assert rounds[1] is not None
    assert rounds[1].attempts == 2, "the second restart was reached, so the first one's candidate was restored"

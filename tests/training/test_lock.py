"""One at a time in a folder, whatever becomes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from training.errors import Busy
from training.lock import alone

HOLD = "import pathlib, sys; from training.lock import alone\nwith alone(pathlib.Path(sys.argv[1])): print(); input()"


def test_a_second_one_is_refused_until_the_first_has_left(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    with alone(folder, "busy"):
        with pytest.raises(Busy, match="busy"), alone(folder, "busy"):
            pass
        with alone(tmp_path / "other", "busy"):
            pass
    with alone(folder, "busy"):
        pass


def test_who_is_killed_keeps_nobody_out(tmp_path: Path):
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with held:
        held.stdout.readline()
        with pytest.raises(Busy), alone(tmp_path, "busy"):
            pass
        held.kill()
    with alone(tmp_path, "busy"):
        pass


def test_who_waits_comes_next_even_if_the_folder_was_removed_and_made_again(tmp_path: Path):
    folder, inside, order = tmp_path / "folder", threading.Event(), list[str]()

    def second() -> None:
        inside.wait()
        with alone(folder):
            order.append("second")
            assert folder.is_dir()

    waiter = threading.Thread(target=second)
    waiter.start()
    with alone(folder):
        inside.set()
        order.append("first")
        shutil.rmtree(folder)
    waiter.join()
    assert order == ["first", "second"]

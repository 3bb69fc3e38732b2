"""A regression from one's own arrays to an answer over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle import open_bundle
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient
from service.settings import Settings
from tests.service.server import serving
from training.cli import main

SETTINGS = ("threads=1", "rounds=2", "epochs=4", "teacher_epochs=4", "member_widths=4,4", "teacher_widths=8,8")


@pytest.mark.slow
def test_own_values_are_trained_and_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    random = np.random.default_rng(0)
    arrays = {}
    for name, size in (("train", 200), ("test", 40)):
        x = random.normal(size=(size, 5)).astype(np.float32)
        arrays |= {f"{name}_x": x, f"{name}_y": np.rint(1000 + 50 * x[:, 0]).astype(int)}
    np.savez(tmp_path / "mine.npz", **arrays)
    models = tmp_path / "models"
    settings = (*SETTINGS, f"data={tmp_path / 'mine.npz'}", "task=regression", "name=mine")
    assert main(["npz", "--models", str(models), *(part for one in settings for part in ("--set", one))]) == 0
    printed = capsys.readouterr().out
    assert "RMSE" in printed
    assert "accuracy" not in printed
    assert (models / "mine" / "report.png").read_bytes().startswith(b"\x89PNG")

    bundle = open_bundle(models, "mine")
    assert bundle.manifest.task == "regression"
    teacher = bundle.manifest.teacher
    assert teacher.rmse is not None
    assert teacher.rmse < 50, "better than the mean: the labels' own unit was found again"
    app = create_app(Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8))
    with serving(app) as server, AnytimeClient(server.url) as client:
        x = arrays["test_x"]
        for members, expected in enumerate(running_average(bundle, x[:8]), start=1):
            answer = client.predict(x[:8], max_members=members)
            np.testing.assert_allclose(np.array(answer.values), expected, rtol=1e-5)
            assert answer.expected_rmse == bundle.manifest.prefixes[members - 1].rmse
        assert client.feedback(answer.request_id, arrays["test_y"][:8].tolist()).rmse == pytest.approx(
            np.sqrt(np.mean((expected[:, 0] - arrays["test_y"][:8]) ** 2)), rel=1e-5
        )

"""Recurrent members as chunk graphs: the same answers as the whole window, a chunk at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import Bundle, open_bundle
from bundle.reference import running_average, running_average_chunks
from tests.training.toy import CONFIG
from training import Convolutional, Data, Logits, Recurrent, Split, distil
from training.bdistil import Outcome, run_rounds
from training.checkpoint import Checkpoint
from training.chunks import check_chunks, export_chunks
from training.errors import BadConfig, ExportError
from training.game import Game
from training.networks import Normalise
from training.pipeline import game_of
from training.progress import Quiet

SETTINGS = {"epochs": 1, "on_failure": "best", "gamma": 1e6, "bound_factor": 20.0}


def sequences(steps: int, features: int = 4) -> tuple[Data, Logits]:
    """Random walks, with their last values as the teacher's logits."""
    random = np.random.default_rng(0)
    parts, logits = {}, {}
    for name, size in {"train": 40, "validation": 70, "test": 20}.items():
        x = random.normal(size=(size, steps, features)).cumsum(axis=1).astype(np.float32)
        parts[name] = Split(x, np.arange(size) % 3)
        logits[name] = x[:, -1, :3]
    return Data(**parts, classes=("a", "b", "c"), sequences=True), Logits(**logits)


@pytest.fixture(
    scope="module",
    params=[
        (Recurrent(cell="gru", widths=(5,)), 2, 11, 99),
        (Recurrent(cell="lstm", widths=(4, 3)), 1, 5, 15),
        (Recurrent(cell="gru", widths=(5,), frame=3), 2, 6, 18),
    ],
    ids=lambda case: f"{case[0].name}-{case[3]}-by-{case[2]}".replace("/", "-at-"),
)
def streamed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Data]:
    model_class, rounds, chunk_steps, steps = request.param
    data, logits = sequences(steps)
    models = tmp_path_factory.mktemp("models")
    config = dataclasses.replace(CONFIG, **SETTINGS, connection="dense", rounds=rounds, chunk_steps=chunk_steps)
    distil(logits, data, [model_class], config, models=models)
    return open_bundle(models, config.name), data


def test_all_chunks_say_what_the_whole_window_says(streamed: tuple[Bundle, Data]):
    bundle, data = streamed
    steps, chunk = data.input_shape[0], bundle.manifest.chunk_steps
    assert chunk is not None
    answers, members = list(running_average_chunks(bundle, data.test.x)), len(bundle.manifest.members)
    assert len(answers) == members * steps // chunk
    for answer, whole in zip(answers[-members:], running_average(bundle, data.test.x), strict=True):
        assert answer.steps == steps
        assert np.abs(answer.logits - whole).max() < 1e-4
        assert np.abs(whole).max() > 0.05, "or nothing was compared"


def test_a_chunk_is_answered_without_the_rest(streamed: tuple[Bundle, Data]):
    bundle, data = streamed
    changed = data.test.x.copy()
    changed[:, bundle.manifest.chunk_steps :] = 7
    one, other = (next(running_average_chunks(bundle, x)) for x in (data.test.x, changed))
    np.testing.assert_array_equal(one.logits, other.logits)


def test_the_manifest_says_how_to_run_them(streamed: tuple[Bundle, Data]):
    bundle, _ = streamed
    for member, chunk in zip(bundle.manifest.members, bundle.manifest.streaming, strict=True):
        assert [(link.from_member, link.from_output) for link in chunk.connections] == [
            (link.from_member, link.from_output) for link in member.connections
        ]
        frame = 3 if member.round.model_class == "gru-5/3" else 1
        assert all(link.shape[0] == bundle.manifest.chunk_steps // frame for link in chunk.connections)
        expected = {"gru-5": [5], "gru-5/3": [5], "lstm-4-3": [4, 4, 3, 3]}[member.round.model_class]
        assert [state.shape for state in chunk.states] == [(width,) for width in expected]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_going_on_is_the_same_as_not_stopping(cell):
    x = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = Recurrent(cell=cell, widths=(5, 3)).build(Normalise.of(x.numpy(), sequences=True), (12, 4), 6)
    _, taps = network(x)
    steps_NTL = network.logits_of_steps(taps)
    assert steps_NTL.shape == (3, 12, 6)
    states = [tuple(torch.zeros(3, w) for _ in range(2 if cell == "lstm" else 1)) for w in (5, 3)]
    for end in (4, 5, 12):
        start = {4: 0, 5: 4, 12: 5}[end]
        logits, chunk_taps, states = network.go_on(x[:, start:end], (), states)
        torch.testing.assert_close(logits, steps_NTL[:, end - 1])
        for tap, whole in zip(chunk_taps, taps, strict=True):
            torch.testing.assert_close(tap, whole[:, start:end])


def short_run(folder: Path) -> tuple[Game, Outcome]:
    data, logits = sequences(6)
    config = dataclasses.replace(CONFIG, **{**SETTINGS, "rounds": 1})
    game = game_of(logits, data, [Recurrent(cell="gru", widths=(3,))], config, Checkpoint(folder / "c", "x"), Quiet())
    return game, run_rounds(game)


def test_a_chunk_that_forgets_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, outcome = short_run(tmp_path)
    layer = next(outcome.ensemble.members[0].network.layers())
    right = layer.go_on
    monkeypatch.setattr(layer, "go_on", lambda z, state: right(z, tuple(0 * value for value in state)))
    with pytest.raises(ExportError, match="chunk of member 0 at batch size 1 after 4 steps: onnxruntime differs"):
        export_chunks(outcome.ensemble, 2)


def test_chunks_that_cannot_be_had_are_one_sentence():
    config = dataclasses.replace(CONFIG, chunk_steps=25)
    with pytest.raises(BadConfig, match="chunk_steps=25 must divide the 99 steps of a sequence"):
        check_chunks(config, [Recurrent(cell="gru", widths=(3,))], (99, 32))
    with pytest.raises(BadConfig, match="chunk_steps=25 must be a multiple of the 2 steps that gru-3/2 reads at once"):
        check_chunks(config, [Recurrent(cell="gru", widths=(3,), frame=2)], (50, 32))
    with pytest.raises(BadConfig, match="chunk_steps=25 is for recurrent members only, and conv-3 is none"):
        check_chunks(config, [Convolutional(widths=(3,))], (125, 45))
    check_chunks(config, [Recurrent(cell="gru", widths=(3,))], (125, 45))
    check_chunks(CONFIG, [Convolutional(widths=(3,))], (8, 8))
    with pytest.raises(BadConfig, match="chunk_steps=-1 must be at least 0"):
        dataclasses.replace(CONFIG, chunk_steps=-1)

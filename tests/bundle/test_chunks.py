"""Chunk graphs: what the manifest promises of them, on disk, and as the reference loop runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bundle import Bundle, InvalidBundle, Manifest, Member, open_bundle, write_bundle
from bundle.reference import running_average, running_average_chunks
from tests.tiny import samples
from tests.tiny_stream import CHUNK_STEPS, HIDDEN, STEPS, sequences, stream_graphs, stream_manifest, write_stream


@pytest.fixture
def stream(models: Path) -> Bundle:
    return write_stream(models)


def test_what_was_written_is_read(stream: Bundle, models: Path):
    assert open_bundle(models, "stream") == stream
    assert stream.chunk_graph(2).name == "member_02_chunk.onnx"
    assert len(stream.manifest.streaming) == 3
    assert len(stream.manifest.files()) == 6


def test_a_changed_chunk_graph_is_named(stream: Bundle, models: Path):
    with stream.chunk_graph(1).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InvalidBundle, match=r"member_01_chunk\.onnx has SHA-256 .* changed or cut short"):
        open_bundle(models, "stream")


def test_a_chunk_graph_that_is_not_given_is_not_written(models: Path):
    graphs = stream_graphs(1)
    with pytest.raises(InvalidBundle, match="does not list exactly"):
        write_bundle(models, {"member_00.onnx": graphs[0].whole}, lambda version: stream_manifest(graphs, version))


@pytest.mark.parametrize("rows", [1, 5])
def test_the_last_chunk_says_what_the_whole_sequence_says(stream: Bundle, rows: int):
    x = sequences(rows)
    answers = list(running_average_chunks(stream, x))
    depths = [(answer.steps, answer.members) for answer in answers]
    assert depths == [(steps, k) for steps in range(CHUNK_STEPS, STEPS + 1, CHUNK_STEPS) for k in (1, 2, 3)]
    for answer, whole in zip(answers[-3:], running_average(stream, x), strict=True):
        np.testing.assert_allclose(answer.logits, whole, rtol=1e-5, atol=1e-5)


def test_a_chunk_is_answered_from_the_steps_so_far(stream: Bundle):
    """What comes later changes nothing, what came before does: by a sequence that begins again."""
    x = sequences(2, 3 * CHUNK_STEPS)
    twice = np.concatenate([x, x], axis=1)
    first, again = list(running_average_chunks(stream, x)), list(running_average_chunks(stream, twice))
    for one, other in zip(first, again, strict=False):
        np.testing.assert_array_equal(one.logits, other.logits)
    assert not np.allclose(again[-1].logits, first[-1].logits)
    assert again[-1].steps == 6 * CHUNK_STEPS


def test_steps_that_fill_no_chunk_are_left_out(stream: Bundle):
    x = sequences(1, CHUNK_STEPS + 1)
    assert {answer.steps for answer in running_average_chunks(stream, x)} == {CHUNK_STEPS}


def test_a_bundle_without_chunk_graphs_answers_no_stream(tiny: Bundle):
    with pytest.raises(InvalidBundle, match="has no chunk graphs: it cannot answer a stream"):
        next(running_average_chunks(tiny, samples(2)))


def test_a_chunk_graph_that_is_not_what_the_manifest_says(models: Path):
    graphs = stream_graphs(1)
    files = {"member_00.onnx": graphs[0].whole, "member_00_chunk.onnx": graphs[0].chunk}

    def describe(version: int) -> Manifest:
        state = {"input": "state_in", "output": "state_out", "dtype": "float32", "shape": [HIDDEN + 1]}
        return edited(stream_manifest(graphs, version), 0, states=[state])

    bundle = write_bundle(models, files, describe)
    with pytest.raises(InvalidBundle, match=r"'state_in' is float32\[5\] per sample, but the manifest says float32\[6"):
        next(running_average_chunks(bundle, sequences(1)))


def edited(manifest: Manifest, index: int, **changes: object) -> Manifest:
    """`manifest` with fields of one chunk changed, validated again."""
    document = manifest.model_dump(mode="json")
    document["members"][index]["chunk"].update(changes)
    return Manifest.model_validate(document)


LINK = {"input": "previous", "from_member": 0, "from_output": "hidden", "dtype": "float32", "shape": [2, 5]}
STATE = {"input": "state_in", "output": "state_out", "dtype": "float32", "shape": [5]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"file": "../up.onnx"}, "must be a plain file name"),
        ({"file": "member_00.onnx"}, "two share a file"),
        ({"states": []}, "at least 1 item"),
        ({"states": [STATE, STATE]}, "two outputs have the same name"),
        ({"states": [STATE, {**STATE, "output": "other"}]}, "two connections or states feed the same input"),
        ({"states": [{**STATE, "output": "hidden"}]}, "two outputs have the same name"),
        ({"states": [{**STATE, "input": "previous"}]}, "two connections or states feed the same input"),
        ({"logits": "absent"}, "logits 'absent' is not among its outputs"),
        ({"outputs": [{"name": "logits", "dtype": "float32", "shape": [7]}]}, "logits have shape (7,) for 3 classes"),
        ({"connections": [{**LINK, "from_member": 1}]}, "comes from member 1, which does not run before it"),
        ({"connections": [{**LINK, "from_output": "state_out"}]}, "member 0 has no output 'state_out'"),
        ({"connections": [{**LINK, "shape": [6, 5]}]}, "expects float32[6, 5] but member 0 gives float32[2, 5]"),
    ],
)
def test_a_bad_chunk_is_one_sentence(changes: dict, sentence: str):
    with pytest.raises(ValidationError) as caught:
        edited(stream_manifest(stream_graphs(2)), 1, **changes)
    assert sentence in str(caught.value)


def test_chunks_fit_the_bundle():
    document = stream_manifest(stream_graphs(2)).model_dump(mode="json")

    def refuse(sentence: str, **changes: object) -> None:
        with pytest.raises(ValidationError, match=sentence):
            Manifest.model_validate({**document, **changes})

    refuse("chunk_steps: must be given exactly when", chunk_steps=None)
    refuse("chunk_steps: 4 does not divide the steps of input", chunk_steps=4)
    first, second = document["members"]
    refuse("one without a chunk graph stands before one with it", members=[{**first, "chunk": None}, second])
    refuse("chunk_steps: must be given exactly", members=[{**member, "chunk": None} for member in (first, second)])
    Manifest.model_validate({**document, "members": [first, {**second, "chunk": None}]})
    with pytest.raises(ValidationError, match="a stream is answered by a mean, so it has no chunk graph"):
        Member.model_validate({**second, "combine": "replace"})

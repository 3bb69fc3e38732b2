from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bundle import Bundle, InvalidBundle, write_bundle
from bundle.reference import running_average
from tests.tiny import samples, tiny_graph, tiny_manifest, write_tiny


def by_hand(bundle: Bundle, x: np.ndarray) -> list[np.ndarray]:
    """Each member's own logits, in numpy, from the weights in its file."""
    hidden, logits = np.zeros(1, np.float32), []
    for member in bundle.manifest.members:
        graph = onnx.load(bundle.graph(member.index)).graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        hidden = np.maximum(x.astype(np.float32) @ weights["V"] + hidden, 0)
        logits.append(hidden @ weights["W"])
    return logits


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_kth_item_is_the_mean_of_the_first_k(tiny: Bundle, rows: int):
    x = samples(rows)
    members = by_hand(tiny, x)
    prefixes = list(running_average(tiny, x))
    assert len(prefixes) == 3
    for k, answer in enumerate(prefixes, start=1):
        np.testing.assert_allclose(answer, np.mean(members[:k], axis=0), rtol=1e-5, atol=1e-6)


def test_items_are_not_changed_afterwards(tiny: Bundle):
    iterator = running_average(tiny, samples(4))
    first = next(iterator)
    before = first.copy()
    list(iterator)
    np.testing.assert_array_equal(first, before)


def test_a_replacing_member_is_the_answer(models: Path):
    bundle = write_tiny(models, last="replace")
    x = samples(6)
    members = by_hand(bundle, x)
    prefixes = list(running_average(bundle, x))
    np.testing.assert_allclose(prefixes[1], np.mean(members[:2], axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prefixes[2], members[2], rtol=1e-5, atol=1e-6)


def test_integer_inputs(models: Path):
    bundle = write_tiny(models, dtype="uint8")
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.testing.assert_allclose(next(running_average(bundle, x)), by_hand(bundle, x)[0], rtol=1e-5)


def test_a_graph_that_is_not_what_the_manifest_says(models: Path):
    graphs = [tiny_graph(0, features=6)]
    bundle = write_bundle(models, {"member_00.onnx": graphs[0]}, lambda version: tiny_manifest(graphs, version))
    with pytest.raises(InvalidBundle, match=r"'x' is float32\[6\] per sample, but the manifest says float32\[4\]"):
        next(running_average(bundle, samples(1)))


def test_a_graph_of_another_wiring(models: Path):
    graphs = [tiny_graph(0), tiny_graph(0)]
    files = {"member_00.onnx": graphs[0], "member_01.onnx": graphs[1]}
    bundle = write_bundle(models, files, lambda version: tiny_manifest(graphs, version))
    with pytest.raises(InvalidBundle, match="has inputs x, but the manifest says previous, x"):
        list(running_average(bundle, samples(1)))

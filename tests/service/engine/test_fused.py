"""Members in one go against the same members one after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bundle import Bundle, write_bundle
from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.fused import FusedMembers
from service.engine.fusion import NotFusible, fuse, read_after, read_before
from service.engine.step import Step
from service.engine.ticket import Logits, Ticket
from tests.fakes import ticket
from tests.service.engine.test_waves import wirings
from tests.tiny import CLASSES, HIDDEN, samples, tiny_graph, tiny_manifest, write_tiny
from tests.tiny_dag import Links, write_dag


def plain(bundle: Bundle) -> CpuExecutor:
    executor = CpuExecutor(1)
    executor.load("tiny/1", bundle)
    return executor


def company(sizes: list[int]) -> list[Ticket]:
    return [ticket(rows, seed=seed) for seed, rows in enumerate(sizes)]


def step(members: range, tickets: list[Ticket]) -> Step:
    return Step("tiny/1", members.start, tuple(tickets), sum(one.rows for one in tickets), len(members), fused=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), links=wirings(), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_any_group_gives_the_numbers_of_its_members_and_leaves_what_they_do(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, links: Links, sizes: list[int]
):
    bundle = write_dag(tmp_path_factory.mktemp("models"), links)
    start = data.draw(st.integers(0, len(links) - 1))
    group = range(start, data.draw(st.integers(start + 1, len(links))))
    executor, fused = plain(bundle), FusedMembers(bundle, group)
    together, apart = company(sizes), company(sizes)
    found: list[Logits] = []
    for member in range(len(links)):
        expected = executor.run(step(range(member, member + 1), apart))
        if member == start:
            found += fused.run(step(group, together))
        elif member not in group:
            found.append(executor.run(step(range(member, member + 1), together)))
        np.testing.assert_allclose(found[member], expected, atol=1e-5)
        if member not in group[:-1]:
            for one, other in zip(together, apart, strict=True):
                assert set(one.activations) == set(other.activations), "kept as long as it is read, and no longer"


def test_a_bundle_of_another_type_is_read_under_its_own_name(models: Path):
    bundle = write_tiny(models, dtype="uint8", last="replace")
    x = np.random.default_rng(0).integers(0, 200, (3, 4)).astype(np.uint8)
    one = ticket(3)
    one.inputs = x
    *_, last = FusedMembers(bundle, range(3)).run(step(range(3), [one]))
    *_, expected = running_average(bundle, x)
    np.testing.assert_allclose(last, expected, atol=1e-5)
    assert not one.activations


@pytest.mark.parametrize("members", [range(3), range(1, 3)])
def test_without_tickets_it_runs_on_zeros(tiny: Bundle, members: range):
    outputs = FusedMembers(tiny, members).run(Step("tiny/1", members.start, (), 5, len(members)))
    assert [logits.shape for logits in outputs] == [(5, CLASSES)] * len(members)
    if not members.start:
        *_, expected = running_average(tiny, np.zeros_like(samples(5)))
        np.testing.assert_allclose(np.mean(outputs, axis=0), expected, atol=1e-5)


def test_what_is_read_and_what_is_given_is_that_of_the_others(models: Path):
    bundle = write_dag(models, [[], [0], [0, 1], [2], [1, 3]])
    assert read_before(bundle, range(2, 4)) == [(0, "hidden"), (1, "hidden")]
    assert read_after(bundle, range(2, 4)) == [(3, "hidden")]
    graph = fuse(bundle, range(2, 4)).graph
    assert {edge.name for edge in graph.input} == {"x", "member_0/hidden", "member_1/hidden"}
    assert [edge.name for edge in graph.output] == ["member_2/logits", "member_3/logits", "member_3/hidden"]


def test_a_member_may_read_logits_too(models: Path):
    """They are given once, under one name."""
    graphs = [tiny_graph(0), _reader_of_logits(), tiny_graph(2)]

    def manifest(version: int):
        base = tiny_manifest(graphs, version).model_dump()
        base["members"][1]["connections"] = [
            {"input": "before", "from_member": 0, "from_output": "logits", "dtype": "float32", "shape": (CLASSES,)}
        ]
        return type(tiny_manifest(graphs)).model_validate(base)

    files = {f"member_{index:02d}.onnx": graph for index, graph in enumerate(graphs)}
    bundle = write_bundle(models, files, manifest)
    executor, one, other = plain(bundle), ticket(2), ticket(2)
    (first,) = FusedMembers(bundle, range(1)).run(step(range(1), [one]))
    np.testing.assert_allclose(first, executor.run(step(range(1), [other])), atol=1e-6)
    assert set(one.activations) == set(other.activations) == {(0, "logits")}
    for logits, member in zip(FusedMembers(bundle, range(1, 3)).run(step(range(1, 3), [one])), (1, 2), strict=True):
        np.testing.assert_allclose(logits, executor.run(step(range(member, member + 1), [other])), atol=1e-5)


def _reader_of_logits() -> bytes:
    """A member whose branches of an If read a weight and the input of the graph around them."""
    out = [helper.make_tensor_value_info("picked", TensorProto.FLOAT, None)]
    branches = {
        name: helper.make_graph([helper.make_node(operator, ["before", "W"], ["picked"])], name, [], out)
        for name, operator in (("then_branch", "Add"), ("else_branch", "Sub"))
    }
    weights = {
        "W": np.arange(CLASSES, dtype=np.float32),
        "yes": np.array(True),
        "P": np.eye(CLASSES, HIDDEN, dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("If", ["yes"], ["logits"], **branches),
            helper.make_node("MatMul", ["logits", "P"], ["hidden"]),
        ],
        "member_01",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", CLASSES]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", HIDDEN]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def other_operators(graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 17


def own_functions(graph: onnx.ModelProto) -> None:
    graph.functions.append(
        helper.make_function(
            "own", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], graph.opset_import
        )
    )


def a_name_of_another(graph: onnx.ModelProto) -> None:
    """Its weight has the name that an output of its own has."""
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "hidden"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_operators, "different operator sets"),
        (own_functions, "functions of its own"),
        (a_name_of_another, "no valid graph together"),
    ],
)
def test_what_does_not_go_into_one_graph_says_why(tiny: Bundle, change: Callable[[onnx.ModelProto], None], why: str):
    path = tiny.graph(2)
    changed = onnx.load(path)
    change(changed)
    onnx.save(changed, path)
    with pytest.raises(NotFusible, match=why):
        FusedMembers(tiny, range(1, 3))


def test_what_onnxruntime_does_not_open_is_not_fused(tiny: Bundle):
    path = tiny.graph(2)
    changed = onnx.load(path)
    changed.graph.node[0].op_type = "Unheard"
    changed.graph.node[0].domain = "own"
    changed.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(changed, path)
    with pytest.raises(NotFusible, match="onnxruntime does not open"):
        FusedMembers(tiny, range(2, 3))

"""Fixed memory for batches, on onnxruntime's CPU provider: the same binding and moving as on a GPU."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, save

from bundle import Bundle, InvalidBundle
from bundle.reference import running_average
from service.engine import bound
from service.engine.bound import has_control_flow
from service.engine.cuda import DeviceExecutor
from service.engine.device import open_executor
from service.engine.providers import CPU, CUDA, with_graphs
from service.engine.slots import BUCKETS, PLAIN_RUNS, Captures, Slot, bucket_of, padded
from service.engine.step import Step
from service.engine.ticket import Ticket
from tests.fakes import ticket

HIDDEN = (0, "hidden")


@pytest.fixture
def executor(tiny: Bundle) -> DeviceExecutor:
    one = DeviceExecutor(CPU, "cpu")
    one.load("tiny/1", tiny)
    return one


def run(executor: DeviceExecutor, member: int, *tickets: Ticket) -> np.ndarray:
    logits = executor.run(Step("tiny/1", member, tickets, sum(one.rows for one in tickets)))
    return logits.copy()


def rehearse(executor: DeviceExecutor, member: int, rows: int, runs: int) -> None:
    for _ in range(runs):
        executor.run(Step("tiny/1", member, (), rows))


def tensor_of(executor: DeviceExecutor, rows: int, key: tuple[int, str] = HIDDEN) -> ort.OrtValue:
    return executor._models["tiny/1"].slot(rows).tensors[key]


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (128, 128), (129, None)])
def test_the_smallest_bucket_that_holds_the_rows(rows: int, bucket: int | None):
    assert bucket_of(rows) == bucket


def test_padding_repeats_a_row_that_is_there():
    assert padded([3, 1], 4) == [3, 1, 3, 3]
    assert padded([3, 1], 2) == [3, 1]


def test_a_graph_is_captured_after_plain_runs_and_never_under_id_0(tiny: Bundle):
    slots = [Slot(tiny.manifest, bucket, ordinal, "cpu") for ordinal, bucket in enumerate(BUCKETS[:2])]
    captures = Captures(enabled=True)
    ids = [captures.next_id(slots[0], rehearsing=True) for _ in range(PLAIN_RUNS + 2)]
    assert ids == [-1] * PLAIN_RUNS + [1, 1]
    assert captures.next_id(slots[1], rehearsing=True) == -1, "each bucket on its own"
    assert {slot.graph_id for slot in slots} == {1, 2}
    assert [Captures(enabled=False).next_id(slots[0], rehearsing=True) for _ in range(5)] == [-1] * 5


def test_what_one_member_writes_is_what_the_next_reads_without_a_copy(executor: DeviceExecutor):
    one, two = ticket(rows=1, seed=1), ticket(rows=2, seed=2)
    run(executor, 0, one, two)
    target = tensor_of(executor, 3)
    where = [(one.activations[HIDDEN].start, two.activations[HIDDEN].start) for one, two in [(one, two)]]
    assert one.activations[HIDDEN].tensor is two.activations[HIDDEN].tensor is target
    assert where == [(0, 1)]
    moved = []
    executor._mover.gather = lambda *_, **__: moved.append(1)
    run(executor, 1, one, two)
    assert moved == []


def test_a_tensor_keeps_its_address(executor: DeviceExecutor):
    before = tensor_of(executor, 3).data_ptr()
    for seed in range(3):
        run(executor, 0, ticket(rows=3, seed=seed))
    assert tensor_of(executor, 3).data_ptr() == before


def test_who_still_needs_its_rows_moves_out_before_others_come(tiny: Bundle, executor: DeviceExecutor):
    first, second = ticket(rows=3, seed=1), ticket(rows=3, seed=2)
    run(executor, 0, first)
    run(executor, 0, second)
    assert first.activations[HIDDEN].tensor is not tensor_of(executor, 3)
    assert second.activations[HIDDEN].tensor is tensor_of(executor, 3)
    for one in (first, second):
        expected = list(running_average(tiny, one.inputs))
        np.testing.assert_allclose(run(executor, 1, one), 2 * expected[1] - expected[0], atol=1e-5)


@pytest.mark.parametrize(("keep", "moves"), [(True, True), (False, False)])
def test_a_settled_request_moves_out_only_if_it_is_kept(executor: DeviceExecutor, keep: bool, moves: bool):
    done = ticket(rows=3, seed=1)
    done.keep, done.ended = keep, 1.0
    run(executor, 0, done)
    run(executor, 0, ticket(rows=3, seed=2))
    assert (done.activations[HIDDEN].tensor is not tensor_of(executor, 3)) == moves


def test_a_rehearsal_does_not_overwrite_what_is_needed(tiny: Bundle, executor: DeviceExecutor):
    one = ticket(rows=3, seed=1)
    run(executor, 0, one)
    executor.run(Step("tiny/1", 0, (), 3))
    expected = list(running_average(tiny, one.inputs))
    np.testing.assert_allclose(run(executor, 1, one), 2 * expected[1] - expected[0], atol=1e-5)


def test_a_slot_keeps_no_request_alive(executor: DeviceExecutor):
    run(executor, 0, ticket(rows=3))
    gc.collect()
    assert executor._models["tiny/1"].slot(3).residents(HIDDEN) == []


def test_a_request_reads_its_own_rows_after_the_one_before_it_is_gone(tiny: Bundle, executor: DeviceExecutor):
    first, second = ticket(rows=1, seed=1), ticket(rows=3, seed=2)
    run(executor, 0, first, second)
    del first
    gc.collect()
    expected = list(running_average(tiny, second.inputs))
    np.testing.assert_allclose(run(executor, 1, second), 2 * expected[1] - expected[0], atol=1e-5)


def test_a_detached_request_holds_its_own_rows_only(executor: DeviceExecutor):
    one, two = ticket(rows=1, seed=1), ticket(rows=2, seed=2)
    run(executor, 0, one, two)
    executor.detach(two)
    rows = two.activations[HIDDEN]
    assert (rows.tensor.shape()[0], rows.start, rows.stop) == (2, 0, 2)
    assert rows.tensor is not tensor_of(executor, 3)


def test_a_step_that_no_bucket_holds_goes_without(tiny: Bundle, executor: DeviceExecutor):
    large = [ticket(rows=rows, seed=rows) for rows in (100, 30)]
    for member in range(3):
        logits = run(executor, member, *large)
        start = 0
        for one in large:
            one.publish(one.depth, logits[start : start + one.rows], "mean")
            start += one.rows
    for one in large:
        *_, expected = running_average(tiny, one.inputs)
        np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)
    assert executor.run(Step("tiny/1", 1, (), 200)).shape == (200, 3)


def test_what_outlives_a_run_is_not_in_memory_that_graphs_write(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
):
    def from_the_arena_of_the_session(*_: object) -> None:
        pytest.fail("an output is left to the session to allocate")

    monkeypatch.setattr(ort.IOBinding, "bind_output", from_the_arena_of_the_session)
    one = ticket(rows=130)
    run(executor, 0, one)
    assert one.activations[HIDDEN].tensor.shape() == [130, 5]


def test_a_member_without_graphs_reads_what_is_there_when_it_runs(
    tiny: Bundle, executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
):
    bind = ort.IOBinding.bind_ortvalue_input

    def copied_to_the_cpu(binding: ort.IOBinding, name: str, value: ort.OrtValue) -> None:
        """What onnxruntime does with an input on a GPU that is read by a node on the CPU."""
        bind(binding, name, ort.OrtValue.ortvalue_from_numpy(value.numpy().copy()))

    monkeypatch.setattr(ort.IOBinding, "bind_ortvalue_input", copied_to_the_cpu)
    for seed in range(2):
        one = ticket(rows=3, seed=seed)
        np.testing.assert_allclose(run(executor, 0, one), next(running_average(tiny, one.inputs)), atol=1e-5)


@pytest.fixture
def pretended(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> DeviceExecutor:
    """An executor that believes its provider captures graphs; the CPU provider ignores the ids."""
    monkeypatch.setattr(bound, "with_graphs", lambda provider: provider)
    one = DeviceExecutor(CPU, "cpu")
    one.load("tiny/1", tiny)
    return one


def test_graphs_are_used_where_they_can_be(pretended: DeviceExecutor):
    rehearse(pretended, 0, 3, PLAIN_RUNS + 1)
    assert pretended.ungraphed == 0
    assert pretended._models["tiny/1"].members[0]._captures.captured == {4}


def test_no_graph_is_captured_while_requests_wait(no_capture: DeviceExecutor, tiny: Bundle):
    one = ticket(rows=3, seed=1)
    for _ in range(PLAIN_RUNS + 3):
        np.testing.assert_allclose(run(no_capture, 0, one), next(running_average(tiny, one.inputs)), atol=1e-5)
    assert no_capture.ungraphed == 0, "it has not been tried"


@pytest.fixture
def no_capture(pretended: DeviceExecutor, monkeypatch: pytest.MonkeyPatch) -> DeviceExecutor:
    """The same, but each run that would capture a graph or replay one fails."""

    def refuse(graph_id: int) -> ort.RunOptions:
        options = ort.RunOptions()
        options.terminate = graph_id > 0
        return options

    monkeypatch.setattr(bound, "run_options", refuse)
    return pretended


def test_a_capture_that_fails_is_said_once_and_done_without(
    tiny: Bundle, no_capture: DeviceExecutor, caplog: pytest.LogCaptureFixture
):
    one = ticket(rows=3, seed=1)
    with caplog.at_level(logging.WARNING):
        rehearse(no_capture, 0, 3, PLAIN_RUNS + 3)
        logits = run(no_capture, 0, one)
    np.testing.assert_allclose(logits, next(running_average(tiny, one.inputs)), atol=1e-5)
    (record,) = caplog.records
    assert record.getMessage().startswith("member 0 of tiny/1 runs without CUDA graphs: the capture failed: ")
    assert no_capture.ungraphed == 1


def test_a_graph_that_was_not_captured_whole_is_never_replayed(
    tiny: Bundle, no_capture: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
):
    def no_room(*_: object) -> None:
        raise InvalidBundle("no memory for another session")

    monkeypatch.setattr(bound, "open_member", no_room)
    one = ticket(rows=3, seed=1)
    rehearse(no_capture, 0, 3, PLAIN_RUNS)
    with pytest.raises(InvalidBundle):
        rehearse(no_capture, 0, 3, 1)
    rehearse(no_capture, 0, 3, 1)
    np.testing.assert_allclose(run(no_capture, 0, one), next(running_average(tiny, one.inputs)), atol=1e-5)


@pytest.mark.gpu
def test_on_a_gpu_every_member_is_replayed_with_the_right_numbers(tiny: Bundle):
    executor = open_executor("cuda")
    executor.load("tiny/1", tiny)
    for member in range(3):
        rehearse(executor, member, 3, PLAIN_RUNS + 1)
    for seed in range(3):
        one = ticket(rows=3, seed=seed)
        for member, expected in enumerate(running_average(tiny, one.inputs)):
            one.publish(run(executor, member, one), "mean")
            np.testing.assert_allclose(one.published.logits, expected, atol=1e-4)
    assert executor.ungraphed == 0
    assert all(member._captures.captured == {4} for member in executor._models["tiny/1"].members)


def test_only_cuda_captures():
    assert with_graphs(CPU) is None
    name, options = with_graphs(CUDA)
    assert (name, options["enable_cuda_graph"]) == ("CUDAExecutionProvider", "1")


@pytest.mark.parametrize(("operator", "expected"), [("If", True), ("Identity", False)])
def test_control_flow_is_seen(tmp_path: Path, operator: str, expected: bool):
    edge = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "branch", [], [edge])
    node = (
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
        if operator == "If"
        else helper.make_node("Identity", ["x"], ["y"])
    )
    save(helper.make_model(helper.make_graph([node], "g", [x, flag], [edge])), tmp_path / "g.onnx")
    assert has_control_flow(tmp_path / "g.onnx") == expected

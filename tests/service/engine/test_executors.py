"""Both executors against the reference evaluation, in mixed company.

The device executor runs here on onnxruntime's CPU provider: the same binding, gathering and joining as on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from bundle import Bundle, InvalidBundle, write_bundle
from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.device import check_cuda, open_executor
from service.engine.executor import Executor
from service.engine.halt import Halt
from service.engine.providers import (
    ARENA_LIMIT,
    CPU,
    CUDA,
    DeviceUnavailable,
    cuda_provider,
    has_cuda_driver,
    open_session,
    without_limit,
)
from service.engine.step import Step
from tests.fakes import ticket
from tests.tiny import tiny_graph, tiny_manifest, write_tiny

EXECUTORS = {
    "cpu": lambda: CpuExecutor(threads=1),
    "device": lambda: DeviceExecutor(CPU, "cpu"),
    "cuda": lambda: open_executor("cuda"),
}
kinds = pytest.mark.parametrize("kind", ["cpu", "device", pytest.param("cuda", marks=pytest.mark.gpu)])


def loaded(kind: str, bundle: Bundle) -> Executor:
    executor = EXECUTORS[kind]()
    executor.load("tiny/1", bundle)
    return executor


@kinds
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_company_at_any_step_gives_each_request_its_own_numbers(kind: str, tiny: Bundle, data: st.DataObject):
    executor = loaded(kind, tiny)
    waiting = [ticket(rows=data.draw(st.integers(1, 4)), seed=seed) for seed in range(4)]
    expected = {one: list(running_average(tiny, one.inputs)) for one in waiting}
    while waiting:
        depth = data.draw(st.sampled_from(sorted({one.depth for one in waiting})))
        peers = [one for one in waiting if one.depth == depth]
        company = data.draw(st.lists(st.sampled_from(peers), min_size=1, unique=True))
        logits = executor.run(Step("tiny/1", depth, tuple(company), sum(one.rows for one in company)))
        start = 0
        for one in company:
            one.publish(one.depth, logits[start : start + one.rows], "mean")
            start += one.rows
            np.testing.assert_allclose(one.published.logits, expected[one][depth], atol=1e-5)
        waiting = [one for one in waiting if one.depth < 3]


@kinds
def test_an_activation_is_kept_no_longer_than_it_is_read(kind: str, tiny: Bundle):
    executor, one = loaded(kind, tiny), ticket()
    held = []
    for member in range(3):
        executor.run(Step("tiny/1", member, (one,), 1))
        held.append({key for key in one.activations if key[0] >= 0})
    assert held == [{(0, "hidden")}, {(1, "hidden")}, set()]


def test_what_runs_as_graphs_runs_to_its_end(tiny: Bundle):
    executor, halt = loaded("device", tiny), Halt()
    assert not executor.halts
    halt()
    assert executor.run(Step("tiny/1", 0, (ticket(),), 1, halt=halt)).shape == (1, 3)


@kinds
def test_a_rehearsal_leaves_nothing(kind: str, tiny: Bundle):
    executor = loaded(kind, tiny)
    for member in range(3):
        assert executor.run(Step("tiny/1", member, (), 5)).shape == (5, 3)


@kinds
def test_integer_inputs(kind: str, models: Path):
    bundle = write_tiny(models, dtype="uint8")
    executor, one = loaded(kind, bundle), ticket()
    one.inputs = np.arange(8, dtype=np.uint8).reshape(2, 4)
    logits = executor.run(Step("tiny/1", 0, (one,), 2))
    np.testing.assert_allclose(logits, next(running_average(bundle, one.inputs)), rtol=1e-5, atol=1e-5)


@kinds
def test_a_graph_that_breaks_the_contract_is_refused_at_load(kind: str, models: Path):
    graphs = [tiny_graph(0, features=6)]
    bundle = write_bundle(models, {"member_00.onnx": graphs[0]}, lambda version: tiny_manifest(graphs, version))
    with pytest.raises(InvalidBundle, match=r"input 'x' is float32\[6\]"):
        loaded(kind, bundle)


@pytest.mark.skipif(has_cuda_driver(), reason="has a CUDA driver")
def test_without_a_driver_cuda_is_refused_and_auto_is_the_cpu():
    with pytest.raises(DeviceUnavailable, match="no CUDA driver"):
        open_executor("cuda")
    assert open_executor("auto").provider == "CPUExecutionProvider"


@pytest.mark.gpu
def test_with_a_device_auto_takes_it():
    check_cuda()
    assert open_executor("auto").provider == CUDA[0]


def test_a_session_never_falls_back_in_silence(tiny: Bundle):
    with pytest.raises(DeviceUnavailable, match="fell back from AbsentExecutionProvider"), pytest.warns(UserWarning):
        open_session(str(tiny.graph(0)), ("AbsentExecutionProvider", {}))


def test_a_session_that_fails_does_not_go_on_elsewhere_in_silence(tiny: Bundle, monkeypatch: pytest.MonkeyPatch):
    class Lost:
        """A session whose device has gone."""

        def is_webgpu_graph_capture_enabled(self) -> bool:
            return False

        def run(self, *_: object) -> None:
            raise EPFail("the device is lost")

    session = open_session(str(tiny.graph(0)), CPU)
    monkeypatch.setattr(session, "_sess", Lost())
    with pytest.raises(EPFail, match="the device is lost"):
        session.run(["logits"], {"x": np.zeros((1, 4), np.float32)})


def test_a_bound_for_members_does_not_bound_what_requests_hold():
    name, options = cuda_provider(2**26)
    assert options[ARENA_LIMIT] == str(2**26)
    assert without_limit((name, options)) == (name, {key: options[key] for key in options if key != ARENA_LIMIT})
    executor = DeviceExecutor((CPU[0], {ARENA_LIMIT: "1"}), "cpu")
    assert executor._mover._provider == CPU

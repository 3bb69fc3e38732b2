"""Members together, side by side or in one go, through the whole application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient
from service.engine import scheduler
from service.engine.cuda import DeviceExecutor
from service.engine.fusion import NotFusible
from service.engine.providers import CPU
from service.engine.step import Step
from service.model_schemas import ExecutionCard
from service.settings import Settings
from tests.fakes import FakeClock, FusingExecutor, TimedFusion, WideExecutor
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny
from tests.tiny_dag import write_dag

MEMBER_S = 10.0
"""What a member takes on the fake clock: far more than anything takes in truth, so that no real delay matters."""


@pytest.fixture
def apart(models: Path) -> Bundle:
    return write_dag(models, [[], [], [], []])


def settings(models: Path, **changes: Any) -> Settings:
    return Settings(models_dir=models, device="cpu", max_batch_rows=8, reserve_ms=1000.0, **changes)


def execution(client: AnytimeClient) -> ExecutionCard:
    (card,) = client.models()
    assert card.execution is not None
    return card.execution


def waves_run(server: Server) -> dict[str, float]:
    """Steps of each run of members side by side; those of the service's own warm-up count too."""
    series = server.context.metrics.registry.get_sample_value
    labels = [{"model": "tiny/1", "member": members} for members in ("1-2", "1-3", "2-3")]
    return {one["member"]: series("anytime_member_duration_seconds_count", one) or 0 for one in labels}


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_forced_waves_give_the_reference_prefix(apart: Bundle, models: Path, limit: int | None):
    x = samples(3)
    app = create_app(settings(models, execution="parallel", cpu_threads=2))
    with serving(app) as server, AnytimeClient(server.url) as client:
        card = execution(client)
        assert (card.wanted, card.parallel) == ("parallel", True)
        assert [wave.members for wave in card.waves] == [[1, 2, 3]]
        assert [(heat.rows, heat.used) for heat in card.waves[0].heats] == [(rows, True) for rows in (1, 2, 4, 8)]
        before = waves_run(server)
        answer = client.predict(x, max_members=limit, outputs=["logits"])
        after = waves_run(server)
    assert {members for members in after if after[members] > before[members]} == {None: {"1-3"}, 1: set(), 3: {"1-2"}}[
        limit
    ]
    assert answer.members_used == (limit or 4)
    logits = np.array([one.logits for one in answer.predictions])
    np.testing.assert_allclose(logits, list(running_average(apart, x))[answer.members_used - 1], atol=1e-5)


def takes(wave_s: float) -> Callable[[Step], float]:
    return lambda step: wave_s if step.width > 1 else MEMBER_S


@pytest.mark.parametrize(
    ("wanted", "wave_s", "parallel", "members"),
    [
        ("auto", MEMBER_S, True, 4),
        ("auto", 2.9 * MEMBER_S, False, 2),
        ("sequential", MEMBER_S, False, 2),
    ],
)
def test_within_one_deadline_a_wave_reaches_deeper_where_it_is_faster(
    apart: Bundle,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    wave_s: float,
    parallel: bool,
    members: int,
):
    # A rehearsal between decision and answer would move the clock by a member's duration.
    monkeypatch.setattr(scheduler, "REHEARSAL_INTERVAL_S", 1e6)
    clock = FakeClock()
    executor = WideExecutor(clock, takes(wave_s), count=3)
    app = create_app(settings(models, execution=wanted), executor=executor, clock=clock)
    with serving(app) as server, AnytimeClient(server.url) as client:
        card = execution(client)
        answer = client.predict(samples(1), deadline_ms=(2 * MEMBER_S + 1.5) * 1e3)
    assert (card.wanted, card.parallel) == (wanted, parallel)
    assert ("one after another" in card.reason) != parallel
    assert executor.lanes.unloaded == ([] if parallel else ["tiny/1"]), "what is not used holds no memory"
    assert answer.members_used == members
    if wanted == "auto":
        heats = [(heat.rows, heat.together_ms, heat.one_by_one_ms, heat.used) for heat in card.waves[0].heats]
        assert heats == [(rows, wave_s * 1e3, 3 * MEMBER_S * 1e3, parallel) for rows in (1, 2, 4, 8)]


def test_a_device_that_cannot_says_so(apart: Bundle, models: Path, caplog: pytest.LogCaptureFixture):
    executor = DeviceExecutor(CPU, "cpu")
    executor.provider = "CUDAExecutionProvider"
    app = create_app(settings(models, execution="parallel"), executor=executor)
    with caplog.at_level(logging.WARNING), serving(app) as server, AnytimeClient(server.url) as client:
        card = execution(client)
        assert client.predict(samples(2)).members_used == 4
    assert (card.wanted, card.parallel, card.waves) == ("parallel", False, [])
    assert "CUDAExecutionProvider" in card.reason
    assert [record.getMessage() for record in caplog.records if "one after another" in record.getMessage()] == [
        f"tiny/1: {card.reason}"
    ]


def test_a_version_that_is_loaded_later_is_judged_too(apart: Bundle, models: Path):
    with (
        serving(create_app(settings(models, execution="parallel", cpu_threads=2))) as server,
        AnytimeClient(server.url) as client,
    ):
        write_dag(models, [[], [0], [1]])
        card = client.load("tiny").execution
        assert card is not None
        assert (card.parallel, card.waves) == (False, [])
        assert client.predict(samples(1)).members_used == 3


SMALL_S = 1e-4
"""What a small member takes on the fake clock."""


def fusing(group_s: float) -> FusingExecutor:
    return FusingExecutor(FakeClock(), lambda step: group_s * step.rows if step.fused or step.width > 1 else SMALL_S)


def served_by(executor: FusingExecutor, models: Path, wanted: str = "auto") -> Any:
    return serving(create_app(settings(models, execution=wanted), executor=executor, clock=executor._clock))


@pytest.mark.parametrize(
    ("group_s", "used"),
    [
        # From four rows on the second one takes longer than its members.
        (0.25 * SMALL_S, [True, True, True, True]),
        (0.6 * SMALL_S, [True, True, False, False]),
        (2.5 * SMALL_S, [False] * 4),
    ],
)
def test_small_members_run_in_one_go_where_that_takes_no_longer(
    tiny: Bundle, models: Path, group_s: float, used: list[bool]
):
    executor = fusing(group_s)
    x = samples(2)
    with served_by(executor, models) as server, AnytimeClient(server.url) as client:
        card = execution(client)
        (group,) = card.groups
        executor.steps.clear()
        answer = client.predict(x, outputs=["logits"])
        steps = [(step.member, step.width) for step in executor.steps if step.tickets]
        kept = list(executor.fusion.loaded)
    assert group.members == [1, 2]
    heats = [(heat.rows, heat.together_ms, heat.one_by_one_ms, heat.used) for heat in group.heats]
    assert heats == [
        (rows, pytest.approx(group_s * rows * 1e3), pytest.approx(2 * SMALL_S * 1e3), one)
        for rows, one in zip((1, 2, 4, 8), used, strict=True)
    ]
    assert steps == ([(0, 1), (1, 2)] if used[1] else [(0, 1), (1, 1), (2, 1)])
    assert kept == ([range(1, 3)] if any(used) else []), "what is not used holds no memory"
    *_, expected = running_average(tiny, x)
    np.testing.assert_allclose([one.logits for one in answer.predictions], expected, atol=1e-5)


def test_a_run_is_no_longer_than_a_grain(tiny: Bundle, models: Path):
    """Members that take longer are not even tried, and a batch that does runs one by one."""
    executor = FusingExecutor(FakeClock(), lambda step: 3e-4 * step.rows)
    with served_by(executor, models) as server, AnytimeClient(server.url) as client:
        (group,) = execution(client).groups
    assert [heat.used for heat in group.heats] == [True, True, False, False]
    with (
        served_by(FusingExecutor(FakeClock(), lambda _: 0.6e-3), models) as server,
        AnytimeClient(server.url) as client,
    ):
        assert execution(client).groups == []


@pytest.mark.parametrize("wanted", ["sequential", "parallel"])
def test_in_one_go_only_where_the_service_may_choose(tiny: Bundle, models: Path, wanted: str):
    executor = fusing(SMALL_S)
    with served_by(executor, models, wanted) as server, AnytimeClient(server.url) as client:
        assert execution(client).groups == []
        assert client.predict(samples(1)).members_used == 3
    assert not any(step.width > 1 for step in executor.steps)


def test_members_that_do_not_go_together_are_served_one_by_one(
    tiny: Bundle, models: Path, caplog: pytest.LogCaptureFixture
):
    class Unable(TimedFusion):
        def load(self, model: str, bundle: Bundle, groups: Sequence[range]) -> None:
            raise NotFusible("their graphs are of different operator sets")

    executor = fusing(SMALL_S)
    executor.fusion = Unable(executor, executor._clock, lambda _: SMALL_S)
    with (
        caplog.at_level(logging.INFO),
        served_by(executor, models) as server,
        AnytimeClient(server.url) as client,
    ):
        assert execution(client).groups == []
        assert client.predict(samples(1)).members_used == 3
    assert "no members are run in one go: their graphs are of different operator sets" in caplog.text


def test_a_version_that_is_loaded_later_has_groups_too(tiny: Bundle, models: Path):
    executor = fusing(0.25 * SMALL_S)
    with served_by(executor, models) as server, AnytimeClient(server.url) as client:
        write_tiny(models, members=5)
        card = client.load("tiny").execution
        assert card is not None
        assert [group.members for group in card.groups] == [[1, 2, 3, 4]]
        executor.steps.clear()
        assert client.predict(samples(1)).members_used == 5
        assert [step.width for step in executor.steps if step.tickets] == [1, 4]
        metrics = server.context.metrics.registry.get_sample_value
        labels = {"model": "tiny/2", "member": "1-4"}
        assert metrics("anytime_member_duration_seconds_count", labels) == 1
        assert metrics("anytime_batch_rows_sum", labels) == 1

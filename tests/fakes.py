"""Time and devices that tests control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle import Bundle
from service.engine.cost import CostModel
from service.engine.cpu import CpuExecutor
from service.engine.deadline import Deadline
from service.engine.fused import CpuFusion
from service.engine.fused_costs import FusedCosts
from service.engine.member_cost import MemberCost
from service.engine.profile import Profile
from service.engine.step import Step
from service.engine.ticket import Logits, StoppedBy, Ticket
from service.engine.wave_costs import WaveCosts
from tests.tiny import FEATURES, samples


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def at_wall(self, wall_ns: int) -> float:
        """Just now: the wall clock goes on while this one stands."""
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


class TimedExecutor(CpuExecutor):
    """Real members, but each takes the seconds that the test says, on a fake clock."""

    fusion = None

    def __init__(self, clock: FakeClock, seconds: Callable[[Step], float]) -> None:
        super().__init__(threads=1)
        self._clock = clock
        self._seconds = seconds
        self.steps: list[Step] = []

    def run(self, step: Step) -> Logits:
        self._clock.advance(self._seconds(step))
        self.steps.append(step)
        return super().run(step)


class TimedLanes:
    """Real members, as if `count` of them ran at once: a wave takes the seconds that the test says."""

    def __init__(self, executor: TimedExecutor, clock: FakeClock, seconds: Callable[[Step], float], count: int) -> None:
        self.count = count
        self.unloaded: list[str] = []
        self._executor, self._clock, self._seconds = executor, clock, seconds

    def run(self, step: Step) -> Generator[Logits]:
        self._executor.steps.append(step)
        self._clock.advance(self._seconds(step))
        for member in step.members:
            yield CpuExecutor.run(self._executor, Step(step.model, member, step.tickets, step.rows))

    def unload(self, model: str) -> None:
        self.unloaded.append(model)


class WideExecutor(TimedExecutor):
    """Like its base, with lanes; `seconds` tells what a wave takes, too."""

    def __init__(self, clock: FakeClock, seconds: Callable[[Step], float], count: int = 2) -> None:
        super().__init__(clock, seconds)
        self._timed_lanes = TimedLanes(self, clock, seconds, count)

    @property
    def lanes(self) -> Any:
        return self._timed_lanes


class TimedFusion(CpuFusion):
    """Real groups; each takes the seconds that the test says."""

    def __init__(self, executor: TimedExecutor, clock: FakeClock, seconds: Callable[[Step], float]) -> None:
        super().__init__()
        self._executor, self._clock, self._seconds = executor, clock, seconds
        self.loaded: list[range] = []

    def load(self, model: str, bundle: Bundle, groups: Sequence[range]) -> None:
        super().load(model, bundle, groups)
        self.loaded += groups

    def unload(self, model: str) -> None:
        super().unload(model)
        self.loaded.clear()

    def run(self, step: Step) -> Generator[Logits]:
        self._executor.steps.append(step)
        self._clock.advance(self._seconds(step))
        yield from super().run(step)


class FusingExecutor(TimedExecutor):
    """Like its base, with groups; `seconds` tells what one takes, too."""

    def __init__(self, clock: FakeClock, seconds: Callable[[Step], float]) -> None:
        super().__init__(clock, seconds)
        self.fusion: Any = TimedFusion(self, clock, seconds)


class HeldExecutor(CpuExecutor):
    """Real members; a step of a held member does not end before `release`, on real requests only."""

    fusion = None

    def __init__(self, held: int) -> None:
        super().__init__(threads=1)
        self._held = held
        self.entered = threading.Event()
        self.release = threading.Event()
        self.members_run: list[int] = []

    def run(self, step: Step) -> Logits:
        if _of_clients(step):
            if step.member == self._held:
                self.entered.set()
                assert self.release.wait(5)
            self.members_run.append(step.member)
        return super().run(step)


class SteppedExecutor(CpuExecutor):
    """Real members; on real requests each step waits for one `go.release()`."""

    fusion = None

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.go = threading.Semaphore(0)

    def run(self, step: Step) -> Logits:
        if _of_clients(step):
            assert self.go.acquire(timeout=5)
        return super().run(step)


class FailingExecutor(CpuExecutor):
    """Real members, but on real requests one of them raises, or gives NaN, where `at_fault` says so."""

    fusion = None

    def __init__(self, member: int, at_fault: Callable[[Ticket], bool], *, nan: bool = False) -> None:
        super().__init__(threads=1)
        self._member = member
        self._at_fault = at_fault
        self._nan = nan

    def run(self, step: Step) -> Logits:
        bad = []
        if step.member == self._member and _of_clients(step):
            bad = [self._at_fault(one) for one in step.tickets]
        if any(bad) and not self._nan:
            raise RuntimeError("the device caught fire in /secret/place")
        logits = super().run(step)
        logits[np.repeat(bad, [one.rows for one in step.tickets][: len(bad)]).nonzero()] = np.nan
        return logits


def _of_clients(step: Step) -> bool:
    """Whether the step is of requests from outside: the service's own warm-up sends zeros."""
    return any(one.inputs.any() for one in step.tickets)


def ticket(
    rows: int = 1,
    *,
    arrived: float = 1000.0,
    budget_s: float | None = None,
    members: int = 3,
    limit: int | None = None,
    model: str = "tiny/1",
    seed: int = 0,
    **knobs: Any,
) -> Ticket:
    """A request for a tiny bundle."""
    return Ticket(
        request_id=f"ticket-{seed}",
        model=model,
        inputs=samples(rows, seed) if rows else np.zeros((0, FEATURES), np.float32),
        deadline=Deadline.after(arrived, budget_s, 0.0),
        profile=knobs.pop("profile", None) or profile(*(0.65 + 0.05 * k for k in range(1, members + 1))),
        members_total=members,
        member_limit=limit or members,
        limited_by=StoppedBy.MAX_MEMBERS if limit and limit < members else StoppedBy.COMPLETE,
        **knobs,
    )


def profile(*accuracy: float, jumps: bool = False) -> Profile:
    """Prefixes of these accuracies, whatever the confidence."""
    return Profile(
        accuracy=accuracy,
        edges=((1.0,),) * len(accuracy),
        ahead=tuple((accuracy[k:],) for k in range(len(accuracy))),
        temperature=(1.0,) * len(accuracy),
        jumps=jumps,
    )


@dataclass
class FakeCrowd:
    """What an event loop has before it."""

    crowded: bool = False
    contested: int = 0


def costs(
    *seconds: float,
    model: str = "tiny/1",
    per_row: float = 0.0,
    wave_s: float | None = None,
    lanes: int = 2,
    forced: bool = False,
    fused: Mapping[range, float] | None = None,
) -> CostModel:
    """A cost model in which member k takes `seconds[k]`, and `per_row` more for each row after the first.

    With `wave_s`, all members but the first are a wave that takes so long on `lanes` lanes. `fused` are groups and what
    they take in one go, with up to 8 rows.
    """
    model_costs = CostModel()
    sizes = (1, 2, 4, 8, 16, 32, 64)
    members = [MemberCost({n: [base + per_row * (n - 1)] for n in sizes}, safety=0.95) for base in seconds]
    waves = None
    if wave_s is not None:
        wave = range(1, len(seconds))
        durations = {wave: {n: [wave_s + per_row * (n - 1)] for n in sizes}}
        waves = WaveCosts(members, durations, {wave: sizes}, lanes, 0.95, forced=forced)
    groups = None
    if fused is not None:
        durations = {group: {n: [base + per_row * (n - 1)] for n in sizes} for group, base in fused.items()}
        groups = FusedCosts(durations, dict.fromkeys(fused, (1, 2, 4, 8)), 0.95)
    model_costs.add(model, members, waves, groups)
    return model_costs

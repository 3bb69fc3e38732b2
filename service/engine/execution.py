"""How the members of a model run here, one after another, some side by side or some in one go, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bundle import Manifest
from service.engine.executor import Executor
from service.engine.grain import GRAIN_S
from service.engine.providers import CPU
from service.engine.race import MARGIN, Heat, Race
from service.engine.waves import wide_waves

Execution = Literal["sequential", "parallel", "auto"]


@dataclass(frozen=True, slots=True)
class Raced:
    """A wave or a group: what was measured, and at which batch sizes its members are run together."""

    members: range
    how: Literal["side by side", "in one go"]
    heats: tuple[Heat, ...]
    used: tuple[int, ...]

    def __str__(self) -> str:
        times = ", ".join(
            f"{heat.together_s * 1e3:.3g} and {heat.one_by_one_s * 1e3:.3g} ms with {heat.rows} rows"
            for heat in self.heats
        )
        where = ", ".join(map(str, self.used)) or "no"
        members = ", ".join(map(str, self.members))
        return f"members {members} {self.how} and in turn: {times}; {self.how} with {where} rows"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All waves of a model that were measured, and a sentence that says what came of it; the groups beside them."""

    reason: str
    waves: tuple[Raced, ...] = ()
    groups: tuple[Raced, ...] = ()

    @property
    def parallel(self) -> bool:
        """Whether anything is run side by side."""
        return any(wave.used for wave in self.waves)


def hindrance(wanted: Execution, manifest: Manifest, executor: Executor) -> str | None:
    """Why no wave can be run, in one sentence; None if it can."""
    if wanted == "sequential":
        return "Members run one after another, as ANYTIME_EXECUTION says."
    if not wide_waves(manifest):
        return "Members run one after another: there are no two of this model that could run side by side."
    if executor.lanes is not None:
        return None
    if executor.provider == CPU[0]:
        return "Members run one after another: with one thread (ANYTIME_CPU_THREADS) nothing runs beside another."
    return f"Members run one after another: {executor.provider} runs one at a time here."


def judge(wanted: Execution, races: Sequence[Race]) -> Verdict:
    """Where the measured waves are used: everywhere if `parallel` was wanted, with `auto` where they were faster."""
    waves = tuple(
        Raced(
            race.members,
            "side by side",
            race.heats(),
            tuple(heat.rows for heat in race.heats() if wanted == "parallel" or heat.faster),
        )
        for race in races
    )
    if wanted == "parallel":
        return Verdict("Members run side by side wherever their deadlines allow, as ANYTIME_EXECUTION says.", waves)
    if any(wave.used for wave in waves):
        return Verdict(f"Members run side by side where that took {MARGIN:.0%} less time at warm-up.", waves)
    return Verdict(f"Members run one after another: side by side they did not take {MARGIN:.0%} less time.", waves)


def judge_groups(races: Sequence[Race]) -> tuple[Raced, ...]:
    """Where the measured groups are used: where they are no slower in one go, and that is no longer than GRAIN_S."""
    return tuple(
        Raced(
            race.members,
            "in one go",
            race.heats(),
            tuple(heat.rows for heat in race.heats() if heat.together_s <= min(heat.one_by_one_s, GRAIN_S)),
        )
        for race in races
    )

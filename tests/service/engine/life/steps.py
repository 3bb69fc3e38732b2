"""What must be true of every step that begins, and what goes wrong while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.engine.step import Step
from service.engine.ticket import Logits

if TYPE_CHECKING:
    from tests.service.engine.life.world import World

MAX_BATCH_ROWS = 8


class Broken(BaseException):
    """An invariant is broken during a step: no `Exception`, which the worker would take for a member's fault."""


@contextmanager
def unswallowed() -> Iterator[None]:
    """Let no assertion be taken for a member's fault."""
    try:
        yield
    except AssertionError as error:
        raise Broken from error


class Steps:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.running: Step | None = None
        """The step that has begun, while it is recovered from too."""

    @unswallowed()
    def begin(self, step: Step) -> None:
        self._world.counts["steps"] += 1
        self._world.counts["wide steps"] += step.width > 1 and not step.fused
        self._world.counts["fused steps"] += step.fused
        self._world.counts["shared steps"] += len(step.tickets) > 1
        self._world.counts["rehearsals"] += not step.tickets
        recovering = self.running is not None
        assert step.rows == sum(one.rows for one in step.tickets) or not step.tickets
        assert step.rows <= MAX_BATCH_ROWS or len(step.tickets) == 1
        assert step.rows > 0
        assert all(one.rows for one in step.tickets), "nobody without rows is run"
        assert len(set(step.tickets)) == len(step.tickets)
        for one in step.tickets:
            life = self._world.lives[one]
            assert one.model == step.model
            if one.in_arrears:
                self._world.counts["caught up"] += 1
                continue
            assert not life.settled, "nothing runs after it has been settled"
            assert recovering or not life.cancelled, "nothing runs after it has been dropped"
            assert one.depth < one.member_limit
            assert step.member >= one.depth and step.member + step.width <= one.members_total
            if step.member != one.depth:
                assert one.profile.jumps and step.member == one.members_total - 1 and one.depth >= one.member_minimum
                self._world.counts["jumps"] += 1
            if not recovering and not one.part:
                now = self._world.clock.now()
                in_time = one.deadline.slack(now, self._predicted_s(step, now)) >= 0
                # Nobody else is made late by one who tries for a first answer.
                tries = len(step.tickets) == 1 and one.depth < one.member_minimum
                usually_s = self._world.costs.usually(step.model, step.member, step.rows)
                assert in_time or (tries and one.deadline.chance(now, usually_s)), "nobody is predicted to be late"

    def _predicted_s(self, step: Step, now: float) -> float:
        costs = self._world.costs
        if step.width == 1:
            return costs.predict(step.model, step.member, step.rows, now)
        together = costs.fused(step.model) if step.fused else costs.waves(step.model)
        assert together is not None
        return together.predict(step.member, step.width, step.rows, now)

    @unswallowed()
    def pass_time(self, step: Step) -> None:
        """The step runs: things happen meanwhile."""
        self.running = step
        seconds = sum(self._world.costs.typical(step.model, member, step.rows) for member in step.members)
        self._world.happen(self._world.clock.now() + seconds * self._world.speed * self._world.dice.uniform(0.2, 1.0))

    def raises(self, step: Step, member: int) -> bool:
        for one in step.tickets:
            name = one.request_id.rstrip("+")
            bad, how = self._world.at_fault.get(name, (-1, ""))
            if bad == member and how in ("raise", "once"):
                if how == "once":
                    del self._world.at_fault[name]
                self._world.counts["raised"] += 1
                return True
        return False

    def spoil(self, step: Step, member: int, logits: Logits) -> None:
        start = 0
        for one in step.tickets:
            bad, how = self._world.at_fault.get(one.request_id.rstrip("+"), (-1, ""))
            if bad == member and how == "nan":
                logits[start : start + one.rows] = self._world.dice.choice([math.nan, math.inf, -math.inf])
                self._world.counts["spoilt"] += 1
            start += one.rows

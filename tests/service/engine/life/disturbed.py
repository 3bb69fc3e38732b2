"""Real executors whose steps take time, during which things happen, and fail where the world says so."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from service.engine.executor import Executor
from service.engine.step import Step
from service.engine.ticket import Logits

if TYPE_CHECKING:
    from tests.service.engine.life.world import World


class Fault(Exception):
    """Of a member, on the rows of a request at fault."""


class Disturbed:
    """An executor in a world."""

    def __init__(self, inner: Executor, world: World) -> None:
        self._inner, self._world = inner, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def lanes(self) -> Any:
        return None if self._inner.lanes is None else DisturbedLanes(self._inner.lanes, self._world)

    @property
    def fusion(self) -> Any:
        return None if self._inner.fusion is None else DisturbedFusion(self._inner.fusion, self._world)

    def run(self, step: Step) -> Logits:
        world = self._world
        world.steps.begin(step)
        if world.steps.raises(step, step.member):
            world.steps.pass_time(step)
            raise Fault
        # What happens meanwhile may have the step given up: then this raises.
        world.steps.pass_time(step)
        logits = self._inner.run(step)
        world.steps.spoil(step, step.member, logits)
        return logits


class DisturbedLanes:
    """Its lanes."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner, self._world, self.count = inner, world, inner.count

    def run(self, step: Step) -> Generator[Logits]:
        world = self._world
        world.steps.begin(step)
        world.steps.pass_time(step)
        with closing(self._inner.run(step)) as inner:
            for member in step.members:
                logits = next(inner)
                if world.steps.raises(step, member):
                    raise Fault
                world.steps.spoil(step, member, logits)
                yield logits


class DisturbedFusion:
    """Its groups."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner, self._world = inner, world

    def run(self, step: Step) -> Generator[Logits]:
        world = self._world
        world.steps.begin(step)
        world.steps.pass_time(step)
        if any(world.steps.raises(step, member) for member in step.members):
            raise Fault
        for member, logits in zip(step.members, self._inner.run(step), strict=True):
            world.steps.spoil(step, member, logits)
            yield logits

"""Brings models onto the device and takes them off it, while requests go on.

Sessions are opened on a thread of their own. The measuring runs come one by one, each when no request waits; if
requests always wait, one run at a time goes ahead of them, so rarely that it costs them a twentieth of the
device at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bundle import Bundle, InvalidBundle, Manifest
from service.engine import slices
from service.engine.cost import CostModel
from service.engine.deadline import Clock
from service.engine.execution import Execution, Raced, Verdict, hindrance, judge, judge_groups
from service.engine.executor import Executor, Fusion
from service.engine.fused_costs import FusedCosts
from service.engine.fusion import NotFusible
from service.engine.grain import groups
from service.engine.providers import first_line
from service.engine.race import Race
from service.engine.rehearsal import Rehearsal
from service.engine.scheduler import Scheduler
from service.engine.shared_cost import Cost
from service.engine.stream import stream_key
from service.engine.wave_costs import WaveCosts
from service.engine.waves import wide_waves
from service.engine.worker import Worker, WorkerStopped

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Under steady load, a measuring run waits this many times the duration of the run before it."""


class Host:
    """The models on one device. Its coroutines belong to the event loop; loading and reviving take turns.

    Args:
        executor: where members run; replaced after the device thread has died.
        worker: the thread that owns it.
        costs: gets the measured costs.
        clock: times the runs.
        max_batch_rows: the largest batch to measure.
        safety: quantile of durations that predictions use.
        execution: whether members may run together.
    """

    def __init__(
        self,
        executor: Executor,
        worker: Worker,
        costs: CostModel,
        clock: Clock,
        max_batch_rows: int,
        safety: float,
        execution: Execution,
    ) -> None:
        self.executor = executor
        self._worker = worker
        self._costs = costs
        self._clock = clock
        self._max_batch_rows = max_batch_rows
        self._safety = safety
        self._execution = execution
        self.verdicts: dict[str, Verdict] = {}
        """Of each measured model, how its members run; belongs to the event loop."""
        self._turn = asyncio.Lock()

    async def load(self, model: str, bundle: Bundle) -> None:
        """Open its sessions and measure its members; then requests for it may come.

        Raises:
            InvalidBundle: a graph cannot be opened or run, or is not what the manifest says. Nothing is left behind.
            WorkerStopped: the device thread has ended.
        """
        # In turn, because no session may be opened on CUDA while another is captured as a graph.
        async with self._turn:
            executor = self.executor
            await asyncio.to_thread(_load, executor, model, bundle)
            try:
                await self.measure(model, bundle)
            except WorkerStopped:
                raise
            except BaseException as error:
                self._worker.call(lambda: executor.unload(model))
                if isinstance(error, Exception):
                    raise InvalidBundle(f"{model} failed when it was tried on zeros: {first_line(error)}") from error
                raise

    async def revive(self, executor: Executor, scheduler: Scheduler, bundles: Mapping[str, Bundle]) -> None:
        """Start again with a fresh executor after the device thread has died.

        Raises:
            Exception: a bundle could not be loaded again, or the thread has died again.
        """
        async with self._turn:
            self.executor = executor
            for model, bundle in bundles.items():
                await asyncio.to_thread(_load, executor, model, bundle)
            await asyncio.to_thread(self._worker.restart, executor, scheduler)
            for model, bundle in bundles.items():
                await self.measure(model, bundle)

    async def measure(self, model: str, bundle: Bundle) -> None:
        """Time every member of a loaded model at every batch size; what may be run together, and chunk graphs too."""
        manifest = bundle.manifest
        costs = await self._rehearse(model, len(manifest.members))
        fused, fused_costs = await self._fuse(model, bundle, costs)
        verdict, waves = await self._race(model, manifest, costs)
        verdict = replace(verdict, groups=fused)
        lanes, fusion, streamed = self.executor.lanes, self.executor.fusion, stream_key(model)
        chunk_costs = await self._rehearse(streamed, len(manifest.streaming)) if manifest.streaming else None

        def serve() -> None:
            if waves is None and lanes is not None:
                lanes.unload(model)
            if fused_costs is None and fusion is not None:
                fusion.unload(model)
            self._costs.add(model, costs, waves, fused_costs)
            self._worker.serve(model, manifest)
            if chunk_costs is not None:
                self._costs.add(streamed, chunk_costs)
                self._worker.serve(streamed, manifest)

        await asyncio.wrap_future(self._worker.call(serve))
        self.verdicts[model] = verdict
        for key, measured in ((model, costs), (streamed, chunk_costs or [])):
            if measured:
                medians = ", ".join(f"{cost.curve(1) * 1e3:.3g}" for cost in measured)
                log.info("measured %s: %s ms a member on one row", key, medians)
        # Who has asked for waves and gets none should see it.
        unheeded = self._execution == "parallel" and not verdict.parallel
        log.log(logging.WARNING if unheeded else logging.INFO, "%s: %s", model, verdict.reason)
        for together in (*verdict.waves, *verdict.groups):
            log.info("%s: %s", model, together)

    async def _fuse(
        self, model: str, bundle: Bundle, costs: Sequence[Cost]
    ) -> tuple[tuple[Raced, ...], FusedCosts | None]:
        """Which small members will run in one go, and what that takes if any will."""
        found, fusion = groups(bundle.manifest, costs), self.executor.fusion
        if fusion is None or not found or self._execution != "auto":
            return (), None
        try:
            await asyncio.to_thread(_load_groups, fusion, model, bundle, found)
        except NotFusible as error:
            log.info("%s: no members are run in one go: %s", model, error)
            return (), None
        races = [Race(self.executor, fusion, model, group, costs, self._max_batch_rows, self._clock) for group in found]
        for race in races:
            await self._walk(race.advance)
        fused = judge_groups(races)
        used = {one.members: one.used for one in fused if one.used}
        durations_s = {race.members: race.durations_s for race in races if race.members in used}
        return fused, FusedCosts(durations_s, used, self._safety) if used else None

    async def _race(self, model: str, manifest: Manifest, costs: Sequence[Cost]) -> tuple[Verdict, WaveCosts | None]:
        """How the members will run, and what waves take if any will."""
        reason, lanes = hindrance(self._execution, manifest, self.executor), self.executor.lanes
        if reason is not None or lanes is None:
            return Verdict(reason or ""), None
        races = [
            Race(self.executor, lanes, model, wave, costs, self._max_batch_rows, self._clock)
            for wave in wide_waves(manifest)
        ]
        for race in races:
            await self._walk(race.advance)
        verdict = judge(self._execution, races)
        if not verdict.parallel:
            return verdict, None
        waves = WaveCosts(
            costs,
            {race.members: race.durations_s for race in races},
            {one.members: one.used for one in verdict.waves},
            lanes.count,
            self._safety,
            forced=self._execution == "parallel",
        )
        return verdict, waves

    async def _walk(self, advance: Callable[[], float | None]) -> None:
        """Measure run by run, beside the requests."""
        by = self._clock.now()
        while (ran_s := await asyncio.wrap_future(self._worker.call_spare(advance, by))) is not None:
            by = self._clock.now() + PATIENCE * ran_s

    async def unload(self, model: str) -> None:
        """Free what a model holds; no request of it is in flight, though a cancelled one may be in the last step."""
        executor = self.executor

        def free() -> None:
            for key in (model, stream_key(model)):
                self._worker.forget(key)
                self._costs.remove(key)
            executor.unload(model)

        # Messages are obeyed in order, between steps: whatever was submitted or cancelled before is through.
        await asyncio.wrap_future(self._worker.call(free))
        self.verdicts.pop(model, None)

    async def _rehearse(self, key: str, members: int) -> list[Cost]:
        rehearsal = Rehearsal(self.executor, key, members, self._max_batch_rows, self._clock)
        await self._walk(rehearsal.advance)
        return rehearsal.costs(self._safety)


def _load(executor: Executor, model: str, bundle: Bundle) -> None:
    # onnxruntime's threads get the slices of the one that starts them, which itself has the event loop's.
    slices.restore()
    executor.load(model, bundle)


def _load_groups(fusion: Fusion, model: str, bundle: Bundle, found: Sequence[range]) -> None:
    slices.restore()
    fusion.load(model, bundle, found)

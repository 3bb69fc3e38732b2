"""Clients, models and the worker on one clock that the test moves.

The worker's loop is turned by hand, so that whatever happens while a step runs happens at a chosen instant of it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bundle import Bundle
from bundle.reference import running_average
from service.engine.cost import CostModel
from service.engine.deadline import Deadline
from service.engine.fused_costs import FusedCosts
from service.engine.member_cost import MemberCost
from service.engine.preemption import Preemption
from service.engine.profile import Profile
from service.engine.scheduler import Scheduler
from service.engine.shared_cost import SharedCost
from service.engine.step import IDLE, Settled, Step
from service.engine.stream import Stream, stream_key
from service.engine.ticket import Exit, StoppedBy, Ticket
from service.engine.wave_costs import WaveCosts
from service.engine.waves import wide_waves
from service.engine.worker import Worker
from tests.fakes import FakeClock
from tests.service.engine.life.bundles import STREAM, bundles, executor_of, groups_of
from tests.service.engine.life.disturbed import Disturbed
from tests.service.engine.life.life import Life
from tests.service.engine.life.steps import MAX_BATCH_ROWS, Steps
from tests.tiny import FEATURES

FINAL = {StoppedBy.COMPLETE, StoppedBy.EXIT_CONFIDENCE, StoppedBy.MEMBER_FAILED, StoppedBy.SHUTDOWN}


class World:
    """Everything on one virtual clock."""

    def __init__(self, dice: random.Random, kind: str) -> None:
        self.dice = dice
        self.clock = FakeClock()
        self.costs = CostModel()
        self.executor = Disturbed(executor_of(kind), self)
        self.engine = Scheduler(self.costs, MAX_BATCH_ROWS)
        self.worker = Worker(
            self.executor,  # type: ignore[arg-type]
            self.engine,
            self.costs,
            self.clock,
            self._on_settled,
            self._on_step,
        )
        self._preemption = Preemption(self.costs)
        self.lives: dict[Ticket, Life] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.counts: Counter[str] = Counter()
        self.closed: list[Stream] = []
        self.at_fault: dict[str, tuple[int, str]] = {}
        self.steps = Steps(self)
        names = [key for key in bundles() if key != STREAM]
        self.models = dice.sample(names, dice.choice([1, 1, 2, len(names)]))
        self.speed = dice.choice([0.3, 1.0, 1.5])
        self.forced = dice.random() < 0.5
        for key in bundles():
            self._serve(key)
        self._choose_ways()

    # Models

    def _serve(self, key: str) -> None:
        manifest = bundles()[key].manifest
        dice = self.dice
        members = [self._cost() for _ in manifest.members]
        waves = None
        if self.executor.lanes is not None and wide_waves(manifest):
            durations = {wave: {n: [dice.uniform(0.001, 0.02)] for n in (1, 8)} for wave in wide_waves(manifest)}
            used = dict.fromkeys(durations, (1, 2, 4, 8))
            waves = WaveCosts(members, durations, used, 3, 0.95, forced=self.forced)
        self.costs.add(key, members, waves, self._fused(key))
        self.worker.serve(key, manifest)
        if manifest.streaming:
            self.costs.add(stream_key(key), [self._cost() for _ in manifest.streaming])
            self.worker.serve(stream_key(key), manifest)

    def _fused(self, key: str) -> FusedCosts | None:
        """One group or none: where there is one it is hardly worth running members side by side."""
        if self.executor.fusion is None or not groups_of(key) or self.dice.random() < 0.5:
            return None
        group = self.dice.choice(groups_of(key))
        durations = {group: {n: [self.dice.uniform(0.001, 0.02)] for n in (1, 2, 4, 8)}}
        return FusedCosts(durations, {group: self.dice.choice([(1,), (1, 2, 4, 8)])}, 0.95)

    def _cost(self) -> MemberCost:
        base, per_row = self.dice.uniform(0.001, 0.01), self.dice.choice([0.0, 0.0002, 0.002])
        durations = {n: [base + per_row * (n - 1)] for n in (1, 2, 4, 8)}
        if self.dice.random() < 0.5:
            return MemberCost(durations, 0.95)
        on_one_thread = {n: [seconds * self.dice.choice([1.0, 1.5, 2.0])] for n, (seconds,) in durations.items()}
        return SharedCost(durations, on_one_thread, 0.95)

    def _choose_ways(self) -> None:
        for key, bundle in bundles().items():
            for member in range(len(bundle.manifest.members)):
                ways = self.executor.ways(key, member)
                for rows in (1, 4, 8):
                    self.executor.choose(Step(key, member, (), rows), self.dice.randrange(ways))

    def reload(self, key: str) -> None:
        """Take a model off that nobody uses, and bring it again with other costs."""
        if any(one.ticket.model.startswith(key) and one.outcome is None for one in self.lives.values()):
            return

        def free() -> None:
            for name in (key, stream_key(key)):
                self.worker.forget(name)
                self.costs.remove(name)

        self.worker.call(free)
        self.worker.call(lambda: self._serve(key))
        self.counts["reloads"] += 1

    # Events

    def at(self, when: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self.events, (when, self._number, event))

    def happen(self, until: float) -> None:
        """Let everything happen that is due by then."""
        while self.events and self.events[0][0] <= until:
            when, _, event = heapq.heappop(self.events)
            self.clock._now = max(self.clock.now(), when)
            event()
        self.clock._now = max(self.clock.now(), until)

    # Requests

    def come(self) -> None:
        """A request comes."""
        dice = self.dice
        key = dice.choice(self.models)
        bundle = bundles()[key]
        total = len(bundle.manifest.members)
        rows = dice.choice([1, 1, 1, 2, 3, 7, 8, 9, 12])
        inputs = np.random.default_rng(dice.randrange(2**32)).normal(size=(rows, FEATURES)).astype(np.float32)
        limit = dice.choice([total, total, dice.randint(1, total)])
        leaves = dice.random() < 0.3
        levels = [None, 0.0, 0.5, 0.8, 0.95]
        name = f"r{len(self.lives)}"
        ticket = Ticket(
            request_id=name,
            model=key,
            inputs=inputs,
            deadline=self.deadline(),
            profile=self._profile(bundle),
            members_total=total,
            member_limit=limit,
            member_minimum=dice.choice([1, 1, dice.randint(1, limit)]),
            limited_by=StoppedBy.COMPLETE if limit == total else StoppedBy.MAX_MEMBERS,
            exit=Exit(tuple(dice.choice(levels) for _ in range(total - 1)), StoppedBy.EXIT_CONFIDENCE)
            if leaves
            else None,
            priority=dice.choice([0, 0, 0, 1, 9]),
            keep=dice.random() < 0.4,
        )
        if dice.random() < 0.1:
            self.at_fault[name] = dice.randrange(total), dice.choice(["raise", "once", "nan"])
        life = Life(ticket, inputs, list(running_average(bundle, inputs)))
        if ticket.keep:
            life.on_end = lambda: self._keep(life)
        self.submit(life)

    def _profile(self, bundle: Bundle) -> Profile:
        stated = Profile.of(bundle.manifest)
        if self.dice.random() < 0.3:
            # Nothing is gained by going on.
            flat = (0.8,) * len(stated.accuracy)
            return Profile(
                flat,
                ((1.0,),) * len(flat),
                tuple((flat[k:],) for k in range(len(flat))),
                stated.temperature,
                stated.jumps,
            )
        return stated

    def deadline(self) -> Deadline:
        budget = self.dice.choice([None, 0.0, 0.005, 0.02, 0.05, 0.2, 2.0])
        if budget:
            budget *= self.dice.uniform(0.5, 1.5)
        # It arrived a moment ago.
        arrived = self.clock.now() - self.dice.choice([0.0, 0.001])
        return Deadline.after(arrived, budget, self.dice.choice([0, 0.001, 0.005]), self.dice.choice([None, 0, 0.001]))

    def submit(self, life: Life) -> None:
        self.lives[life.ticket] = life
        self.counts["requests"] += 1
        halt = self._preemption.halt(self.worker.running, life.ticket, self.clock.now())
        self.worker.submit(life.ticket)
        if halt is not None:
            halt()
        due = life.ticket.deadline.answer_by
        if math.isfinite(due):
            self.at(max(self.clock.now(), due), lambda: self._time_is_up(life))
        if self.dice.random() < 0.1:
            self.at(self.clock.now() + self.dice.uniform(0, 0.05), lambda: self.end(life, StoppedBy.ABANDONED))

    def _time_is_up(self, life: Life) -> None:
        """Who has no answer is waited for a little longer."""
        last = life.ticket.deadline.last
        if life.ticket.answerable or self.clock.now() >= last:
            self.end(life, StoppedBy.DEADLINE)
        else:
            self.at(last, lambda: self.end(life, StoppedBy.DEADLINE))

    def _on_settled(self, settled: Sequence[Settled]) -> None:
        for one in settled:
            life = self.lives[one.ticket]
            life.settled.append(one.stopped_by)
            assert len(life.settled) == 1, "settled once"
            # The news need a moment to the event loop: the deadline's alarm may be sooner.
            self.at(
                self.clock.now() + self.dice.choice([0.0, 1e-4, 3e-3]),
                lambda life=life, why=one.stopped_by: self.end(life, why, told=True),
            )

    def _on_step(self, step: Step, duration_s: float | None) -> None:
        if duration_s is None:
            self.counts["given up"] += 1
            assert all(one.answerable for one in step.tickets), "an answer that there must be is not put off"

    def end(self, life: Life, why: StoppedBy, *, told: bool = False) -> None:
        """The wait for a request ends, as it does in the gate."""
        if life.outcome is not None:
            return
        life.outcome = why
        self.counts[f"ended {why}"] += 1
        if not told:
            life.cancelled = True
            self.worker.cancel(life.ticket, why)
        self._check(life)
        life.on_end()

    def _check(self, life: Life) -> None:
        """What has been published is the reference's, row by row."""
        ticket, published = life.ticket, life.ticket.published
        if published is None:
            return
        assert published.logits.shape == life.references[0].shape
        assert published.members == published.members_by_row.max() or not ticket.rows
        assert published.members <= ticket.members_total
        used = published.members_by_row
        expected = np.stack([life.references[members - 1][row] for row, members in enumerate(used.tolist())])
        np.testing.assert_allclose(published.logits, expected, atol=1e-4)
        assert len(ticket.classes_by_prefix) >= published.members
        if life.outcome is StoppedBy.COMPLETE:
            assert published.members == ticket.members_total
        if life.outcome is StoppedBy.MAX_MEMBERS:
            assert published.members >= ticket.member_limit

    # Kept states

    def _keep(self, life: Life) -> None:
        ticket = life.ticket
        if life.outcome in FINAL or not ticket.answerable:
            return
        self.worker.call(lambda: self.executor.detach(ticket))
        self.counts["kept"] += 1
        later = self.clock.now() + self.dice.choice([0.0, 0.001, 0.05, 0.5])
        self.at(later, lambda: self._go_on(life))

    def _go_on(self, life: Life) -> None:
        earlier = life.ticket
        limit = self.dice.choice([earlier.members_total, self.dice.randint(1, earlier.members_total)])
        before = earlier.published
        ticket = earlier.resumed(f"{earlier.request_id}+", self.deadline(), limit, keep=True)
        again = Life(ticket, life.inputs, life.references)

        def on_end() -> None:
            if again.outcome is StoppedBy.ABANDONED or again.outcome not in FINAL:
                # As `keep_on`: a ticket that has not been admitted has taken nothing over.
                self._keep(life if ticket.resumes is not None else again)
            assert ticket.published is not None and before is not None
            assert (ticket.published.members_by_row >= before.members_by_row).all(), "never worse"

        again.on_end = on_end
        self.counts["continued"] += 1
        self.submit(again)

    # The worker's loop, by hand

    def turn(self) -> bool:
        """As `Worker._work` does; whether there was anything to do."""
        worker = self.worker
        worker._read_inbox()
        step = self.engine.next_step(self.clock.now())
        worker._report()
        if step is not None:
            self.steps.running = None
            worker._run(step)
            self.steps.running = None
        spare = worker._run_spare(idle=step is None)
        assert worker.running is IDLE
        return spare or step is not None or not worker._inbox.empty()

    def run(self, until: float) -> None:
        while self.clock.now() < until or self.events:
            if self.turn():
                self.happen(self.clock.now())
                continue
            idle_until = self.events[0][0] if self.events else until
            if (wake_at := self.engine.wake_at()) is not None:
                idle_until = min(idle_until, max(wake_at, self.clock.now()))
            elif self.engine.waiting:
                raise AssertionError("the device sleeps while somebody waits")
            self.happen(max(idle_until, self.clock.now() + 1e-9))
        while self.turn():
            pass

"""The one thread that owns a device: drain the inbox, ask the scheduler, run the step, publish.

Everyone else sends messages, so nothing here is locked. The thread sleeps on its inbox when there is nothing
to run; it never polls.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, nullcontext, suppress
from typing import Any, Generic, TypeVar

from bundle import Manifest
from service.engine import slices
from service.engine.cost import CostModel
from service.engine.deadline import Clock
from service.engine.executor import Executor
from service.engine.own_core import OwnCore
from service.engine.publishing import publish
from service.engine.scheduler import Scheduler
from service.engine.step import IDLE, Running, Settled, Step
from service.engine.ticket import Logits, StoppedBy, Ticket

log = logging.getLogger(__name__)

PATIENT = 4.0
"""Times as long as predicted that a step may take in which something is tried."""

Result = TypeVar("Result")


class WorkerStopped(Exception):
    """The thread has ended, by `stop` or by a bug: what was asked of it will not be done."""

    def __init__(self) -> None:
        super().__init__("the device thread has ended")


class _Call(Generic[Result]):
    """A function that somebody waits for."""

    def __init__(self, function: Callable[[], Result], by: float = 0.0) -> None:
        self._function = function
        self.by = by
        self.future: Future[Result] = Future()

    def run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:
            with suppress(InvalidStateError):
                self.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            with suppress(InvalidStateError):
                self.future.set_result(result)


class Worker:
    """Runs steps until it is stopped.

    Args:
        executor: used on the worker's thread only.
        scheduler: used on the worker's thread only.
        costs: learns from every step.
        clock: the scheduler's `now`.
        on_settled: called on the worker's thread with the requests that get no further member.
        on_step: called on the worker's thread with each step that has ended, and its seconds; None: it was given up.
        on_death: called on the worker's thread when a bug ends it; requests in flight are settled after that.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        costs: CostModel,
        clock: Clock,
        on_settled: Callable[[Sequence[Settled]], None],
        on_step: Callable[[Step, float | None], None],
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._costs = costs
        self._clock = clock
        self._on_settled = on_settled
        self._on_step = on_step
        self._on_death = on_death
        self.own_core: OwnCore | None = None
        """What the thread keeps for itself while it runs, if anything; set before `start`."""
        self._manifests: dict[str, Manifest] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.running = IDLE
        """The step that runs; read by the event loop."""
        self._spare: deque[_Call[Any]] = deque()
        self._unsettled: set[Ticket] = set()
        self._going_on = False
        self._closed = False
        self._thread = self._new_thread()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False before `start`, after `stop`, and if a bug has ended it."""
        return self._thread.is_alive() and not self._closed

    def start(self) -> None:
        """Start the thread."""
        self._going_on = True
        self._thread.start()

    def stop(self) -> None:
        """Finish the running step, settle what waits as shut down, and end the thread."""
        self._inbox.put(self._stop)
        self._thread.join()

    def restart(self, executor: Executor, scheduler: Scheduler) -> None:
        """Start a new thread after a bug has ended the last one, on a fresh executor and an empty scheduler."""
        self._thread.join()
        self._executor, self._scheduler = executor, scheduler
        self._manifests = {}
        # Messages to the dead thread stay in its inbox: they are about tickets that have been settled.
        self._inbox = queue.SimpleQueue()
        self._closed = False
        self._thread = self._new_thread()
        self.start()

    def serve(self, model: str, manifest: Manifest) -> None:
        """Take requests for a loaded model; before `start`, or through `call`."""
        self._manifests[model] = manifest

    def forget(self, model: str) -> None:
        """Run nothing of a model any more, rehearsals of idle time included; through `call`."""
        self._manifests.pop(model, None)

    def submit(self, ticket: Ticket) -> None:
        """Admit a request; it will be settled, whatever becomes of the worker."""
        self._inbox.put(lambda: self._admit(ticket))
        if self._closed:
            # The thread may have read its inbox for the last time.
            self._on_settled([Settled(ticket, StoppedBy.SHUTDOWN)])

    def cancel(self, ticket: Ticket, reason: StoppedBy) -> None:
        """Free what is left of a request before the next step starts."""
        self._inbox.put(lambda: self._scheduler.cancel(ticket, reason))

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` between two steps, on the thread that owns the device; `WorkerStopped` if it has ended."""
        message = _Call(function)
        self._inbox.put(message.run)
        return self._unless_closed(message.future)

    def call_spare(self, function: Callable[[], Result], by: float) -> Future[Result]:
        """Like `call`, but when no step is to be run; from the instant `by` on, after the next step at the latest."""
        message = _Call(function, by)
        self._inbox.put(lambda: self._spare.append(message))
        return self._unless_closed(message.future)

    def _unless_closed(self, future: Future[Result]) -> Future[Result]:
        if self._closed:
            # The thread may have read its inbox for the last time.
            _refuse(future)
        return future

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._work, name="device", daemon=True)

    def _admit(self, ticket: Ticket) -> None:
        self._unsettled.add(ticket)
        ticket.take_over()
        self._scheduler.admit(ticket, self._clock.now())

    def _work(self) -> None:
        # A thread inherits those of the one that starts it, and the event loop has short ones.
        slices.restore()
        try:
            with self.own_core or nullcontext():
                while self._going_on:
                    self._turn()
        except BaseException:
            log.critical("the device thread has died of a bug", exc_info=True)
            self._on_death()
        finally:
            self._close()

    def _turn(self) -> None:
        """One step, or what else there is to do."""
        self._read_inbox()
        # Who has an answer gets it before anything is planned.
        self._report()
        if self.own_core is not None:
            self.own_core.look()
        self._costs.look()
        step = self._scheduler.next_step(self._clock.now()) if self._going_on else None
        self._report()
        if step is not None:
            self._run(step)
        if not self._run_spare(idle=step is None) and step is None and self._going_on:
            self._sleep()

    def _close(self) -> None:
        """Settle everybody, wherever they are: waiting, in the step that failed, or still in the inbox."""
        self._going_on = False
        self._closed = True
        try:
            self._read_inbox()
            self._report()
        except BaseException:
            log.critical("the device thread could not be closed in order", exc_info=True)
        while not self._inbox.empty():
            # Whatever is wrong with one message, the others must be settled.
            with suppress(BaseException):
                self._inbox.get()()
        while self._spare:
            _refuse(self._spare.popleft().future)
        self._settle([Settled(ticket, StoppedBy.SHUTDOWN) for ticket in self._unsettled])
        with suppress(BaseException):
            # A thread that has ended must hold nobody's tensors.
            self._scheduler.cancel_all(StoppedBy.SHUTDOWN)
            self._scheduler.take_settled()

    def _run_spare(self, *, idle: bool) -> bool:
        """Run one spare message, if no step was to be run or its time has come; whether there was one."""
        if not self._spare or not (idle or self._clock.now() >= self._spare[0].by):
            return False
        self._spare.popleft().run()
        return True

    def _read_inbox(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _sleep(self) -> None:
        """Wait for a message, or until the scheduler wants to be asked again."""
        wake_at = self._scheduler.wake_at()
        timeout_s = None if wake_at is None else max(0.0, wake_at - self._clock.now())
        try:
            self._inbox.get(timeout=timeout_s)()
        except queue.Empty:
            return

    def _stop(self) -> None:
        self._going_on = False

    def _report(self) -> None:
        self._settle(self._scheduler.take_settled())

    def _settle(self, settled: Sequence[Settled]) -> None:
        if not settled:
            return
        now = self._clock.now()
        for one in settled:
            one.ticket.ended = now
        self._unsettled.difference_update([one.ticket for one in settled])
        self._on_settled(settled)

    def _run(self, step: Step) -> None:
        if not step.tickets and step.model not in self._manifests:
            # A rehearsal that was asked for before the model was unloaded.
            return
        started = self._clock.now()
        for ticket in step.tickets:
            ticket.started = ticket.started or started
        if step.width > 1:
            self._run_together(step, started)
            return
        if not self._executor.halts:
            step = step._replace(halt=None)
        seconds = self._costs.predict(step.model, step.member, step.rows, started)
        self.running = Running(started + seconds, step, started)
        if self._costs.on_one_thread(step.model, step.member, step.rows) and not self._may_try(step, seconds, started):
            step = step._replace(on_one_thread=True)
        try:
            logits = self._executor.run(step)
        except Exception as error:
            if step.halt is not None and step.halt.called:
                self._scheduler.complete(step.tickets, self._clock.now())
                self._on_step(step, None)
            else:
                self._recover(step, error)
            return
        finally:
            # However wrong the prediction was, nobody is refused because of a step that has ended.
            self.running = IDLE
        ended = self._clock.now()
        self._costs.observe(
            step.model, step.member, step.rows, ended - started, ended, on_one_thread=step.on_one_thread
        )
        self._on_step(step, ended - started)
        failed = set(publish(step, step.member, logits, self._manifests[step.model], self._executor))
        self._scheduler.fail(failed)
        self._scheduler.complete((ticket for ticket in step.tickets if ticket not in failed), self._clock.now())

    def _may_try(self, step: Step, seconds: float, now: float) -> bool:
        """Whether more threads than one are tried again, in a step that may as well last longer than predicted."""
        doubtful = self._costs.doubtful(step.model, step.member, step.rows, now)
        return doubtful and all(ticket.deadline.slack(now, PATIENT * seconds) >= 0 for ticket in step.tickets)

    def _run_together(self, step: Step, started: float) -> None:
        """Run members side by side or in one go, and publish each prefix when its member and those before it end."""
        together = self._executor.fusion if step.fused else self._executor.lanes
        costs = self._costs.fused(step.model) if step.fused else self._costs.waves(step.model)
        assert together is not None and costs is not None, "only what was measured is run together"
        self.running = Running(started + costs.predict(step.member, step.width, step.rows, started), step)
        try:
            failed, error = self._publish_each(step, together.run(step))
        finally:
            self.running = IDLE
        if error is not None and step.fused:
            # Nobody knows which of them it was: one by one, each request keeps what it can have.
            log.error("members %s of %s failed in one go", list(step.members), step.model, exc_info=error)
            self._run(step._replace(width=1, fused=False))
            return
        self._scheduler.fail(failed)
        staying = tuple(ticket for ticket in step.tickets if ticket not in failed)
        if error is not None:
            member = staying[0].depth if staying else step.member
            self._recover(Step(step.model, member, staying, sum(ticket.rows for ticket in staying)), error)
            return
        ended = self._clock.now()
        costs.observe(step.member, step.width, step.rows, ended - started, ended)
        self._on_step(step, ended - started)
        self._scheduler.complete(staying, ended)

    def _publish_each(self, step: Step, outputs: Generator[Logits]) -> tuple[set[Ticket], Exception | None]:
        """Publish what members give together, until one raises: who got no finite numbers, and what was raised.

        Whoever is not among the former has published the prefix of all members before the one that raised.
        """
        failed: set[Ticket] = set()
        manifest = self._manifests[step.model]
        # However this ends, the lanes must be free for the next step.
        with closing(outputs):
            for member in step.members:
                try:
                    logits = next(outputs)
                except Exception as error:
                    return failed, error
                failed.update(publish(step, member, logits, manifest, self._executor, failed))
        return failed, None

    def _recover(self, step: Step, error: Exception) -> None:
        """A member raised: run it on each request alone, so that only those at fault lose it."""
        log.error("member %d of %s failed on %d rows", step.member, step.model, step.rows, exc_info=error)
        if len(step.tickets) < 2:
            self._scheduler.fail(step.tickets)
            return
        for ticket in step.tickets:
            self._run(Step(step.model, step.member, (ticket,), ticket.rows))


def _refuse(future: Future[Any]) -> None:
    """Let nobody wait for a thread that has ended."""
    with suppress(InvalidStateError):
        future.set_exception(WorkerStopped())

"""The one thread that owns a device: drain the inbox, ask the scheduler, run the step, publish.

Everyone else sends messages, so nothing here is locked. The thread sleeps on its inbox when there is nothing
to run; it never polls.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from bundle import Manifest
from bundle.exits import confidence
from service.engine.cost import CostModel
from service.engine.deadline import Clock
from service.engine.executor import Executor
from service.engine.scheduler import Scheduler, Settled, Step
from service.engine.ticket import Logits, StoppedBy, Ticket

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker:
    """Runs steps until it is stopped.

    Args:
        executor: used on the worker's thread only.
        scheduler: used on the worker's thread only.
        costs: learns from every step.
        clock: the scheduler's `now`.
        on_settled: called on the worker's thread with the requests that get no further member.
        on_step: called on the worker's thread with each finished step and its seconds.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        costs: CostModel,
        clock: Clock,
        on_settled: Callable[[Sequence[Settled]], None],
        on_step: Callable[[Step, float], None],
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._costs = costs
        self._clock = clock
        self._on_settled = on_settled
        self._on_step = on_step
        self._manifests: dict[str, Manifest] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.busy_until = 0.0
        """When the running step is predicted to end; read by the event loop, in the past while idle."""
        self._running = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs; False before `start`, after `stop`, and if a bug has ended it."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._running = True
        self._thread.start()

    def stop(self) -> None:
        """Finish the running step, settle what waits as shut down, and end the thread."""
        self._inbox.put(self._stop)
        self._thread.join()

    def serve(self, model: str, manifest: Manifest) -> None:
        """Take requests for a loaded model; before `start`, or through `call`."""
        self._manifests[model] = manifest

    def submit(self, ticket: Ticket) -> None:
        """Admit a request; it will be settled, whatever becomes of the worker."""
        self._inbox.put(lambda: self._scheduler.admit(ticket, self._clock.now()))
        if self._closed:
            # The thread may have read its inbox for the last time.
            self._on_settled([Settled(ticket, StoppedBy.SHUTDOWN)])

    def cancel(self, ticket: Ticket, reason: StoppedBy) -> None:
        """Free what is left of a request before the next step starts."""
        self._inbox.put(lambda: self._scheduler.cancel(ticket, reason))

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` between two steps, on the thread that owns the device."""
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def _work(self) -> None:
        try:
            while self._running:
                self._read_inbox()
                step = self._scheduler.next_step(self._clock.now()) if self._running else None
                self._report()
                if step is not None:
                    self._run(step)
                elif self._running:
                    self._sleep()
        except BaseException:
            log.critical("the device thread has died; restart the service", exc_info=True)
            raise
        finally:
            self._closed = True
            self._read_inbox()
            self._scheduler.cancel_all(StoppedBy.SHUTDOWN)
            self._report()

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
        self._running = False

    def _report(self) -> None:
        settled = self._scheduler.take_settled()
        if settled:
            now = self._clock.now()
            for one in settled:
                one.ticket.ended = now
            self._on_settled(settled)

    def _run(self, step: Step) -> None:
        started = self._clock.now()
        self.busy_until = started + self._costs.predict(step.model, step.member, step.rows, started)
        for ticket in step.tickets:
            ticket.started = ticket.started or started
        try:
            logits = self._executor.run(step)
        except Exception:
            self._recover(step)
            return
        ended = self._clock.now()
        self._costs.observe(step.model, step.member, step.rows, ended - started, ended)
        self._on_step(step, ended - started)
        failed = set(self._publish(step, logits))
        self._scheduler.fail(failed)
        self._scheduler.complete((ticket for ticket in step.tickets if ticket not in failed), self._clock.now())

    def _recover(self, step: Step) -> None:
        """A step raised: run each of its requests alone, so that only those at fault lose the member."""
        log.exception("member %d of %s failed on %d rows", step.member, step.model, step.rows)
        if len(step.tickets) < 2:
            self._scheduler.fail(step.tickets)
            return
        for ticket in step.tickets:
            self._run(Step(step.model, step.member, (ticket,), ticket.rows))

    def _publish(self, step: Step, logits: Logits) -> list[Ticket]:
        """Hand each request its rows; returns those on whose rows the member gave no finite numbers."""
        combine = self._manifests[step.model].members[step.member].combine
        answers: list[tuple[Ticket, Logits]] = []
        failed = []
        start = 0
        for ticket in step.tickets:
            own = logits[start : start + ticket.rows]
            start += ticket.rows
            if np.isfinite(own).all():
                answers.append((ticket, ticket.publish(step.member, own, combine)))
            else:
                log.warning("member %d of %s gave NaN or infinity", step.member, step.model)
                failed.append(ticket)
        if answers:
            self._look_ahead(answers)
        return failed

    def _look_ahead(self, answers: Sequence[tuple[Ticket, Logits]]) -> None:
        """Let confident rows leave where the request asked for it, and tell what further members are worth to others.

        All tickets are of one model and have just published the same prefix.
        """
        profile, depth = answers[0][0].profile, answers[0][0].depth
        certain = confidence(np.concatenate([answer for _, answer in answers]), profile.temperature[depth - 1])
        start = 0
        for ticket, answer in answers:
            own = certain[start : start + len(answer)]
            start += len(answer)
            leaving = ticket.leaving(own)
            if leaving is not None:
                rows = np.flatnonzero(~leaving)
                ticket.keep(rows)
                self._executor.keep(ticket, rows)
                own = own[rows]
            ticket.expected = profile.after(depth, own.tolist())

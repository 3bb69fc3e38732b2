"""What happens when a bug ends the device thread: one restart, on a fresh executor; a second death is final.

    thread dies ──> not ready ──> fresh executor ──> members measured again ──> ready
                        └─ second death, or no restart possible: not healthy, for the orchestrator to see

Requests in flight are not part of it: the dying thread settles them itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from service.engine.executor import Executor
from service.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from service.context import Context

log = logging.getLogger(__name__)

RESTARTS = 1
"""A bug that ends the thread twice is in the bundle or in the code: only a person can help."""


class Supervisor:
    """Watches one device thread.

    Args:
        new_executor: opens a fresh one.
        new_scheduler: makes an empty one.
    """

    def __init__(self, new_executor: Callable[[], Executor], new_scheduler: Callable[[], Scheduler]) -> None:
        self._new_executor = new_executor
        self._new_scheduler = new_scheduler
        self._loop: asyncio.AbstractEventLoop | None = None
        self._died = asyncio.Event()
        self._left = RESTARTS
        self.restarting = False
        """Whether the thread is dead, but will be back."""

    def died(self) -> None:
        """The worker's `on_death`, on the dying thread."""
        if self._loop is not None and not self._loop.is_closed():
            self.restarting = self._left > 0
            self._loop.call_soon_threadsafe(self._died.set)

    async def watch(self, context: Context) -> None:
        """Restart the thread when it has died; return when it stays dead."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._died.wait()
            self._died.clear()
            context.ready = False
            if not self._left:
                log.critical("the device thread has died again; restart the service")
                return
            self._left -= 1
            try:
                await self._restart(context)
            except Exception:
                log.critical("the device thread could not be restarted; restart the service", exc_info=True)
                await asyncio.to_thread(context.worker.stop)
                return
            finally:
                self.restarting = False

    async def _restart(self, context: Context) -> None:
        # What is kept lives on the executor of the dead thread, in a state that nobody can vouch for.
        context.kept.clear("the device has been restarted since")
        context.streams.drain()
        bundles = {one.key: one.bundle for one in context.deployments.all()}
        # Before another is opened: there may be no memory for both.
        await asyncio.to_thread(_free, context.host.executor, list(bundles))
        executor = await asyncio.to_thread(self._new_executor)
        await context.host.revive(executor, self._new_scheduler(), bundles)
        context.ready = True
        context.metrics.restarted()
        log.warning("the device thread has been restarted; it will not be restarted again")


def _free(executor: Executor, models: Iterable[str]) -> None:
    """Give back what a dead thread's executor holds, as far as it still can."""
    for model in models:
        with suppress(Exception):
            executor.unload(model)

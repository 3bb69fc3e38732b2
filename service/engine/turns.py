"""The event loop takes one large piece of work a turn: answers before requests, and those due first before others.

Decoding or encoding a request costs the loop a fraction of a millisecond. A burst of requests that are read together
would be admitted together, one after the other, and whatever became due meanwhile would be late by all of them. So
each waits for a turn of the loop of its own; between two of them the loop reads its sockets and looks at its timers.
A loop that has nothing else to do makes nobody wait. Used on the event loop's thread only, but for what tells others
that it is crowded.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable


class Turns:
    """Who goes on in which turn."""

    def __init__(self) -> None:
        self._answers: list[tuple[float, int, Callable[[], None]]] = []
        self._requests: deque[asyncio.Future[None]] = deque()
        self._numbers = itertools.count()
        self._taken = False
        self._coming = 0
        self.contested = 0
        """How often anybody had to wait for a turn; from any thread."""

    @property
    def crowded(self) -> bool:
        """Whether anybody waits for a turn, or soon will; from any thread."""
        return bool(self._requests or self._answers) or self._coming > 1

    def announce(self, answers: int) -> None:
        """So many answers are on their way to the loop; from the one thread that sends them."""
        self._coming = answers

    async def request(self) -> None:
        """Return when a new request may be handled."""
        if not self._taken:
            self._take()
            return
        self.contested += 1
        waiting = asyncio.get_running_loop().create_future()
        self._requests.append(waiting)
        await waiting

    def answer(self, due: float, wake: Callable[[], None]) -> None:
        """Call `wake`, which makes the answer that is due at the instant `due` go on."""
        if not self._taken:
            self._take()
            wake()
        else:
            self.contested += 1
            heapq.heappush(self._answers, (due, next(self._numbers), wake))

    def _take(self) -> None:
        self._taken = True
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._taken = False
        self._coming = 0
        if self._answers:
            self._take()
            heapq.heappop(self._answers)[2]()
            return
        while self._requests:
            waiting = self._requests.popleft()
            if not waiting.done():
                self._take()
                waiting.set_result(None)
                return

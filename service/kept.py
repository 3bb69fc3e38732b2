"""States of answered requests, kept so that a later request can go on where they stopped.

Bounded three ways: entries, bytes, and the time that each was granted. Whatever is dropped is remembered by name
and reason for a while, so that a client is told what became of it. Used on the event loop's thread only; `now`
comes in.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bundle import Manifest
from service.deployments import Deployment
from service.engine.ticket import Ticket
from service.errors import AlreadyContinuing, StateGone, UnknownRequest


@dataclass(slots=True, eq=False)
class Kept:
    """Where one request stopped."""

    ticket: Ticket
    deployment: Deployment
    size: int
    """Bytes that it may hold."""
    expires: float
    busy: bool = False
    """Whether a request is going on from it."""


class KeptStates:
    """The states by request id; when there is no room, the least recently used is dropped.

    Args:
        max_entries: states to keep.
        max_bytes: what they may hold together.
        on_kept: called with the deployment of each new state: it must stay on the device.
        on_dropped: called with the deployment of each state that goes.
    """

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        on_kept: Callable[[Deployment], None],
        on_dropped: Callable[[Deployment], None],
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._on_kept = on_kept
        self._on_dropped = on_dropped
        self._states: OrderedDict[str, Kept] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._expiries: list[tuple[float, str]] = []
        self.size = 0
        """Bytes that all of them may hold."""

    def __len__(self) -> int:
        return len(self._states)

    def put(self, request_id: str, kept: Kept, now: float) -> bool:
        """Keep a state, in place of one of the same name; False if it cannot be, for want of room."""
        self.drop(request_id, "another request has taken its name")
        self.sweep(now)
        self._make_room(kept.size)
        if len(self._states) >= self._max_entries or self.size + kept.size > self._max_bytes:
            return False
        self._gone.pop(request_id, None)
        self._states[request_id] = kept
        heapq.heappush(self._expiries, (kept.expires, request_id))
        self.size += kept.size
        self._on_kept(kept.deployment)
        return True

    def take(self, request_id: str, now: float) -> Kept:
        """The state, busy from now on until `give_back` or `finish`.

        Raises:
            UnknownRequest: no such request was kept, or that was long ago.
            StateGone: it was kept, but is no more.
            AlreadyContinuing: another request is going on from it.
        """
        self.sweep(now)
        kept = self._states.get(request_id)
        if kept is None and request_id in self._gone:
            raise StateGone(
                f"Request {request_id!r} cannot be continued: {self._gone[request_id]}. Send it anew to POST /predict."
            )
        if kept is None:
            raise UnknownRequest(f"No request {request_id!r} is kept: ask for it with `keep_ms` in POST /predict.")
        if kept.busy:
            raise AlreadyContinuing(f"Request {request_id!r} is being continued already: wait for that answer.")
        kept.busy = True
        return kept

    def give_back(self, request_id: str, kept: Kept, ticket: Ticket, expires: float) -> bool:
        """Keep a taken state on, as `ticket` has left it; False if it was dropped meanwhile."""
        if self._states.get(request_id) is not kept:
            return False
        kept.ticket, kept.expires, kept.busy = ticket, expires, False
        self._states.move_to_end(request_id)
        heapq.heappush(self._expiries, (expires, request_id))
        return True

    def drop(self, request_id: str, reason: str) -> None:
        """Let a state go, busy or not; nothing if there is none."""
        kept = self._states.pop(request_id, None)
        if kept is None:
            return
        self.size -= kept.size
        self._gone[request_id] = reason
        while len(self._gone) > self._max_entries:
            self._gone.popitem(last=False)
        self._on_dropped(kept.deployment)

    def finish(self, request_id: str, kept: Kept, reason: str) -> None:
        """Let a taken state go; nothing if it was dropped meanwhile, whoever has its name now."""
        if self._states.get(request_id) is kept:
            self.drop(request_id, reason)

    def drop_of(self, deployment: Deployment) -> None:
        """Let the states of an unloaded deployment go."""
        for request_id in [name for name, kept in self._states.items() if kept.deployment is deployment]:
            self.drop(request_id, f"{deployment.key} has been unloaded")

    def clear(self, reason: str) -> None:
        """Let all states go."""
        for request_id in list(self._states):
            self.drop(request_id, reason)

    def sweep(self, now: float) -> None:
        """Let go what has expired."""
        while self._expiries and self._expiries[0][0] <= now:
            _, request_id = heapq.heappop(self._expiries)
            kept = self._states.get(request_id)
            # A busy one is asked about again when it is given back.
            if kept is not None and kept.expires <= now and not kept.busy:
                self.drop(request_id, "the time it was kept for is over")

    def _make_room(self, size: int) -> None:
        """Let go the least recently used that nobody is using, until one more of `size` bytes fits."""
        if size > self._max_bytes:
            return
        while len(self._states) >= self._max_entries or self.size + size > self._max_bytes:
            idle = next((name for name, kept in self._states.items() if not kept.busy), None)
            if idle is None:
                return
            self.drop(idle, "newer requests needed the room")


def state_bytes(manifest: Manifest, rows: int) -> int:
    """The most that the state of a request of `rows` rows can hold, at any depth."""
    total = len(manifest.members)
    activations = max((_live_bytes(manifest, depth) for depth in range(1, total)), default=0)
    sample = _bytes(manifest.input.dtype, manifest.input.shape)
    # The running sum and the published answer, and the winning class after each member.
    answers = 2 * _logits_bytes(manifest) + 8 * total
    return rows * (sample + activations + answers)


def _live_bytes(manifest: Manifest, depth: int) -> int:
    """Bytes of one sample's activations that the members after `depth` still read."""
    live = {
        (link.from_member, link.from_output): _bytes(link.dtype, link.shape)
        for member in manifest.members[depth:]
        for link in member.connections
        if link.from_member < depth
    }
    return sum(live.values())


def _logits_bytes(manifest: Manifest) -> int:
    first = manifest.members[0]
    return sum(_bytes(output.dtype, output.shape) for output in first.outputs if output.name == first.logits)


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))

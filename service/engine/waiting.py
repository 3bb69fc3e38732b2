"""Requests that wait for the same member of the same model, best first. Standard library only."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from service.engine.ticket import Ticket

SWEEP_FROM = 256
"""Entries that a heap may hold whoever they are of."""

Rank = TypeVar("Rank", float, tuple[float, float])


class Places:
    """Where each ticket waits: shared by all heaps of a scheduler, so that each ticket waits once."""

    def __init__(self) -> None:
        self.taken: dict[Ticket, int] = {}
        self.last = 0
        """The newest place; it changes whenever somebody is enqueued."""

    def __len__(self) -> int:
        return len(self.taken)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self.taken

    def new(self) -> int:
        """A number that no other entry has."""
        self.last += 1
        return self.last


class Waiting(Generic[Rank]):
    """A heap of tickets, lowest rank first.

    A ticket that leaves is not looked for: its entry stays until it comes up, and is passed over because its place
    says that the ticket is elsewhere by now.
    """

    def __init__(self, places: Places) -> None:
        self._heap: list[tuple[Rank, int, Ticket]] = []
        self._places = places
        self._sweep_at = SWEEP_FROM

    def push(self, rank: Rank, ticket: Ticket) -> None:
        """Add a ticket; wherever it waited before, it does no more."""
        place = self._places.taken[ticket] = self._places.new()
        heapq.heappush(self._heap, (rank, place, ticket))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        """Let go of those who have left; often enough that they are never many, rarely enough to cost nothing."""
        taken = self._places.taken
        self._heap = [entry for entry in self._heap if taken.get(entry[2]) == entry[1]]
        heapq.heapify(self._heap)
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._heap))

    @property
    def best_rank(self) -> Rank | None:
        """No rank that waits here is below this one; None if nothing waits."""
        return self._heap[0][0] if self._heap else None

    def head(self) -> tuple[Rank, Ticket] | None:
        """The best that still waits here."""
        heap = self._heap
        taken = self._places.taken
        while heap:
            rank, place, ticket = heap[0]
            if taken.get(ticket) == place:
                return rank, ticket
            heapq.heappop(heap)
        return None

    def pop(self) -> Ticket:
        """Take the head out; it waits nowhere then."""
        ticket = heapq.heappop(self._heap)[2]
        del self._places.taken[ticket]
        return ticket

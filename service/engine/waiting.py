"""Requests that wait for the same member of the same model, best first. Standard library only."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from service.engine.ticket import Ticket

Rank = TypeVar("Rank", float, tuple[float, float])


class Waiting(Generic[Rank]):
    """A heap of tickets, lowest rank first.

    A ticket that leaves is not looked for: its entry stays until it comes up, and is passed over because `places`,
    which all heaps of a scheduler share, says that the ticket is elsewhere by now.
    """

    def __init__(self, places: dict[Ticket, int]) -> None:
        self._heap: list[tuple[Rank, int, Ticket]] = []
        self._places = places

    def push(self, rank: Rank, place: int, ticket: Ticket) -> None:
        """Add a ticket; `place` is a number that no other entry has."""
        self._places[ticket] = place
        heapq.heappush(self._heap, (rank, place, ticket))

    @property
    def best_rank(self) -> Rank | None:
        """No rank that waits here is below this one; None if nothing waits."""
        return self._heap[0][0] if self._heap else None

    def head(self) -> tuple[Rank, Ticket] | None:
        """The best that still waits here."""
        heap = self._heap
        places = self._places
        while heap:
            rank, place, ticket = heap[0]
            if places.get(ticket) == place:
                return rank, ticket
            heapq.heappop(heap)
        return None

    def pop(self) -> Ticket:
        """Take the head out; it waits nowhere then."""
        ticket = heapq.heappop(self._heap)[2]
        del self._places[ticket]
        return ticket

"""Streams whose members are behind when their chunk has been answered: caught up while the device is idle.

Without it one late chunk would be felt for ever: the next one would find the member two runs behind, with time for
one. A ticket goes on here, after its answer, as if it had no deadline; the stream's next chunk takes it out.
"""

from __future__ import annotations

from service.engine.stream import Stream
from service.engine.ticket import Ticket


class Arrears:
    """The latest answered ticket of each stream that is behind; used on the worker's thread only."""

    def __init__(self, max_batch_rows: int) -> None:
        self._max_batch_rows = max_batch_rows
        self._tickets: dict[Stream, Ticket] = {}

    def __bool__(self) -> bool:
        return bool(self._tickets)

    def add(self, ticket: Ticket) -> None:
        """Take in a ticket that has been answered, unless nothing is left to be run of it."""
        if ticket.part is not None and ticket.depth < ticket.members_total:
            self._tickets[ticket.part.stream] = ticket

    def drop(self, ticket: Ticket) -> None:
        """The stream goes on with another chunk, or is closed."""
        if ticket.part is not None:
            self._tickets.pop(ticket.part.stream, None)

    def clear(self) -> None:
        """Drop all."""
        self._tickets.clear()

    def take(self, *, first: bool) -> list[Ticket]:
        """Tickets for one step, the longest waiting and those at its member; they come back by `add`.

        Args:
            first: only those that wait for their first member: without it there is no answer to the next chunk.
        """
        waiting = [ticket for ticket in self._tickets.values() if not (first and ticket.depth)]
        step = [one for one in waiting if (one.model, one.depth) == (waiting[0].model, waiting[0].depth)]
        taken = step[: self._max_batch_rows]
        for ticket in taken:
            self.drop(ticket)
        return taken

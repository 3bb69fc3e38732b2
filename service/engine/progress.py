"""A request watched while it gets better: each prefix as it is finished, then how the request ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from service.engine.gate import Books, Gate, Outcome, Watch
from service.engine.ticket import Published, Ticket
from service.engine.worker import Worker


async def refine(
    gate: Gate, ticket: Ticket, worker: Worker, hung_up: Watch, books: Books | None = None
) -> AsyncGenerator[Published | Outcome]:
    """Run the ticket as `Gate.answer` does, and yield its prefixes on the way, its outcome at the end.

    Nothing is queued: whoever was busy when prefixes were finished gets the latest of them. A prefix that nothing
    can follow is told by the outcome alone.

    Raises:
        QueueFull: the rows do not fit into the queue.
    """
    news = asyncio.Event()
    ticket.on_published = lambda: gate.tell(news.set)
    answer = asyncio.ensure_future(gate.answer(ticket, worker, hung_up, books))
    answer.add_done_callback(lambda _: news.set())
    told = 0
    try:
        while True:
            await news.wait()
            news.clear()
            if answer.done():
                break
            prefix = ticket.published
            if prefix is not None and max(told, ticket.member_minimum - 1) < prefix.members < ticket.member_limit:
                told = prefix.members
                yield prefix
        yield answer.result()
    finally:
        # Whoever stops listening gives the request up.
        answer.cancel()

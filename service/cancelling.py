"""Cancelling an exchange over HTTP without harm to the pool that its connection belongs to.

`Task.cancel` also strikes where httpcore, between two waits for the network, takes its locks: the connection is then
neither used nor free, for ever (https://github.com/encode/httpcore/issues/1093). Many cancelled requests left one
behind, and when the pool was full of them every further request waited in vain. A cancel scope of anyio spares
those places, so the exchange runs in a task of its own that only such a scope ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import anyio

Result = TypeVar("Result")


async def orderly(exchange: Awaitable[Result]) -> Result:
    """Await an exchange; when cancelled, end it in good order, and only then be cancelled."""
    scope = anyio.CancelScope()

    async def within() -> Result:
        with scope:
            return await exchange
        raise asyncio.CancelledError

    task = asyncio.ensure_future(within())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        await asyncio.wait([task])
        raise

"""Whether and how long the state of an answered request is kept; `KeptStates` is where."""

from __future__ import annotations

import asyncio

from service.context import Context
from service.deployments import Deployment
from service.engine.ticket import StoppedBy, Ticket
from service.errors import InvalidField
from service.kept import Kept, state_bytes

FINAL = frozenset(
    {
        StoppedBy.COMPLETE,
        StoppedBy.EXIT_CONFIDENCE,
        StoppedBy.EXIT_RISK,
        StoppedBy.MEMBER_FAILED,
        StoppedBy.SHUTDOWN,
    }
)
"""After these nothing is left to run, or nothing to run it on."""

LATE_S = 0.01
"""An event loop may fire a timer some milliseconds early; the sweep must come after the expiry."""


def check_keep(keep_ms: float | None, context: Context) -> None:
    """Refuse a time that is none, or longer than the operator allows.

    Raises:
        InvalidField: `keep_ms` is not above 0, or above `max_keep_ms`.
    """
    longest = context.settings.max_keep_ms
    if keep_ms is not None and not 0 < keep_ms <= longest:
        raise InvalidField(
            f"Field `keep_ms`: it is {keep_ms:g}, but must be above 0 and at most {longest:g}.", field="keep_ms"
        )


def keep(
    ticket: Ticket, deployment: Deployment, stopped_by: StoppedBy, keep_ms: float | None, context: Context
) -> float | None:
    """Keep the state of an answered request if that was asked for and is of use: for how many ms, or None."""
    if keep_ms is None or stopped_by in FINAL or deployment.retired:
        return None
    now = context.clock.now()
    size = state_bytes(deployment.manifest, ticket.rows)
    if not context.kept.put(ticket.request_id, Kept(ticket, deployment, size, now + keep_ms / 1e3), now):
        return None
    _settle_down(ticket, keep_ms / 1e3, context)
    return keep_ms


def keep_on(
    request_id: str, kept: Kept, ticket: Ticket, stopped_by: StoppedBy | None, keep_ms: float | None, context: Context
) -> float | None:
    """What becomes of a state that `ticket` went on from; `stopped_by` is None if it got no answer.

    Without an answer the state stays for the time it had, as far as it has come.
    """
    # A ticket that was never admitted has taken nothing over.
    latest = kept.ticket if ticket.resumes is not None else ticket
    now = context.clock.now()
    if stopped_by is None:
        keep_ms = max(0.0, kept.expires - now) * 1e3
    elif stopped_by in FINAL:
        context.kept.finish(request_id, kept, "its last answer was final")
        return None
    elif keep_ms is None:
        context.kept.finish(request_id, kept, "it was continued without `keep_ms`")
        return None
    if not context.kept.give_back(request_id, kept, latest, now + keep_ms / 1e3):
        return None
    _settle_down(latest, keep_ms / 1e3, context)
    return keep_ms


def _settle_down(ticket: Ticket, keep_s: float, context: Context) -> None:
    """Free what the state does not need, and see to it that it goes in time."""
    context.worker.call(lambda: context.host.executor.detach(ticket))
    asyncio.get_running_loop().call_later(keep_s + LATE_S, lambda: context.kept.sweep(context.clock.now()))

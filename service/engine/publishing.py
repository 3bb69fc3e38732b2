"""What a member gave, to the requests of its step: their answers, who leaves with them, and what more is worth."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np

from bundle import Manifest
from service.engine.executor import Executor
from service.engine.outlook import Outlook
from service.engine.step import Step
from service.engine.ticket import Logits, Ticket

log = logging.getLogger(__name__)


def publish(
    step: Step, member: int, logits: Logits, manifest: Manifest, executor: Executor, without: Collection[Ticket] = ()
) -> list[Ticket]:
    """Hand each request its rows of a member of the step, which completes a prefix of its.

    Args:
        step: its tickets are at the depth of `member`.
        member: one of the step's.
        logits: what it gave, (rows, classes).
        manifest: of the step's model.
        executor: forgets the activations of rows that leave.
        without: tickets that get nothing.

    Returns:
        Those on whose rows the member gave no finite numbers; they have got nothing.
    """
    combine = manifest.members[member].combine
    finite = bool(np.isfinite(logits).all())
    answers: list[tuple[Ticket, Logits]] = []
    failed = []
    start = 0
    for ticket in step.tickets:
        own = logits[start : start + ticket.rows]
        start += ticket.rows
        if ticket in without:
            continue
        if not finite and not np.isfinite(own).all():
            log.warning("member %d of %s gave NaN or infinity", member, step.model)
            failed.append(ticket)
            continue
        # A member that runs what it missed of a stream has no answer yet, or nobody to give it to.
        if ticket.part is not None and not ticket.part.advance(member):
            continue
        if ticket.in_arrears:
            ticket.depth = member + 1
            continue
        answer = ticket.publish(member, own, combine)
        if not ticket.is_over:
            answers.append((ticket, answer))
    # Of a single request, and between the members of a step, nobody may want to know.
    wanted = len(answers) > 1 and member + 1 == step.members.stop
    if wanted or any(ticket.exit is not None for ticket, _ in answers):
        _look_ahead(answers, executor)
    return failed


def _look_ahead(answers: Sequence[tuple[Ticket, Logits]], executor: Executor) -> None:
    """Let confident rows leave where the request asked for it, and tell what further members are worth to others.

    All tickets are of one model and have just published the same prefix.
    """
    first = answers[0][0]
    profile, depth = first.profile, first.depth
    joined = answers[0][1] if len(answers) == 1 else np.concatenate([answer for _, answer in answers])
    certain = Outlook(profile, depth, joined, regression=first.task == "regression").confidences()
    start = 0
    for ticket, answer in answers:
        own = certain[start : start + len(answer)]
        start += len(answer)
        leaving = ticket.leaving(own)
        if leaving is not None:
            rows = np.flatnonzero(~leaving)
            ticket.retain(rows)
            executor.retain(ticket, rows)
            own = own[rows]
        ticket.outlook = profile.after(depth, own.tolist())

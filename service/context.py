"""What the routes share: made once by the composition root, found again from each request."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from service.deployments import Deployments
from service.engine.cost import CostModel
from service.engine.deadline import Clock
from service.engine.gate import Gate
from service.engine.host import Host
from service.engine.reserve import Reserve
from service.engine.worker import Worker
from service.ingress import Visit
from service.kept import KeptStates
from service.ledger import Ledger
from service.metrics import Metrics
from service.repository import Repository
from service.settings import Settings
from service.streams import Streams
from service.supervisor import Supervisor


@dataclass(slots=True)
class Context:
    """The running service."""

    settings: Settings
    clock: Clock
    deployments: Deployments
    host: Host
    repository: Repository
    kept: KeptStates
    supervisor: Supervisor
    costs: CostModel
    worker: Worker
    gate: Gate
    reserve: Reserve
    metrics: Metrics
    ledger: Ledger
    streams: Streams
    ready: bool = False
    """Whether all members have been measured."""
    draining: bool = False
    """Whether the service is stopping."""

    def answered(self, visit: Visit, now: float) -> None:
        """The last byte of an answer has been handed to the socket: learn from it, count it."""
        # What a client that does not read takes of its own time says nothing of anybody else's.
        if visit.decided is not None and not visit.held_up:
            self.reserve.observe(now - visit.decided, now)
        self.metrics.answered(visit, now)


def context_of(request: Request) -> Context:
    """The context that `create_app` has left on the application."""
    context: Context = request.app.state.context
    return context

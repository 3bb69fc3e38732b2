"""The composition root: what is made of what, and when it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Access
from service.context import Context
from service.deployments import Deployments
from service.engine.cost import CostModel
from service.engine.deadline import Clock, MonotonicClock
from service.engine.device import open_executor
from service.engine.executor import Executor
from service.engine.gate import Gate
from service.engine.host import Host
from service.engine.own_core import OwnCore
from service.engine.reserve import Reserve
from service.engine.scheduler import Scheduler
from service.engine.worker import Worker
from service.errors import (
    BodyTooLarge,
    InternalError,
    InvalidField,
    MethodNotAllowed,
    NotFound,
    Problem,
    problem_response,
)
from service.express import Express
from service.ingress import Ingress, visit_of
from service.kept import KeptStates
from service.ledger import Ledger
from service.metrics import Metrics
from service.openapi import describe
from service.repository import Repository
from service.routes import continuation, docs, feedback, health, models, predict, socket, stream
from service.settings import Settings
from service.streams import Streams
from service.supervisor import Supervisor

log = logging.getLogger(__name__)

WALKS = 20
"""Requests that each model answers before the service is ready."""


class Application(FastAPI):
    """FastAPI with something in front: as its middleware, that would come after FastAPI's own work on a request."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, WebSocket or lifespan."""
        scope["app"] = self
        await self.front(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI does."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    executor: Executor | None = None,
    new_executor: Callable[[], Executor] | None = None,
    registry: CollectorRegistry | None = None,
    clock: Clock | None = None,
    alone: bool = False,
) -> FastAPI:
    """The service over the bundles in `settings.models_dir`, all of them opened and checked.

    Args:
        settings: see `Settings`.
        executor: where members run; by default what `new_executor` opens.
        new_executor: opens another after the device thread has died; by default what `settings.device` says.
        registry: where the metrics go; by default one of its own.
        clock: the source of time; by default the system's monotonic clock.
        alone: whether it has the process to itself, and may say on which cores whose threads run; see `OwnCore`.

    Raises:
        BundleError: a bundle cannot be opened, or there is none.
        DeviceUnavailable: the wanted device cannot be had.
    """

    def on_the_device() -> Executor:
        return open_executor(
            settings.device,
            settings.cpu_threads or None,
            settings.gpu_member_mib * 2**20,
            side_by_side=settings.execution != "sequential",
        )

    replacement = new_executor or on_the_device
    context = _assemble(
        settings,
        executor or replacement(),
        replacement,
        Metrics(registry or CollectorRegistry()),
        clock or MonotonicClock(),
        alone=alone,
    )
    return _build(context, Access([key.get_secret_value() for key in settings.api_keys], settings.admin_port))


def _build(context: Context, access: Access) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.gate.open(asyncio.get_running_loop())
        context.worker.start()
        beside = asyncio.create_task(_run(context))
        yield
        context.draining = True
        beside.cancel()
        await asyncio.wait([beside])
        context.kept.clear("the service is stopping")
        await context.repository.close()
        await asyncio.to_thread(context.worker.stop)

    app = Application(title="anytime-distil", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.context = context
    for module in (predict, stream, continuation, socket, feedback, models, health, docs):
        app.include_router(module.router)
    for kind in (Problem, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer_with_problem)
    express = Express(
        app.framework,
        endpoints={
            "/predict": predict.predict,
            "/predict/stream": stream.predict_stream,
            "/predict/{request_id}/continue": continuation.continue_,
        },
        on_problem=_answer_with_problem,
        turns=context.gate.turns,
    )
    app.front = Ingress(
        express,
        clock=context.clock,
        access=access,
        max_body_bytes=context.settings.max_body_bytes,
        on_answered=context.answered,
        on_rejected=context.metrics.rejected,
    )
    describe(app)
    return app


def _assemble(
    settings: Settings,
    executor: Executor,
    new_executor: Callable[[], Executor],
    metrics: Metrics,
    clock: Clock,
    *,
    alone: bool,
) -> Context:
    deployments = Deployments.open(settings.models_dir, settings.models)
    costs = CostModel()
    gate = Gate(costs, clock, settings.max_queue_rows, settings.max_queue_ms / 1e3, settings.max_batch_rows)
    costs.watch(gate.turns)

    def new_scheduler() -> Scheduler:
        return Scheduler(costs, settings.max_batch_rows)

    supervisor = Supervisor(new_executor, new_scheduler)
    worker = Worker(executor, new_scheduler(), costs, clock, gate.post, metrics.steps.done, supervisor.died)
    if alone:
        worker.own_core = OwnCore(executor.threads, clock)
    for deployment in deployments.all():
        executor.load(deployment.key, deployment.bundle)
        worker.serve(deployment.key, deployment.manifest)
        metrics.serve(deployment.key, deployment.manifest)
        log.info("serving %s on %s", deployment.key, executor.provider)
    host = Host(executor, worker, costs, clock, settings.max_batch_rows, settings.cost_quantile, settings.execution)
    repository = Repository(settings.models_dir, settings.models, deployments, host, metrics)
    kept = KeptStates(settings.max_kept_requests, settings.max_kept_bytes, repository.hold, repository.release)
    ledger = Ledger(settings.feedback_requests)
    reserve = Reserve(settings.reserve_ms / 1e3)
    streams = Streams(settings.max_streams, settings.max_stream_bytes)
    context = Context(
        settings,
        clock,
        deployments,
        host,
        repository,
        kept,
        supervisor,
        costs,
        worker,
        gate,
        reserve,
        metrics,
        ledger,
        streams,
    )
    metrics.streams.watch(lambda: len(streams))
    metrics.watch(
        requests_in_flight=lambda: gate.requests_in_flight,
        rows_in_flight=lambda: gate.rows_in_flight,
        kept_requests=lambda: len(kept),
        kept_bytes=lambda: kept.size,
        ungraphed_members=lambda: host.executor.ungraphed,
        ready=lambda: context.ready,
        device_thread_alive=lambda: worker.alive,
    )
    return context


async def _warm_up(context: Context) -> None:
    """Measure the members and walk the HTTP path once; then the service is ready."""
    try:
        for deployment in context.deployments.all():
            await context.host.measure(deployment.key, deployment.bundle)
        await _walk(context)
    except Exception:
        # Never ready: the orchestrator sees it in /readyz and /healthz, the operator in the log.
        log.critical("warm-up failed; no request can be answered", exc_info=True)
        await asyncio.to_thread(context.worker.stop)
        return
    # What start-up has made lives as long as the process: spare the collector from visiting it during requests.
    gc.collect()
    gc.freeze()
    context.ready = True
    log.info("ready")


async def _run(context: Context) -> None:
    """What goes on beside the requests, from warm-up until the service stops."""
    await _warm_up(context)
    if not context.ready:
        return
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(context.supervisor.watch(context))
        if context.settings.models_poll_s:
            tasks.create_task(context.repository.poll_forever(context.settings.models_poll_s))


async def _walk(context: Context) -> None:
    """Send some requests through the whole application: the first ones cost tens of milliseconds more.

    They go to a twin of the application with metrics and ledger of its own, so that they are counted nowhere; it is
    open, whatever becomes of the service meanwhile.
    """
    twin = replace(context, metrics=Metrics(CollectorRegistry()), ledger=Ledger(0), ready=True, draining=False)
    for deployment in context.deployments.all():
        twin.metrics.serve(deployment.key, deployment.manifest)
    transport = httpx.ASGITransport(_build(twin, Access()))
    async with httpx.AsyncClient(transport=transport, base_url="http://warm-up") as client:
        for deployment in context.deployments.all():
            manifest = deployment.manifest
            zeros = np.zeros((1, *manifest.input.shape), manifest.input.dtype).tolist()
            request = {"inputs": zeros, "model": manifest.name, "version": manifest.version}
            for _ in range(WALKS):
                response = await client.post("/predict", json=request)
                if response.status_code == BodyTooLarge.status:
                    # Such samples come as .npy, if at all.
                    log.warning("one sample of %s as JSON exceeds max_body_bytes", deployment.key)
                    break
                response.raise_for_status()


async def _answer_with_problem(request: Request, error: Exception) -> Response:
    problem = _as_problem(error, request)
    visit = visit_of(request)
    request.app.state.context.metrics.rejected(problem.code)
    # Refusals are counted in the metrics; under overload, a line for each would only add to the load.
    level = logging.ERROR if problem.status == 500 else logging.DEBUG
    unexpected = error if isinstance(problem, InternalError) else None
    log.log(level, problem.detail, exc_info=unexpected, extra={"request_id": visit.request_id, "code": problem.code})
    return problem_response(problem, visit.request_id)


def _as_problem(error: Exception, request: Request) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return InvalidField(f"Field `{field}`: {first['msg']}.", field=field)
    if isinstance(error, HTTPException) and error.status_code == 405:
        refused = MethodNotAllowed(f"{request.url.path} does not take {request.method}; see /docs.")
        refused.headers.update(error.headers or {})
        return refused
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound(f"There is no {request.url.path} here; see /docs.")
    return InternalError()

"""Probes and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from service.context import context_of
from service.errors import ShuttingDown, WarmingUp
from service.routes.documented import problems
from service.schemas import Status

router = APIRouter()


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Is the process sound?", responses=problems(503))
async def health(request: Request) -> Status:
    """200 while the device thread lives or is being restarted; otherwise the process should be."""
    context = context_of(request)
    if not (context.worker.alive or context.supervisor.restarting):
        raise ShuttingDown("The device thread does not run: restart the service.", 1)
    return Status(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Should it get traffic?", responses=problems(503))
async def readiness(request: Request) -> Status:
    """200 once all members have been measured, until the service is told to stop."""
    context = context_of(request)
    if context.supervisor.restarting:
        raise WarmingUp("The device is being restarted.", 1)
    if context.draining or not context.worker.alive:
        raise ShuttingDown("The service is stopping.", 1)
    if not context.ready:
        raise WarmingUp("Members are being measured.", 1)
    return Status(status="ready")


TEXT = {"content": {"text/plain": {"schema": {"type": "string", "description": "Prometheus' text format."}}}}


@router.get(
    "/metrics", summary="Prometheus metrics", response_class=Response, responses=problems(401, 404) | {200: TEXT}
)
async def metrics(request: Request) -> Response:
    """All instruments in the Prometheus text format."""
    # Aside, because it takes milliseconds for each model, and deadlines come meanwhile.
    text = await asyncio.to_thread(generate_latest, context_of(request).metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)

"""What is served, how good each prefix is, how long each member takes here; and other versions brought in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from bundle import BundleError, BundleNotFound
from service.body import read_body
from service.context import Context, context_of
from service.deployments import Deployment
from service.engine.execution import Raced, Verdict
from service.engine.worker import WorkerStopped
from service.errors import BadBundle, InvalidField, NoSuchBundle, ShuttingDown
from service.model_schemas import (
    ExecutionCard,
    Heat,
    LoadFailure,
    MemberCard,
    ModelCard,
    ModelList,
    TogetherCard,
    VersionQuery,
)
from service.repository import without_folder
from service.routes.answering import check_open
from service.routes.documented import problems

router = APIRouter()


@router.get("/models", summary="All served bundles", responses=problems(401))
async def list_models(request: Request) -> ModelList:
    """Every served version of every bundle, and what could not be loaded."""
    context = context_of(request)
    return ModelList(
        models=[_card(deployment, context) for deployment in context.deployments.all()],
        failures=[
            LoadFailure(name=one.name, version=one.version, detail=one.detail) for one in context.repository.failures
        ],
    )


@router.get("/models/{name}", summary="One served bundle", responses=problems(401, 404, 422))
async def show_model(name: str, request: Request, query: Annotated[VersionQuery, Query()]) -> ModelCard:
    """The bundle in its highest served version, or in the one asked for."""
    context = context_of(request)
    return _card(context.deployments.find(name, query.version), context)


@router.post("/models/{name}/load", summary="Serve another version", responses=problems(401, 403, 404, 422, 503))
async def load_model(name: str, request: Request, query: Annotated[VersionQuery, Query()]) -> ModelCard:
    """Verify a version (the highest, unless another is asked for), measure it beside the traffic, and serve it.

    The answer comes when requests go to it. Those in flight end on the version they began with, and a bundle that is
    bad changes nothing.
    """
    context = context_of(request)
    await _check_no_body(request)
    check_open(context)
    try:
        deployment = await context.repository.load(name, query.version)
    except BundleNotFound as error:
        raise NoSuchBundle(without_folder(error, context.settings.models_dir)) from error
    except BundleError as error:
        raise BadBundle(without_folder(error, context.settings.models_dir)) from error
    except WorkerStopped as error:
        raise ShuttingDown("The device thread has ended: ask again when the service is ready.", 1) from error
    return _card(deployment, context)


@router.post("/models/{name}/unload", summary="Serve a bundle no more", responses=problems(401, 403, 404, 422, 503))
async def unload_model(name: str, request: Request, query: Annotated[VersionQuery, Query()]) -> ModelList:
    """Take no further request for a bundle (or one version of it): what is still served.

    Requests in flight are answered before it leaves the device; kept states of it can no longer be continued.
    """
    context = context_of(request)
    await _check_no_body(request)
    check_open(context)
    for deployment in context.repository.unload(name, query.version):
        context.kept.drop_of(deployment)
    return await list_models(request)


async def _check_no_body(request: Request) -> None:
    """Refuse a version where nobody looks for it."""
    if await read_body(request):
        raise InvalidField("The body must be empty: say the version in the query, as `?version=3`.", field="body")


def _card(deployment: Deployment, context: Context) -> ModelCard:
    manifest = deployment.manifest
    return ModelCard(
        name=manifest.name,
        version=manifest.version,
        ready=context.ready,
        provider=context.host.executor.provider,
        execution=_execution(context.host.verdicts.get(deployment.key), context),
        task=manifest.task,
        input=manifest.input,
        chunk_steps=manifest.chunk_steps,
        classes=list(manifest.classes),
        members=[
            MemberCard(
                index=member.index,
                flops=member.flops,
                parameters=member.parameters,
                combine=member.combine,
                reads_members=sorted({link.from_member for link in member.connections}),
                median_ms=(
                    round(context.costs.typical(deployment.key, member.index, 1) * 1e3, 4) if context.ready else None
                ),
            )
            for member in manifest.members
        ],
        prefixes=list(manifest.prefixes),
    )


def _execution(verdict: Verdict | None, context: Context) -> ExecutionCard | None:
    if verdict is None:
        return None
    return ExecutionCard(
        wanted=context.settings.execution,
        parallel=verdict.parallel,
        reason=verdict.reason,
        waves=[_together(one) for one in verdict.waves],
        groups=[_together(one) for one in verdict.groups],
    )


def _together(raced: Raced) -> TogetherCard:
    return TogetherCard(
        members=list(raced.members),
        heats=[
            Heat(
                rows=heat.rows,
                together_ms=round(heat.together_s * 1e3, 4),
                one_by_one_ms=round(heat.one_by_one_s * 1e3, 4),
                used=heat.rows in raced.used,
            )
            for heat in raced.heats
        ],
    )

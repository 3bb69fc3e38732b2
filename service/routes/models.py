"""GET /models: what is served, how good each prefix is, and how long each member takes here."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.context import Context, context_of
from service.deployments import Deployment
from service.routes.documented import problems
from service.schemas import MemberCard, ModelCard, ModelList

router = APIRouter()


@router.get("/models", summary="All served bundles", responses=problems(401))
async def list_models(request: Request) -> ModelList:
    """Every served version of every bundle."""
    context = context_of(request)
    return ModelList(models=[_card(deployment, context) for deployment in context.deployments.all()])


@router.get("/models/{name}", summary="One served bundle", responses=problems(401, 404, 422))
async def show_model(name: str, request: Request, version: int | None = None) -> ModelCard:
    """The bundle in its highest served version, or in the one asked for."""
    context = context_of(request)
    return _card(context.deployments.find(name, version), context)


def _card(deployment: Deployment, context: Context) -> ModelCard:
    manifest = deployment.manifest
    return ModelCard(
        name=manifest.name,
        version=manifest.version,
        ready=context.ready,
        provider=context.executor.provider,
        task=manifest.task,
        input=manifest.input,
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

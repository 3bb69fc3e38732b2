"""From a finished run to a bundle: export, measure as served, describe, write."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bundle import Bundle, Chunk, Evaluation, Manifest, Member, Prefix, Tensor, Training, write_bundle
from bundle.quality import MEASURES
from bundle.store import sha256
from training import flops
from training.bdistil import Outcome
from training.chunks import ChunkGraph, export_chunks
from training.ensemble import Ensemble
from training.export import INPUT, LOGITS, Graph, export_members
from training.game import Game
from training.quality import Quality, assess

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "scikit-learn", "scipy", "torch")


def publish(game: Game, outcome: Outcome, models: Path, recipe: str, teacher: Graph | None = None) -> Bundle:
    """Write the ensemble, and `teacher` as its last stage, as the next version of its name under `models`.

    The prefixes are measured on a draft in a temporary folder, through the same loop that any reader can run.

    Raises:
        ExportError: a graph does not compute what torch computes.
    """
    ensemble = outcome.ensemble.served(game.task)
    graphs = export_members(ensemble)
    members = describe_members(ensemble, graphs)
    files = {member.file: graph.content for member, graph in zip(members, graphs, strict=True)}
    if game.config.chunk_steps:
        chunks = export_chunks(ensemble, game.config.chunk_steps)
        files |= {_chunk_file(index): chunk.content for index, chunk in enumerate(chunks)}
        members = tuple(_with_chunk(member, chunk) for member, chunk in zip(members, chunks, strict=True))
    if teacher is not None:
        members = (*members, describe_teacher(game, teacher, len(members)))
        files[members[-1].file] = teacher.content
    with tempfile.TemporaryDirectory() as folder:
        draft = write_bundle(
            Path(folder),
            files,
            lambda version: _manifest(game, outcome, recipe, members, _unmeasured(game, members), version),
        )
        quality = assess(game, draft, [member.flops for member in members])
    return write_bundle(models, files, lambda version: _manifest(game, outcome, recipe, members, quality, version))


def describe_members(ensemble: Ensemble, graphs: Sequence[Graph]) -> tuple[Member, ...]:
    """The manifest entries, with FLOPs counted on the torch networks."""
    entries: list[Member] = []
    for index, (member, graph) in enumerate(zip(ensemble.members, graphs, strict=True)):
        network = member.network.cpu()
        earlier = [[tap.cpu() for tap in stage] for stage in ensemble.validation.read(member.sources, slice(0, 1))]
        cost = flops.count(network, ensemble.validation.x[:1].cpu(), earlier)
        entries.append(
            Member(
                index=index,
                file=f"member_{index:02d}.onnx",
                sha256=sha256(graph.content),
                connections=graph.connections,
                logits=LOGITS,
                outputs=graph.outputs,
                flops=cost.total,
                connection_flops=cost.connections,
                parameters=flops.parameters(network),
                round=member.round,
            )
        )
    return tuple(entries)


def describe_teacher(game: Game, graph: Graph, index: int) -> Member:
    """The manifest entry of the teacher behind `index` members: it reads none of them and replaces their answer."""
    known = game.target.teacher
    return Member(
        index=index,
        file=f"member_{index:02d}.onnx",
        sha256=sha256(graph.content),
        logits=LOGITS,
        combine="replace",
        outputs=graph.outputs,
        flops=known.flops or 0,
        parameters=known.parameters or 0,
    )


def _chunk_file(index: int) -> str:
    return f"member_{index:02d}_chunk.onnx"


def _with_chunk(member: Member, graph: ChunkGraph) -> Member:
    chunk = Chunk(
        file=_chunk_file(member.index),
        sha256=sha256(graph.content),
        connections=graph.connections,
        states=graph.states,
        logits=LOGITS,
        outputs=graph.outputs,
    )
    return member.model_copy(update={"chunk": chunk})


def _unmeasured(game: Game, members: Sequence[Member]) -> Quality:
    zeros = dict.fromkeys(MEASURES[game.data.task], 0.0)
    return Quality(
        tuple(Prefix.model_validate({"members": k, "flops_fraction": 0, **zeros}) for k in range(1, len(members) + 1))
    )


def _manifest(
    game: Game, outcome: Outcome, recipe: str, members: tuple[Member, ...], quality: Quality, version: int
) -> Manifest:
    config, data = game.config, game.data
    return Manifest(
        name=config.name,
        version=version,
        created=created(),
        task=data.task,
        input=Tensor.model_validate({"name": INPUT, "dtype": data.train.x.dtype.name, "shape": data.input_shape}),
        chunk_steps=config.chunk_steps or None,
        classes=data.classes,
        members=members,
        prefixes=quality.prefixes,
        evaluation=Evaluation(split="test", samples=len(data.test)),
        calibration=quality.calibration,
        exits=quality.exits,
        teacher=game.target.teacher,
        training=Training(
            recipe=recipe,
            config={**config.record(), "classes": [model_class.name for model_class in game.classes]},
            seed=config.seed,
            gamma=config.gamma,
            eta=game.eta,
            B=game.B,
            temperature=config.temperature,
            data_sha256=data.sha256(),
            teacher_sha256=game.teacher_sha256,
            packages=packages(),
            commit=commit(),
            stopped=outcome.stopped,
            refinement=outcome.refinement,
        ),
    )


def created() -> datetime:
    """Now, in whole seconds; SOURCE_DATE_EPOCH takes its place so that a run can be repeated to the bit."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC).replace(microsecond=0)


def packages() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The git commit of the trainer's sources, `-dirty` when they were changed since; None outside a checkout."""
    folder = Path(__file__).parent
    sources = (str(folder), str(folder.with_name("bundle")))

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a copy inside somebody else's checkout is not it
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *sources)
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None

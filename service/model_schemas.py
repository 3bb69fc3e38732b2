"""Answers about the bundles that are served."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bundle import Prefix, Tensor
from service.schema import Answered


class VersionQuery(BaseModel):
    """Which version of a bundle is meant."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1)] | None = None


class MemberCard(Answered):
    """One member as it runs here."""

    index: int
    flops: float
    parameters: int
    combine: Literal["mean", "replace"]
    reads_members: list[int]
    """Earlier members whose activations it reads."""
    median_ms: float | None
    """Measured at warm-up on one row; null until then."""


class Heat(Answered):
    """Members on zeros at warm-up, at one batch size: medians."""

    rows: int
    together_ms: float
    """Side by side or in one go."""
    one_by_one_ms: float
    used: bool
    """Whether batches up to this size, and above the one before, may be run together."""


class TogetherCard(Answered):
    """Members that follow each other."""

    members: list[int]
    heats: list[Heat]


class ExecutionCard(Answered):
    """Whether members run together: side by side, or in one go."""

    wanted: Literal["sequential", "parallel", "auto"]
    """The setting ANYTIME_EXECUTION."""
    parallel: bool
    """Whether any run side by side."""
    reason: str
    """Why so, in one sentence."""
    waves: list[TogetherCard]
    """Those without a path between them, side by side: what was measured, if anything."""
    groups: list[TogetherCard]
    """Small ones, in one go: what was measured, if anything."""


class ModelCard(Answered):
    """A served bundle."""

    name: str
    version: int
    ready: bool
    provider: str
    """onnxruntime's execution provider: where the members run."""
    execution: ExecutionCard | None
    """Null until the members have been measured."""
    task: str
    input: Tensor
    chunk_steps: int | None
    """Steps of a chunk of GET /stream; null: the model takes no stream."""
    classes: list[str]
    members: list[MemberCard]
    prefixes: list[Prefix]
    """Quality of each prefix on the held-out split."""


class LoadFailure(Answered):
    """A version that was to be served and is not."""

    name: str
    version: int | None
    detail: str
    """One sentence that says what is wrong with the bundle."""


class ModelList(Answered):
    """All served bundles."""

    models: list[ModelCard]
    failures: list[LoadFailure] = []
    """Of each name, the latest attempt to load it, if that failed; what was served before still is."""

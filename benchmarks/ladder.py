"""Accuracy against deadline, as a client sees it: a held-out set sent whole, at a ladder of deadlines.

The ladder is laid by the server's own speed: requests for the first k members tell how long a prefix takes, and
the rungs go from too short for the first member to generous for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.server import Reply, body
from benchmarks.table import percentile, render

PROBES = 15
"""Requests that time each prefix."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What came of the requests at one deadline."""

    deadline_ms: float
    replies: list[Reply]
    labels: npt.NDArray[Any]

    @property
    def answered(self) -> list[Reply]:
        """Replies that hold a prediction."""
        return [reply for reply in self.replies if reply.status == 200]

    @property
    def members(self) -> float | None:
        """Mean number of members in an answer."""
        used = [reply.document["members_used"] for reply in self.answered]
        return float(np.mean(used)) if used else None

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions over the answers."""
        right = [
            np.mean([one["index"] for one in reply.document["predictions"]] == self.labels) for reply in self.answered
        ]
        return float(np.mean(right)) if right else None

    @property
    def met(self) -> float:
        """Share of requests whose answer, or refusal, the client had read by the deadline."""
        return float(np.mean([reply.seconds * 1e3 <= self.deadline_ms for reply in self.replies]))

    def latency_ms(self, share: float) -> float:
        """Quantile of the client's waiting time."""
        return percentile([reply.seconds * 1e3 for reply in self.replies], share)


class Asked(Protocol):
    """Who is asked: a connection to a server."""

    def predict(self, body: bytes, /) -> Reply:
        """Its answer to a prepared body."""


def prefix_ms(wire: Asked, inputs: npt.NDArray[Any], members: int) -> list[float]:
    """Median milliseconds until the answer of each prefix, without a deadline."""

    def median(k: int) -> float:
        request = body(inputs, max_members=k)
        return percentile([wire.predict(request).seconds * 1e3 for _ in range(PROBES)], 0.5)

    return [median(k) for k in range(1, members + 1)]


def deadlines_ms(prefixes_ms: list[float], reserve_ms: float) -> list[float]:
    """The rungs: half of the first prefix, even steps from the first to the last, and twice the last."""
    first, last = min(prefixes_ms), max(prefixes_ms)
    steps = np.linspace(first + reserve_ms, 1.1 * last + reserve_ms, len(prefixes_ms)).tolist()
    return [round(rung, 1) for rung in (0.5 * first, *steps, 2 * last + reserve_ms)]


def climb(
    wire: Asked,
    inputs: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    deadlines: list[float],
    requests: int,
    track: Callable[[Iterator[float]], Iterator[float]] = lambda steps: steps,
) -> list[Rung]:
    """Send the whole set `requests` times at each deadline, the deadlines in turn."""
    bodies = {deadline: body(inputs, deadline_ms=deadline) for deadline in deadlines}
    rungs = {deadline: Rung(deadline, [], labels) for deadline in deadlines}
    for deadline in track(deadline for _ in range(requests) for deadline in deadlines):
        rungs[deadline].replies.append(wire.predict(bodies[deadline]))
    return list(rungs.values())


def summarise(rungs: list[Rung]) -> str:
    """The table."""
    return render(
        ("deadline ms", "answered", "members used", "accuracy", "p50 ms", "p99 ms", "deadlines met"),
        (
            (
                f"{rung.deadline_ms:g}",
                f"{len(rung.answered)}/{len(rung.replies)}",
                "-" if rung.members is None else f"{rung.members:.2f}",
                "-" if rung.accuracy is None else f"{100 * rung.accuracy:.2f} %",
                f"{rung.latency_ms(0.5):.1f}",
                f"{rung.latency_ms(0.99):.1f}",
                f"{100 * rung.met:.1f} %",
            )
            for rung in rungs
        ),
    )

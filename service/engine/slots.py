"""Fixed memory for batches: what a CUDA graph needs, because it is replayed on the addresses it was captured on.

A step of n rows runs in the smallest *bucket* that holds them; rows beyond n are padding that nobody reads. For each
model and bucket there is one *slot*: a tensor for the input, and one for each output that a later member or the
caller reads. The tensor that member k writes is the one that member k + 1 reads, so while the same requests step
together nothing is copied. When others take their place, whoever still needs rows there moves out first; see
`DeviceExecutor`.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle import Manifest
from service.engine.ticket import Ticket
from service.engine.wiring import outputs_read_later

Key = tuple[int, str]
"""Member and output."""

INPUT: Key = (-1, "input")
"""The bundle's own input among the tensors of a slot."""

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
PLAIN_RUNS = 2
"""Runs before a capture: the first chooses kernels, the second may still allocate."""


def bucket_of(rows: int, buckets: Sequence[int] = BUCKETS) -> int | None:
    """The smallest bucket that holds `rows`; None if none does."""
    position = bisect_left(buckets, rows)
    return buckets[position] if position < len(buckets) else None


def padded(rows: Iterable[int], bucket: int) -> list[int]:
    """Row numbers, filled up to `bucket` with the first of them: padding must hold numbers that occur."""
    chosen = list(rows)
    return chosen + chosen[:1] * (bucket - len(chosen))


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Rows of a tensor on the device."""

    tensor: ort.OrtValue
    start: int
    stop: int


def consecutive(parts: Sequence[DeviceRows]) -> list[DeviceRows]:
    """Parts that follow each other in the same tensor become one."""
    runs: list[DeviceRows] = []
    for part in parts:
        if runs and runs[-1].tensor is part.tensor and runs[-1].stop == part.start:
            runs[-1] = DeviceRows(part.tensor, runs[-1].start, part.stop)
        else:
            runs.append(part)
    return runs


class Captures:
    """Which graph id a run of one member must carry: none (-1), or that of its slot to capture it or to replay it.

    Graphs are captured in rehearsals only: while one is, no other thread may open a session, and no request has the
    time for it. Buckets that are not rehearsed go without.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.captured: set[int] = set()
        """Buckets whose graphs are there to be replayed."""
        self._plain: dict[int, int] = {}

    def next_id(self, slot: Slot, *, rehearsing: bool) -> int:
        """The id for the next run in this slot."""
        if not self.enabled:
            return -1
        if slot.bucket in self.captured:
            return slot.graph_id
        done = self._plain.get(slot.bucket, 0)
        if done < PLAIN_RUNS:
            self._plain[slot.bucket] = done + 1
            return -1
        return slot.graph_id if rehearsing else -1


class Slot:
    """The tensors of one model at one bucket, and whose rows are in them.

    Args:
        manifest: of the model.
        bucket: rows of every tensor.
        ordinal: of the slot in its model; distinguishes its graphs.
        device: onnxruntime's name of the memory.
    """

    def __init__(self, manifest: Manifest, bucket: int, ordinal: int, device: str) -> None:
        self.bucket = bucket
        # 0 is the id that onnxruntime takes for "not said".
        self.graph_id = ordinal + 1
        self.tensors: dict[Key, ort.OrtValue] = {}
        shapes = {INPUT: (manifest.input.dtype, manifest.input.shape)}
        for member in manifest.members:
            for output in member.outputs:
                if output.name == member.logits or output.name in outputs_read_later(manifest.members, member.index):
                    shapes[member.index, output.name] = (output.dtype, output.shape)
        for key, (dtype, shape) in shapes.items():
            zeros = np.zeros((bucket, *shape), dtype)
            self.tensors[key] = ort.OrtValue.ortvalue_from_numpy(zeros, device, 0)
        # Weak, because a request that is answered must not live on here until others come by.
        self._residents: dict[Key, list[weakref.ref[Ticket]]] = {}

    def residents(self, key: Key) -> list[Ticket]:
        """The live requests whose rows are in a tensor, in the order of the rows."""
        return [ticket for ticket in (ref() for ref in self._residents.get(key, ())) if ticket is not None]

    def holds(self, key: Key, tickets: Sequence[Ticket]) -> bool:
        """Whether a tensor holds just the rows of these requests, from row 0 on."""
        # Whoever is gone still takes up rows: those after it do not begin where they would without it.
        return [ref() for ref in self._residents.get(key, ())] == list(tickets)

    def settle(self, key: Key, tickets: Sequence[Ticket]) -> None:
        """A tensor now holds the rows of these requests, from row 0 on."""
        self._residents[key] = [weakref.ref(ticket) for ticket in tickets]

    def rows_of(self, key: Key, tickets: Sequence[Ticket]) -> list[DeviceRows]:
        """Where each request's rows are, once they have settled."""
        stops = np.cumsum([ticket.rows for ticket in tickets]).tolist()
        return [
            DeviceRows(self.tensors[key], stop - ticket.rows, stop) for ticket, stop in zip(tickets, stops, strict=True)
        ]

    def fill(self, key: Key, array: npt.NDArray[Any]) -> None:
        """Bring rows from the host, padded to the bucket."""
        rows = array[padded(range(len(array)), self.bucket)] if len(array) < self.bucket else array
        self.tensors[key].update_inplace(np.ascontiguousarray(rows))

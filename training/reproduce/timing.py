"""Measured time of an answer: onnxruntime on one thread of the CPU, batch by batch.

The fastest of many runs is taken, because whatever else the machine does can only make one slower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn

from training.baselines import Answer
from training.ensemble import Ensemble, Features, TrainedMember
from training.export import export_member, export_plain

BATCHES = (1, 64)
"""Samples in one run."""
RUNS, LONG_ENOUGH_S = 30, 0.2
"""A graph is run at least so often, and at least so long."""

Array = npt.NDArray[Any]
Times = dict[str, float]
"""Milliseconds of one run, by batch size as JSON has it."""


class Stopwatch:
    """Times networks; those of one structure once, because weights do not change what is computed."""

    def __init__(self, x: Array) -> None:
        self._x = x
        self._known: dict[str, Times] = {}

    def answers(self, answers: Sequence[Answer]) -> list[Times]:
        """All networks of each answer, one after the other."""
        return [total([self._network(network) for network in answer]) for answer in answers]

    def prefixes(self, ensemble: Ensemble) -> list[Times]:
        """The first k members with their connections, for each k, as the graphs of the whole ensemble are served."""
        read = {source for member in ensemble.members for source in member.sources}
        members = [
            self.member(ensemble.validation, member, taps=index in read)
            for index, member in enumerate(ensemble.members)
        ]
        return [total(members[:k]) for k in range(1, len(members) + 1)]

    def member(self, features: Features, member: TrainedMember, *, taps: bool) -> Times:
        """One member with its connections.

        Args:
            features: hold what it reads.
            member: its network and whom it reads.
            taps: whether others read it, so that its graph gives its taps, which takes time too.
        """
        structure = f"{len(member.sources)} {taps} {member.network!r}"
        if structure not in self._known:
            graph = export_member(features, 0, member, taps=taps)
            links = [tap for stage in features.read(member.sources, slice(0, max(BATCHES))) for tap in stage]
            self._known[structure] = self.times(graph.content, [self._x, *(tap.cpu().numpy() for tap in links)])
        return self._known[structure]

    def times(self, content: bytes, inputs: Sequence[Array]) -> Times:
        """One graph on the first rows of its inputs, repeated where there are too few."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [edge.name for edge in session.get_inputs()]
        times = Times()
        for batch in BATCHES:
            rows = [np.resize(value, (batch, *value.shape[1:])) for value in inputs]
            times[str(batch)] = fastest_ms(session, dict(zip(names, rows, strict=True)))
        return times

    def _network(self, network: nn.Module) -> Times:
        structure = repr(network)
        if structure not in self._known:
            content = export_plain(network, torch.from_numpy(self._x[:2]))
            self._known[structure] = self.times(content, [self._x])
        return self._known[structure]


def fastest_ms(session: ort.InferenceSession, feed: dict[str, Array]) -> float:
    """Milliseconds of the fastest run."""
    best, runs, end = math.inf, 0, time.perf_counter() + LONG_ENOUGH_S
    while runs < RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return 1e3 * best


def total(times: Sequence[Times]) -> Times:
    """One after the other."""
    return {str(batch): sum(one[str(batch)] for one in times) for batch in BATCHES}

"""The members found so far, frozen, with everything of them that later rounds read.

Earlier members do not run again during training: their taps on the training and validation samples are kept, and the
cumulative residual S says all that the weights need. Where the training samples look different in every epoch
(:mod:`training.views`) kept taps would be of no use, and those members run again, without gradients.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bundle import Round
from training import boosting
from training.errors import TrainingError
from training.networks import RecurrentNetwork, StagedNetwork
from training.tasks import Task

BATCH = 256
"""Samples in one evaluation step; fixed, so that a resumed run repeats its sums to the bit."""


@dataclass(frozen=True, slots=True)
class TrainedMember:
    """A frozen member, the earlier members that it reads, and how its round went."""

    network: StagedNetwork
    sources: tuple[int, ...]
    model_class: int
    """Position of its class in the run's list."""
    round: Round


class Features:
    """Stored taps of every member on one part of the data."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._taps: dict[int, list[Tensor]] = {}

    def add(self, index: int, taps: list[Tensor]) -> None:
        """Keep the taps of member `index`: for each stage (N, ...)."""
        self._taps[index] = taps

    def read(self, sources: Sequence[int], batch: Tensor | slice) -> list[list[Tensor]]:
        """For each stage the taps of `sources` on the samples of `batch`; empty without sources.

        Raises:
            TrainingError: a source was never evaluated, so the order of the members is broken.
        """
        missing = [source for source in sources if source not in self._taps]
        if missing:
            raise TrainingError(f"Member {missing[0]} is read by a later one, but was not evaluated before it.")
        per_source = [[tap[batch] for tap in self._taps[source]] for source in sources]
        return [list(stage) for stage in zip(*per_source, strict=True)]

    def extend(self, member: TrainedMember) -> Tensor:
        """Logits of the next member on all samples; what later ones read of it is kept."""
        logits_NL, taps = self.evaluate(member.network, member.sources)
        self.add(len(self._taps), taps)
        return logits_NL

    def evaluate(self, network: StagedNetwork, sources: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Logits and taps of `network` on all samples, in eval mode and without gradients.

        A network that was in training mode is put back into it.
        """
        parts = list(self._parts(network, sources))
        taps = [torch.cat(stage) for stage in zip(*(taps for _, taps in parts), strict=True)]
        return torch.cat([logits for logits, _ in parts]), taps

    def logits(self, network: StagedNetwork, sources: Sequence[int]) -> Tensor:
        """The logits alone, so that no more than one batch of taps exists at a time."""
        return torch.cat([logits for logits, _ in self._parts(network, sources)])

    def _parts(self, network: StagedNetwork, sources: Sequence[int]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        training = network.training
        network.eval()
        with torch.no_grad():
            for start in range(0, len(self.x), BATCH):
                batch = slice(start, start + BATCH)
                yield network(self.x[batch], self.read(sources, batch))
        network.train(training)


class Recomputed(Features):
    """Taps that are computed again from the samples whenever they are read: memory for one batch, not for all."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self._members: list[TrainedMember] = []

    def extend(self, member: TrainedMember) -> Tensor:
        """As :meth:`Features.extend`, but what is kept is the member."""
        logits_NL = self.logits(member.network, member.sources)
        self._members.append(member)
        return logits_NL

    def read(self, sources: Sequence[int], batch: Tensor | slice) -> list[list[Tensor]]:
        """As :meth:`Features.read`."""
        if not sources:
            return []
        return run_members(self._members[: max(sources) + 1], self.x[batch]).read(sources)


@dataclass(frozen=True, slots=True)
class Run:
    """What some first members say about a batch."""

    logits: list[Tensor]
    """Of each member (n, L)."""
    taps: list[list[Tensor]]
    """Of each member and stage (n, ...)."""

    def read(self, sources: Sequence[int]) -> list[list[Tensor]]:
        """For each stage the taps of `sources`; empty without sources."""
        return [list(stage) for stage in zip(*(self.taps[source] for source in sources), strict=True)]


def run_members(members: Sequence[TrainedMember], x: Tensor) -> Run:
    """Run the first members of an ensemble on raw samples x, each once and in order, without gradients."""
    run = Run([], [])
    with torch.no_grad():
        for member in members:
            logits_NL, taps = member.network(x, run.read(member.sources))
            run.logits.append(logits_NL)
            run.taps.append(taps)
    return run


class Ensemble:
    """Ordered members with their stored features and cumulative residuals on training and validation samples."""

    def __init__(self, train: Features, validation: Features, train_NL: Tensor, validation_NL: Tensor) -> None:
        self.train, self.validation = train, validation
        self.teacher_train_NL, self.teacher_validation_NL = train_NL, validation_NL
        self.members: list[TrainedMember] = []
        self.S_train_NL = torch.zeros_like(train_NL, dtype=torch.float64)
        self.S_validation_NL = torch.zeros_like(validation_NL, dtype=torch.float64)
        self._log_Z: Tensor | None = None

    def __len__(self) -> int:
        return len(self.members)

    def served(self, task: Task) -> Ensemble:
        """The same members with their outputs as they are served; features and residuals are shared."""
        served = copy.copy(self)
        served.members = [dataclasses.replace(one, network=task.served(one.network)) for one in self.members]
        return served

    def add(self, member: TrainedMember) -> None:
        """Append a frozen member: keep what later ones read of it, add its residuals to S."""
        for features, S_NL, teacher_NL in (
            (self.train, self.S_train_NL, self.teacher_train_NL),
            (self.validation, self.S_validation_NL, self.teacher_validation_NL),
        ):
            S_NL.add_(features.extend(member).double() - teacher_NL)
        self.members.append(member)
        self._log_Z = None

    def log_Z(self, eta: float) -> Tensor:
        """:func:`training.boosting.log_normaliser` of the training residuals, (L,); computed once a round."""
        if self._log_Z is None:
            self._log_Z = boosting.log_normaliser(self.S_train_NL, eta)
        return self._log_Z

    def S_of_steps(self, batch: Tensor) -> Tensor:
        """(N, T, L): the cumulative residual after every step of the training sequences of `batch`.

        Taken from the stored taps, because keeping it for all samples would need T times the memory of S. Zeros of
        shape (1, 1, 1) while there is no member.
        """
        total = torch.zeros(1, 1, 1, device=self.train.x.device)
        teacher_N1L = self.teacher_train_NL[batch].unsqueeze(1)
        for index, member in enumerate(self.members):
            if not isinstance(member.network, RecurrentNetwork):
                raise TypeError("only recurrent members answer after every step")
            with torch.no_grad():
                taps = [tap for (tap,) in self.train.read((index,), batch)]
                total = total + member.network.logits_of_steps(taps) - teacher_N1L
        return total

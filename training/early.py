"""Early classification of sequences: the loss that asks for it, and what can be said after how many steps.

The loss is EMI-RNN's (Dennis et al., 2018, Eq. 3.2.1): one classifier, shared by all steps, is judged after every step
against what is known of the whole sequence; its mean over batch and steps is L_task of Eq. 6. E-RNN takes the label
for that, B-DISTIL the teacher's logits at the end.

A sequence is looked at after every chunk of steps and leaves at the first look whose largest probability reaches a
threshold, or else at the end. The threshold is fixed on validation samples, and so is a temperature for each look:
what learnt from a teacher's logits is as sure as those are, early and late, and one threshold is for all looks.

Shape suffixes: N samples, T steps, K looks, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.calibrate import fit_temperature
from training.config import Config, Steps
from training.data import Data, Split
from training.ensemble import Ensemble, Features
from training.errors import BadConfig
from training.evaluate import log_softmax
from training.networks import LogitsOnly, ModelClass, Recurrent, RecurrentNetwork, StagedNetwork

FRACTIONS = (0.5, 0.75, 1.0)
"""Of the steps, as in Table 1."""
TOLERANCE = 0.005
"""Accuracy on validation that leaving early may cost, against waiting for the end."""
GRID = np.concatenate([np.linspace(0.3, 0.95, 66), np.linspace(0.955, 0.999, 45)])
"""Thresholds that are tried."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Instant:
    """What is known when a share of the steps has been seen."""

    fraction: float
    steps: int
    forced: float
    """Accuracy when everybody is answered now, without a threshold."""
    exited: float
    """Share that has left by now."""
    exited_accuracy: float | None
    """Accuracy of those; None if nobody left."""
    accuracy: float
    """Accuracy when those who have left by now keep that answer and all others wait for the end."""


@dataclass(frozen=True, slots=True)
class Early:
    """A row of Table 1."""

    threshold: float
    instants: tuple[Instant, ...]


def check_judged_steps(config: Config, classes: Sequence[ModelClass]) -> None:
    """Whether what `judged_steps` asks for can be had.

    Raises:
        BadConfig: members that answer only once.
    """
    other = next((model_class for model_class in classes if not isinstance(model_class, Recurrent)), None)
    if config.judged_steps == "every" and other is not None:
        raise BadConfig(f"judged_steps=every is for recurrent members only, and {other.name} is none.")


def judged(which: Steps, network: StagedNetwork, logits_NL: Tensor, taps: Sequence[Tensor]) -> Tensor:
    """What the task loss judges: the logits (N, L), or those after every step (N, T, L)."""
    return logits_NL if which == "last" else steps_of(network, taps)


def answer(which: Steps, network: nn.Module, x: Tensor) -> Tensor:
    """What is judged of a network with plain logits on raw samples."""
    if which == "last":
        logits_NL: Tensor = network(x)
        return logits_NL
    if not isinstance(network, LogitsOnly):
        raise TypeError("only a recurrent network answers after every step")
    return steps_of(network.network, network.network(x)[1])


def by_step(outputs: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    """Every step as a sample of its own: (N, T, L) to (N T, L), and what is `given` for a sample for each of its steps.

    What has no steps, (N, L), stays as it is. A mean over samples is so the mean over batch and steps.
    """
    if outputs.ndim == 2:
        return outputs, *given
    steps = outputs.shape[1]
    return outputs.flatten(0, 1), *(value.repeat_interleave(steps, dim=0) for value in given)


def steps_of(network: StagedNetwork, taps: Sequence[Tensor]) -> Tensor:
    """Logits after every step (N, T, L) of a recurrent network, from its taps."""
    if not isinstance(network, RecurrentNetwork):
        raise TypeError("only a recurrent network answers after every step")
    return network.logits_of_steps(taps)


def look(network: RecurrentNetwork, split: Split, every: int) -> Array:
    """Logits (N, K, L) of a single network after each `every` steps of raw sequences, which are whole frames."""
    device = next(network.parameters()).device
    _, taps = Features(torch.from_numpy(split.x).to(device)).evaluate(network, ())
    with torch.no_grad():
        logits_NTL = network.logits_of_steps(taps)
    return logits_NTL[:, _frames(network, every)].cpu().numpy()


def look_ensemble(ensemble: Ensemble, split: Split, every: int) -> list[Array]:
    """For each prefix its running average (N, K, L) after each `every` steps, which are whole frames."""
    device = ensemble.train.x.device
    features, averages = Features(torch.from_numpy(split.x).to(device)), list[Array]()
    total: Array = np.zeros(1, np.float32)
    for index, member in enumerate(ensemble.members):
        _, taps = features.evaluate(member.network, member.sources)
        features.add(index, taps)
        with torch.no_grad():
            looked_at = [tap[:, _frames(member.network, every)] for tap in taps]
            total = total + steps_of(member.network, looked_at).cpu().numpy()
        averages.append(total / np.float32(index + 1))
    return averages


def _frames(network: StagedNetwork, every: int) -> slice:
    """Which frames end where somebody looks."""
    frame = network.frame if isinstance(network, RecurrentNetwork) else 1
    if every % frame:
        raise BadConfig(f"A network that reads {frame} steps at once cannot be looked at after every {every}.")
    return slice(every // frame - 1, None, every // frame)


def choose_threshold(logits_NKL: Array, y: Array, tolerance: float = TOLERANCE) -> float:
    """The lowest threshold at which leaving early costs at most `tolerance` of the accuracy at the end.

    Give it validation samples: on test samples it would choose what it is then praised for. 1 if there is none.
    """
    confidence_NK, right_NK = _judge(logits_NKL, y)
    wanted = right_NK[:, -1].mean() - tolerance
    for threshold in GRID:
        if _accuracy(confidence_NK, right_NK, threshold, right_NK.shape[1]) >= wanted:
            return float(threshold)
    return 1.0


def early_row(data: Data, validation_NKL: Array, test_NKL: Array, every: int) -> Early:
    """The row of Table 1 for one model, from the test part; its temperatures and threshold are fixed on validation.

    Args:
        data: whose labels are compared with.
        validation_NKL: logits after each `every` steps, see :func:`look` and :func:`look_ensemble`.
        test_NKL: the same on the test part.
        every: steps between two looks.
    """
    temperatures_K1 = temperatures(validation_NKL, data.validation.y)[:, None]
    threshold = choose_threshold(validation_NKL / temperatures_K1, data.validation.y)
    return measure_early(test_NKL / temperatures_K1, data.test.y, threshold, every)


def temperatures(logits_NKL: Array, y: Array) -> Array:
    """(K,): for each look the temperature that makes its probabilities believable, see :mod:`training.calibrate`."""
    return np.array([fit_temperature(logits_NKL[:, look], y) for look in range(logits_NKL.shape[1])])


def measure_early(logits_NKL: Array, y: Array, threshold: float, every: int) -> Early:
    """What can be said of samples at each of FRACTIONS of the steps.

    Args:
        logits_NKL: after each `every` steps.
        y: labels (N,).
        threshold: fixed beforehand, see :func:`choose_threshold`.
        every: steps between two looks.
    """
    confidence_NK, right_NK = _judge(logits_NKL, y)
    looks = right_NK.shape[1]
    return Early(
        threshold, tuple(_instant(confidence_NK, right_NK, threshold, every, part * looks) for part in FRACTIONS)
    )


def _instant(confidence_NK: Array, right_NK: Array, threshold: float, every: int, looks: float) -> Instant:
    seen, total = max(1, int(looks)), right_NK.shape[1]
    first_N = _first(confidence_NK, threshold)
    gone = first_N < seen if seen < total else np.ones(len(first_N), np.bool_)
    answers_N = right_NK[np.arange(len(first_N)), np.minimum(first_N, total - 1)]
    return Instant(
        fraction=looks / total,
        steps=seen * every,
        forced=float(right_NK[:, seen - 1].mean()),
        exited=float(gone.mean()),
        exited_accuracy=float(answers_N[gone].mean()) if gone.any() else None,
        accuracy=_accuracy(confidence_NK, right_NK, threshold, seen),
    )


def _judge(logits_NKL: Array, y: Array) -> tuple[Array, Array]:
    """Largest probability, and whether the answer is right, after each look."""
    samples, looks, labels = logits_NKL.shape
    flat = logits_NKL.reshape(samples * looks, labels)
    confidence = np.exp(log_softmax(flat).max(axis=1)).reshape(samples, looks)
    return confidence, (logits_NKL.argmax(axis=2) == y[:, None]).astype(np.float64)


def _first(confidence_NK: Array, threshold: float) -> Array:
    """The first look at which a sample leaves; K if at none."""
    leaves_NK = confidence_NK >= threshold
    first_N: Array = np.where(leaves_NK.any(axis=1), leaves_NK.argmax(axis=1), leaves_NK.shape[1])
    return first_N


def _accuracy(confidence_NK: Array, right_NK: Array, threshold: float, looks: int) -> float:
    """When samples may leave in the first `looks` looks only, and wait for the end otherwise."""
    first_N = _first(confidence_NK[:, :looks], threshold)
    taken_N = np.where(first_N < looks, first_N, right_NK.shape[1] - 1)
    return float(right_NK[np.arange(len(taken_N)), taken_N].mean())

"""What a run is known by: the same for the same, in any process and any layout, another for anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tests.training.toy import CONFIG, toy_data
from training import FullyConnected, Logits
from training.fingerprint import fingerprint, teacher_sha256

CLASSES = [FullyConnected(widths=(5, 4))]


def test_anything_that_a_result_follows_from_makes_another_fingerprint():
    data, logits = toy_data()
    other = toy_data(1)[0]
    settings = CONFIG.record()
    found = [
        fingerprint("toy", settings, data, CLASSES, logits),
        fingerprint("search", settings, data, CLASSES, logits),
        fingerprint("toy", {**settings, "epochs": 9}, data, CLASSES, logits),
        fingerprint("toy", settings, other, CLASSES, logits),
        fingerprint("toy", settings, data, [*CLASSES, FullyConnected(widths=(5, 4), blocks=2)], logits),
        fingerprint("toy", settings, data, CLASSES, dataclasses.replace(logits, test=logits.test + 1)),
        fingerprint("toy", settings, data, CLASSES, CLASSES[0]),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint("toy", settings, *toy_data()[:1], list(CLASSES), toy_data()[1]) == found[0]


class Described:
    """A model class of somebody's own, without a repr."""

    name = "own"


def test_a_class_without_a_repr_is_known_by_its_name():
    data, logits = toy_data()
    one, same = (fingerprint("toy", {}, data, [Described()], logits) for _ in range(2))
    assert one == same, "not by its address, which the next process does not have"


@dataclasses.dataclass(frozen=True)
class Made:
    """A model class of somebody's own, with a function in a field."""

    make: Callable[[int], nn.Module]
    width: int = 2
    name: str = "made"


def test_a_function_in_a_field_is_known_by_its_name():
    data, logits = toy_data()
    one, same, other = (
        fingerprint("toy", {}, data, [Made(make, width)], logits)
        for make, width in ((lambda n: nn.Linear(n, n), 2), (lambda n: nn.Linear(n, n), 2), (nn.Identity, 3))
    )
    assert one == same
    assert other != one


def test_weights_in_tuples_are_seen():
    class Packed(nn.Module):
        def __init__(self, *packed: torch.Tensor) -> None:
            super().__init__()
            self.packed = packed

        def get_extra_state(self) -> object:
            return self.packed[0], [self.packed[1]]

    one, same, other = (teacher_sha256(Packed(torch.ones(2), torch.full((2,), last))) for last in (1.0, 1.0, 2.0))
    assert one == same != other


def test_logits_are_known_by_their_values_in_any_layout():
    logits = toy_data()[1]
    for dtype in (">f8", "=f8"):
        changed = Logits(**{name: np.asfortranarray(getattr(logits, name), dtype) for name in FIELDS})
        assert teacher_sha256(changed) == teacher_sha256(logits)
    assert teacher_sha256(dataclasses.replace(logits, train=logits.train.astype(np.float32))) != teacher_sha256(logits)


FIELDS = [field.name for field in dataclasses.fields(Logits)]


def test_a_network_is_known_by_every_tensor_of_its_state():
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2).bfloat16(), nn.BatchNorm1d(2), nn.LazyLinear(4))

    known = teacher_sha256(network())
    assert teacher_sha256(network().train(False)) == known
    changed = network()
    changed[1].running_mean += 1
    assert teacher_sha256(changed) != known

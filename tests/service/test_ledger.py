from __future__ import annotations

import numpy as np

from bundle import Bundle
from service.deployments import Deployment
from service.ledger import Answered, Ledger


def answered(bundle: Bundle) -> Answered:
    return Answered(Deployment.of(bundle), (np.array([0]),), np.array([1]))


def test_the_oldest_is_forgotten_first(tiny: Bundle):
    ledger = Ledger(capacity=2)
    for name in ("a", "b", "c"):
        ledger.remember(name, answered(tiny))
    assert [ledger.find(name) is not None for name in ("a", "b", "c")] == [False, True, True]


def test_an_id_that_comes_again_is_young_again(tiny: Bundle):
    ledger = Ledger(capacity=2)
    for name in ("a", "b", "a", "c"):
        ledger.remember(name, answered(tiny))
    assert [ledger.find(name) is not None for name in ("a", "b", "c")] == [True, False, True]


def test_what_was_labelled_is_forgotten(tiny: Bundle):
    ledger = Ledger(capacity=2)
    ledger.remember("a", answered(tiny))
    ledger.forget("a")
    ledger.forget("a")
    assert ledger.find("a") is None


def test_an_answer_that_goes_on_remembers_what_was_labelled(tiny: Bundle):
    ledger = Ledger(capacity=2)
    ledger.remember("a", answered(tiny))
    ledger.forget("a")
    ledger.remember("a", answered(tiny), goes_on=True)
    assert ledger.find("a").labelled == 1
    ledger.remember("a", answered(tiny), goes_on=True)
    assert ledger.find("a").labelled == 1, "however often it goes on"
    ledger.remember("a", answered(tiny))
    assert ledger.find("a").labelled == 0, "another request of the same name"


def test_what_was_labelled_is_bounded_too(tiny: Bundle):
    ledger = Ledger(capacity=2)
    for name in ("a", "b", "c"):
        ledger.remember(name, answered(tiny))
        ledger.forget(name)
    for name, labelled in (("a", 0), ("b", 1), ("c", 1)):
        ledger.remember(name, answered(tiny), goes_on=True)
        assert ledger.find(name).labelled == labelled


def test_no_capacity_remembers_nothing(tiny: Bundle):
    ledger = Ledger(capacity=0)
    ledger.remember("a", answered(tiny))
    assert ledger.find("a") is None

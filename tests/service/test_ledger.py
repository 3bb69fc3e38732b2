from __future__ import annotations

from dataclasses import replace

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


def test_what_was_labelled_is_known_to_all_that_goes_on_from_it(tiny: Bundle):
    ledger, first = Ledger(capacity=2), answered(tiny)
    ledger.remember("a", first)
    ledger.forget("a")
    # A stranger of the same name, then the first goes on.
    ledger.remember("a", answered(tiny))
    assert ledger.find("a").labelled.prefixes == 0
    ledger.remember("a", replace(answered(tiny), labelled=first.labelled))
    assert ledger.find("a").labelled.prefixes == 1


def test_no_capacity_remembers_nothing(tiny: Bundle):
    ledger = Ledger(capacity=0)
    ledger.remember("a", answered(tiny))
    assert ledger.find("a") is None

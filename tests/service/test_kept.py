from __future__ import annotations

from pathlib import Path

import pytest

from service.deployments import Deployment
from service.errors import AlreadyContinuing, StateGone, UnknownRequest
from service.kept import Kept, KeptStates, state_bytes
from tests.fakes import ticket
from tests.tiny import CLASSES, FEATURES, HIDDEN, tiny_graph, tiny_manifest, write_tiny


class Shelf(KeptStates):
    """Kept states whose leases are counted."""

    def __init__(self, deployment: Deployment, entries: int = 10, size: int = 100) -> None:
        super().__init__(entries, size, self._count(+1), self._count(-1))
        self.deployment = deployment
        self.leases = 0

    def _count(self, change: int):
        def counted(_: Deployment) -> None:
            self.leases += change

        return counted

    def keep(self, name: str, *, size: int = 10, expires: float = 100.0, now: float = 0.0) -> bool:
        return self.put(name, Kept(ticket(), self.deployment, size, expires), now)


@pytest.fixture
def deployment(models: Path) -> Deployment:
    return Deployment.of(write_tiny(models))


def test_a_kept_state_is_found_and_an_unknown_one_is_not(deployment: Deployment):
    shelf = Shelf(deployment)
    assert shelf.keep("a")
    assert shelf.take("a", 1.0).size == 10
    with pytest.raises(UnknownRequest, match="'b' is kept: ask for it with `keep_ms`"):
        shelf.take("b", 1.0)


def test_only_one_can_go_on_from_a_state_at_a_time(deployment: Deployment):
    shelf = Shelf(deployment)
    shelf.keep("a")
    kept = shelf.take("a", 1.0)
    with pytest.raises(AlreadyContinuing):
        shelf.take("a", 1.0)
    assert shelf.give_back("a", kept, kept.ticket, 100.0)
    assert shelf.take("a", 1.0) is kept


def test_what_has_expired_is_gone_at_its_instant(deployment: Deployment):
    shelf = Shelf(deployment)
    shelf.keep("a", expires=5.0)
    shelf.keep("b", expires=6.0)
    shelf.sweep(4.9)
    assert len(shelf) == 2
    with pytest.raises(StateGone, match="the time it was kept for is over"):
        shelf.take("a", 5.0)
    assert (len(shelf), shelf.size, shelf.leases) == (1, 10, 1)


def test_a_state_in_use_does_not_expire_until_it_is_given_back(deployment: Deployment):
    shelf = Shelf(deployment)
    shelf.keep("a", expires=5.0)
    kept = shelf.take("a", 4.0)
    shelf.sweep(6.0)
    assert len(shelf) == 1
    shelf.give_back("a", kept, kept.ticket, 5.0)
    shelf.sweep(6.0)
    assert len(shelf) == 0


@pytest.mark.parametrize(("entries", "size"), [(2, 1000), (10, 25)])
def test_the_least_recently_used_makes_room(deployment: Deployment, entries: int, size: int):
    shelf = Shelf(deployment, entries, size)
    shelf.keep("a")
    shelf.keep("b")
    shelf.give_back("a", shelf.take("a", 1.0), ticket(), 100.0)
    assert shelf.keep("c")
    with pytest.raises(StateGone, match="newer requests needed the room"):
        shelf.take("b", 1.0)
    assert {name for name in "abc" if name in shelf._states} == {"a", "c"}
    assert (shelf.size, shelf.leases) == (20, 2)


def test_a_state_in_use_is_not_evicted(deployment: Deployment):
    shelf = Shelf(deployment, entries=1)
    shelf.keep("a")
    kept = shelf.take("a", 1.0)
    assert not shelf.keep("b")
    assert shelf.give_back("a", kept, kept.ticket, 100.0)


def test_one_that_is_too_large_evicts_nobody(deployment: Deployment):
    shelf = Shelf(deployment)
    shelf.keep("a")
    assert not shelf.keep("b", size=101)
    assert shelf.take("a", 1.0)


def test_the_same_name_replaces_and_the_first_owner_cannot_give_back(deployment: Deployment):
    shelf = Shelf(deployment)
    shelf.keep("a")
    first = shelf.take("a", 1.0)
    shelf.keep("a", size=20)
    assert not shelf.give_back("a", first, first.ticket, 100.0)
    shelf.finish("a", first, "it was final")
    assert (len(shelf), shelf.size, shelf.leases) == (1, 20, 1)
    second = shelf.take("a", 1.0)
    assert second.size == 20, "the newer state can be taken"
    shelf.finish("a", second, "it was final")
    with pytest.raises(StateGone, match="it was final"):
        shelf.take("a", 1.0)


def test_unloading_and_clearing_give_the_leases_back(deployment: Deployment, models: Path):
    shelf = Shelf(deployment)
    shelf.keep("a")
    shelf.put("b", Kept(ticket(), Deployment.of(write_tiny(models, name="other")), 10, 100.0), 0.0)
    shelf.drop_of(deployment)
    with pytest.raises(StateGone, match="tiny/1 has been unloaded"):
        shelf.take("a", 1.0)
    assert len(shelf) == 1
    shelf.clear("the house is on fire")
    assert (len(shelf), shelf.size, shelf.leases) == (0, 0, 0)


def test_the_memory_of_what_went_is_bounded(deployment: Deployment):
    shelf = Shelf(deployment, entries=2)
    for name in ("a", "b", "c", "d"):
        shelf.keep(name)
    shelf.clear("over")
    with pytest.raises(UnknownRequest):
        shelf.take("a", 1.0)


def test_none_may_be_kept_at_all(deployment: Deployment):
    assert not Shelf(deployment, entries=0).keep("a")


def test_the_size_is_what_the_deepest_need_holds():
    manifest = tiny_manifest([tiny_graph(index) for index in range(3)])
    answers = 2 * 4 * CLASSES + 8 * 3
    assert state_bytes(manifest, 2) == 2 * (4 * FEATURES + 4 * HIDDEN + answers)

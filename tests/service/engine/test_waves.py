from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.waves import makespan, waves, wide_waves
from tests.tiny_dag import Links, dag_manifest


@st.composite
def wirings(draw: st.DrawFn) -> Links:
    """Any DAG of up to six members, in an order of execution."""
    size = draw(st.integers(1, 6))
    return [sorted(draw(st.sets(st.integers(0, index - 1)))) if index else [] for index in range(size)]


def found(links: Links, last: str = "mean") -> list[list[int]]:
    manifest = dag_manifest(links, [b""] * len(links), last=last)
    assert wide_waves(manifest) == tuple(wave for wave in waves(manifest) if len(wave) > 1)
    return [list(wave) for wave in waves(manifest)]


def ancestors(links: Links) -> list[set[int]]:
    """Of each member, all from which a path leads to it."""
    above: list[set[int]] = []
    for sources in links:
        above.append(set(sources).union(*(above[source] for source in sources)))
    return above


@given(wirings())
def test_no_path_leads_within_a_wave_and_none_could_be_longer(links: Links):
    above = ancestors(links)
    split = found(links)
    assert [member for wave in split for member in wave] == list(range(len(links)))
    assert split[0] == [0]
    for wave in split:
        assert all(not above[member] & set(wave) for member in wave)
    for before, after in pairwise(split[1:]):
        assert above[after[0]] & set(before)


def test_a_chain_has_waves_of_one():
    assert found([[], [0], [1], [2]]) == [[0], [1], [2], [3]]


def test_members_without_connections_are_one_wave_after_the_first():
    assert found([[], [], [], []]) == [[0], [1, 2, 3]]


def test_members_that_read_the_first_only_are_one_wave():
    assert found([[], [0], [0], [0, 2]]) == [[0], [1, 2], [3]]


def test_a_last_member_that_replaces_the_answer_runs_alone():
    assert found([[], [], [], []], last="replace") == [[0], [1, 2], [3]]


durations = st.lists(st.floats(0, 10), min_size=1, max_size=6)


@given(durations, st.integers(1, 6))
def test_the_makespan_is_between_its_bounds(seconds: list[float], lanes: int):
    least = max(*seconds, sum(seconds) / lanes)
    # Graham's bound for jobs that are begun in turn.
    assert least - 1e-9 <= makespan(seconds, lanes) <= sum(seconds) / lanes + max(seconds) + 1e-9
    assert makespan(seconds, 1) == pytest.approx(sum(seconds))
    assert makespan(seconds, 6) == max(seconds)

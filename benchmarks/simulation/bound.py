"""What nobody can exceed: an upper bound on timely accuracy, by a linear program.

The clairvoyant knows all arrivals and deadlines in advance; of each sample it learns what anybody learns, the band
of confidence after each member that was run on it. It may run the teacher on a sample without any other member.
The relaxation, which only ever helps it:

- Steps can be interrupted and divided. A row's work is an amount of the device's time, handed out in slots: no more in
  a slot than what its window, from arrival to deadline, has of it, and no slot gives more than its length.
- A row's time is that in a batch with everybody whose window overlaps its own, however long that batch takes.
- A member can be run if it and the shortest way to it fit between arrival and deadline on an idle device.
- What a row can reach is concave in its expected time: the best mixture of policies against some price of time
  (`utility`). By Jensen's inequality no policy that decides by what it has seen exceeds that.
- Rows of the same budget that arrive together share what is theirs, and a trace is cut into parts, each with the whole
  of the slots at its edges.

The program is a flow from the groups' gains to the slots, and HiGHS solves it exactly; its value is the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from benchmarks.simulation.policies import Trace
from benchmarks.simulation.world import FIXED_SHARE, MAX_BATCH_ROWS, MEMBER_S, World

Floats = npt.NDArray[np.float64]

SLOT_S = 0.0125
TOGETHER_S = 0.005
"""Requests are grouped that arrive within this time."""

PART = 5000
"""Requests of a trace that are solved for at once."""

SMALL = len(MEMBER_S) - 1
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 600, 400)])
"""Right answers a second against which policies are made: up to where not even a first member pays."""


@dataclass(frozen=True, slots=True)
class Utility:
    """Accuracy that one row can expect of its time: concave, in segments of falling worth."""

    seconds: Floats
    """(segments,): length of each, alone on the device."""
    accuracy: Floats
    """(segments,): what each adds."""


def clairvoyant(world: World, trace: Trace) -> float:
    """Upper bound on the expected timely accuracy of any policy on this trace."""
    budgets, kinds = np.unique((trace.due - trace.arrived).round(9), return_inverse=True)
    utilities = [utility(world, budget_s) for budget_s in budgets]
    per_row = FIXED_SHARE / _company(trace) + 1 - FIXED_SHARE
    reached = 0.0
    for first in range(0, len(trace), PART):
        part = slice(first, first + PART)
        reached += _most(trace.arrived[part], trace.due[part], kinds[part], per_row[part], utilities)
    return reached / len(trace)


def utility(world: World, budget_s: float) -> Utility:
    """What a row with so much time can reach: the envelope of the best policies against all prices of time."""
    points = sorted({(0.0, 0.0), *(_best_policy(world, budget_s, price) for price in PRICES)})
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], point) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        if not hull or point[1] > hull[-1][1]:
            hull.append(point)
    seconds, accuracy = np.diff(np.asarray(hull), axis=0).T
    return Utility(seconds, accuracy)


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-12)


def _best_policy(world: World, budget_s: float, price: float) -> tuple[float, float]:
    """Expected seconds and accuracy of the policy with the most accuracy less payments; backwards over the chain."""
    budget_s += 1e-9
    net, spent = np.empty(0), np.empty(0)
    for k in range(SMALL - 1, -1, -1):
        here, here_s = world.ahead[k][:, 0], np.zeros(len(world.start))
        if sum(MEMBER_S[: k + 1]) + MEMBER_S[-1] <= budget_s:
            here, here_s = _better(here, here_s, world.ahead[k][:, -1] - price * MEMBER_S[-1], MEMBER_S[-1])
        if k < SMALL - 1 and sum(MEMBER_S[: k + 2]) <= budget_s:
            on = world.moves[k] @ net - price * MEMBER_S[k + 1]
            here, here_s = _better(here, here_s, on, world.moves[k] @ spent + MEMBER_S[k + 1])
        net, spent = here, here_s
    choices = [(0.0, 0.0)]
    if MEMBER_S[0] <= budget_s:
        choices.append((float(world.start @ net) - price * MEMBER_S[0], float(world.start @ spent) + MEMBER_S[0]))
    if MEMBER_S[-1] <= budget_s:
        choices.append((float(world.start @ world.ahead[0][:, -1]) - price * MEMBER_S[-1], MEMBER_S[-1]))
    best, seconds = max(choices)
    return round(seconds, 12), best + price * seconds


def _better(net: Floats, seconds: Floats, other: Floats, other_s: Floats | float) -> tuple[Floats, Floats]:
    """Row by row, the choice that nets more."""
    return np.maximum(net, other), np.where(other > net, other_s, seconds)


def _company(trace: Trace) -> Floats:
    """At most how many requests, itself included, can share a step with each one."""
    before = np.searchsorted(trace.arrived, trace.due, side="right")
    gone = np.searchsorted(np.sort(trace.due), trace.arrived, side="left")
    company: Floats = np.minimum(before - gone, MAX_BATCH_ROWS).astype(np.float64)
    return company


def _most(
    arrived: Floats, due: Floats, kinds: npt.NDArray[np.intp], per_row: Floats, utilities: list[Utility]
) -> float:
    """Right answers that can be expected of a part of a trace at most: the program's value.

    Variables are seconds of the device: those that a group spends on each segment of its utility, and those that it
    has of each slot. They balance in each group, and each slot has its length.
    """
    groups = np.unique((arrived / TOGETHER_S).astype(np.intp) * len(utilities) + kinds, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    worth: list[float] = []
    limits: list[float] = []
    balance: list[tuple[int, float]] = []
    given: list[tuple[int, int]] = []
    for group, members in enumerate(np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)):
        shape, cheapest = utilities[kinds[members[0]]], per_row[members].min()
        worth += (shape.accuracy / shape.seconds / cheapest).tolist()
        limits += (len(members) * shape.seconds * cheapest).tolist()
        balance += [(group, 1.0)] * len(shape.seconds)
        for slot in range(int(arrived[members].min() / SLOT_S), int(due[members].max() / SLOT_S) + 1):
            overlap_s = np.minimum(due[members], (slot + 1) * SLOT_S) - np.maximum(arrived[members], slot * SLOT_S)
            given.append((slot, len(worth)))
            worth.append(0.0)
            limits.append(float(overlap_s.clip(0).sum()))
            balance.append((group, -1.0))
    rows, signs = np.asarray(balance).T
    balanced = csr_matrix((signs, (rows.astype(np.intp), np.arange(len(worth)))))
    slots, columns = np.asarray(given).T
    slots = np.unique(slots, return_inverse=True)[1]
    shared = csr_matrix((np.ones(len(given)), (slots, columns)), shape=(slots.max() + 1, len(worth)))
    solution = linprog(
        -np.asarray(worth),
        A_ub=shared,
        b_ub=np.full(shared.shape[0], SLOT_S),
        A_eq=balanced,
        b_eq=np.zeros(balanced.shape[0]),
        bounds=np.column_stack([np.zeros(len(worth)), limits]),
        method="highs-ds",
    )
    if solution.x is None:
        raise RuntimeError(f"the bound's program was not solved: {solution.message}")
    return float(-solution.fun)

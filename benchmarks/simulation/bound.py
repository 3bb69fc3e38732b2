"""What nobody can exceed: an upper bound on timely accuracy, by Lagrangian relaxation of the device's capacity.

The clairvoyant knows all arrivals and deadlines in advance; of each sample it learns what anybody learns, the band
of confidence after each member that was run on it. It may run the teacher on a sample without any other member.
The relaxation, which only ever helps it:

- Steps can be interrupted and divided. Time has a price p(t) >= 0, constant over slots; a row pays, for each member
  that it runs, at least the member's time per row times the lowest price between its arrival and its deadline.
- The time per row is that in a batch with everybody whose time overlaps the row's own, however long that batch takes.
- A member can be run if it and the shortest way to it fit between arrival and deadline on an idle device.

For any p, (sum over requests of the best expected accuracy minus payments) + (integral of p) is an upper bound: weak
duality, the constraint being that a second has one second of device time. The best policy of one request against its
payments is dynamic programming over the chain. p is improved by subgradients; the smallest value met is the bound.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.simulation.policies import Trace
from benchmarks.simulation.world import FIXED_SHARE, MAX_BATCH_ROWS, MEMBER_S, World

Floats = npt.NDArray[np.float64]

SLOT_S = 0.05
SMALL = len(MEMBER_S) - 1
STEP = 0.8
"""Of the price, in the first iteration."""


def clairvoyant(world: World, trace: Trace, iterations: int = 150) -> float:
    """Upper bound on the expected timely accuracy of any policy on this trace."""
    slots = int(trace.due.max() / SLOT_S) + 1
    window = np.minimum(
        (trace.arrived / SLOT_S).astype(np.intp)[:, None] + np.arange(int(np.ceil(0.1 / SLOT_S)) + 1),
        (trace.due / SLOT_S).astype(np.intp)[:, None],
    )
    per_row_s = np.asarray(MEMBER_S) * (FIXED_SHARE / _company(trace)[:, None] + 1 - FIXED_SHARE)
    best, prices = float(len(trace)), np.full(slots, 0.3)
    for iteration in range(iterations):
        at = window[np.arange(len(trace)), prices[window].argmin(axis=1)]
        value, used_s = _against_prices(world, trace, prices[at], per_row_s)
        best = min(best, float(value.sum() + prices.sum() * SLOT_S))
        excess = np.bincount(at, used_s, slots) / SLOT_S - 1
        # By a factor, because prices differ a hundredfold between a quiet minute and a burst.
        prices = np.maximum(prices, 1e-3) * np.exp(STEP / (1 + iteration / 15) * np.clip(excess, -1, 1))
    return best / len(trace)


def _company(trace: Trace) -> Floats:
    """At most how many requests, itself included, can share a step with each one."""
    before = np.searchsorted(trace.arrived, trace.due, side="right")
    gone = np.searchsorted(np.sort(trace.due), trace.arrived, side="left")
    company: Floats = np.minimum(before - gone, MAX_BATCH_ROWS).astype(np.float64)
    return company


def _against_prices(world: World, trace: Trace, price: Floats, per_row_s: Floats) -> tuple[Floats, Floats]:
    """Best expected accuracy minus payments of each request, and the seconds that it uses for that."""
    budget = (trace.due - trace.arrived)[:, None] + 1e-9
    cost = np.where(np.cumsum(MEMBER_S) <= budget, price[:, None] * per_row_s, np.inf)
    teacher_s = per_row_s[:, -1:]
    teacher = np.where(MEMBER_S[0] + MEMBER_S[-1] <= budget, price[:, None] * teacher_s, np.inf)
    directly = np.where(budget[:, 0] >= MEMBER_S[-1], price * teacher_s[:, 0], np.inf)
    value = np.zeros((len(trace), len(world.start)))
    used_s = np.zeros_like(value)
    for k in range(SMALL - 1, -1, -1):
        stop, jump = world.ahead[k][:, 0], world.ahead[k][:, -1] - teacher
        if k < SMALL - 1:
            on = value @ world.moves[k].T - cost[:, k + 1 : k + 2]
            on_s = used_s @ world.moves[k].T + per_row_s[:, k + 1 : k + 2]
        else:
            on, on_s = np.full_like(value, -np.inf), used_s
        best = np.maximum(np.maximum(stop, jump), on)
        used_s = np.where(best == stop, 0.0, np.where(best == on, on_s, teacher_s))
        value = best
    first = value @ world.start - cost[:, 0]
    at_once = float(world.start @ world.ahead[0][:, -1]) - directly
    best_of_all = np.maximum(0.0, np.maximum(first, at_once))
    first_s = used_s @ world.start + per_row_s[:, 0]
    seconds = np.where(best_of_all == 0, 0.0, np.where(first >= at_once, first_s, teacher_s[:, 0]))
    return best_of_all, seconds

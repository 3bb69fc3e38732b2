"""How long a member will take whose work several threads may share: on them, or on one, whichever is better now.

On an idle machine, where sharing was found to pay, it does. But threads that share the work of a step wait for each
other, and where the event loop or a neighbour takes one's core all of them do: then a step on one thread is no longer,
and leaves the others alone. So what either takes is learned, and compared. What sharing takes is learned for each
rehearsed batch size: many rows are shared out in blocks, of one row only the operators can be, and those wait for each
other far more.

Threads that are left alone are tried again now and then (`doubtful`). Soon where warm-up found that they pay, lest what
is over be remembered longer than it lasted; more rarely where it found that they do not: it may have been measured on a
machine that others kept busy.

Standard library only; the caller brings the time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from service.engine.member_cost import MEMORY_S, MemberCost

WORTH_SHARING = 1.25
"""A step that takes more from others, more threads say, must be faster by this factor."""

TRY_INTERVAL_S = 1.0
"""Threads that are not worth it now, but were at warm-up, are tried again this long after they last shared a step."""

DOUBT_INTERVAL_S = MEMORY_S
"""Those that were not worth it at warm-up either: as long as what a try teaches is remembered."""


class SharedCost:
    """Predicted duration of one member, with the methods of `MemberCost`.

    Args:
        shared_s: rehearsed durations on several threads, of each batch size that they may share.
        alone_s: on one thread, of each batch size that was rehearsed.
        safety: quantile of the ratios that predictions use.
        tried_at: when sharing was rehearsed.
    """

    def __init__(
        self,
        shared_s: Mapping[int, Sequence[float]],
        alone_s: Mapping[int, Sequence[float]],
        safety: float,
        tried_at: float = -math.inf,
    ) -> None:
        self._alone = MemberCost(alone_s, safety)
        durations_s = {**alone_s, **shared_s}
        self._sizes = {size: _Size(self._alone, MemberCost(durations_s, safety), tried_at) for size in shared_s}
        self._size_of: dict[int, _Size | None] = {}

    @property
    def rows(self) -> tuple[int, ...]:
        """Rehearsed batch sizes, ascending."""
        return self._alone.rows

    def holds_until(self, rows: int) -> float:
        """Of both ways; see `MemberCost.holds_until`."""
        size = self._size(rows)
        alone_until = self._alone.holds_until(rows)
        return alone_until if size is None else min(alone_until, size.shared.holds_until(rows))

    def curve(self, rows: int) -> float:
        """Typical seconds of the better way by warm-up; see `MemberCost.curve`."""
        size = self._size(rows)
        if size is None or size.times_as_long(rows) <= WORTH_SHARING:
            return self._alone.curve(rows)
        return size.shared.curve(rows)

    def usually(self, rows: int) -> float:
        """Of the way that a step would be run; see `MemberCost.usually`."""
        size = self._size(rows)
        if size is None or size.on_one_thread(rows):
            return self._alone.usually(rows)
        return size.shared.usually(rows)

    def predict(self, rows: int, now: float) -> float:
        """Of the way that a step would be run; see `MemberCost.predict`."""
        size, alone_s = self._size(rows), self._alone.predict(rows, now)
        if size is None:
            return alone_s
        # Both are asked, because both forget what is old.
        shared_s = size.shared.predict(rows, now)
        return alone_s if size.on_one_thread(rows) else shared_s

    def on_one_thread(self, rows: int) -> bool:
        """By what half of the latest steps took no longer than; see `MemberCost.on_one_thread`."""
        size = self._size(rows)
        return size is None or size.on_one_thread(rows)

    def doubtful(self, rows: int, now: float) -> bool:
        """If threads have not shared such a step for a while; see `MemberCost.doubtful`."""
        size = self._size(rows)
        if size is None or not size.on_one_thread(rows):
            return False
        interval_s = TRY_INTERVAL_S if size.times_as_long(rows) > WORTH_SHARING else DOUBT_INTERVAL_S
        return now >= size.tried_at + interval_s

    def observe(self, rows: int, duration_s: float, now: float, *, on_one_thread: bool = False) -> bool:
        """Learn of the way that the step was run; see `MemberCost.observe`."""
        size = self._size(rows)
        alone_before = self._alone.usual
        shared_before = 0.0 if size is None else size.shared.usual
        if on_one_thread or size is None:
            changed = self._alone.observe(rows, duration_s, now)
        else:
            if duration_s * WORTH_SHARING < self._alone.usually(rows) and size.on_one_thread(rows):
                # Whatever made it slow is over.
                size.shared.forget()
            size.tried_at = now
            changed = size.shared.observe(rows, duration_s, now)
        # What threads take that share steps of one size says nothing of the others; what one thread takes, of all.
        concerned = self._sizes.values() if size is None or self._alone.usual != alone_before else [size]
        return changed or any(
            one.decides_otherwise(alone_before, shared_before if one is size else one.shared.usual) for one in concerned
        )

    def _size(self, rows: int) -> _Size | None:
        """What is known of sharing such steps; None where there is nothing to share."""
        # Asked with each prediction, which the scheduler wants far more often than a step ends.
        try:
            return self._size_of[rows]
        except KeyError:
            sizes = self._alone.rows
            rehearsed = sizes[min(bisect_left(sizes, rows), len(sizes) - 1)]
            size = self._size_of[rows] = self._sizes.get(rehearsed)
            return size


class _Size:
    """Both ways at one rehearsed batch size, and with fewer rows down to the next."""

    __slots__ = ("_alone", "_times", "shared", "tried_at")

    def __init__(self, alone: MemberCost, shared: MemberCost, tried_at: float) -> None:
        self._alone = alone
        self.shared = shared
        self.tried_at = tried_at
        self._times: dict[int, float] = {}

    def times_as_long(self, rows: int) -> float:
        """How many times as long one thread takes, by warm-up."""
        times = self._times.get(rows)
        if times is None:
            times = self._times[rows] = self._alone.curve(rows) / self.shared.curve(rows)
        return times

    def on_one_thread(self, rows: int) -> bool:
        """Whether one thread is better now."""
        return self.times_as_long(rows) <= _worth(self._alone.usual, self.shared.usual)

    def decides_otherwise(self, alone_before: float, shared_before: float) -> bool:
        """Whether it does with any number of rows that was asked about, since these were `usual`."""
        if not self._times:
            return False
        before, now = _worth(alone_before, shared_before), _worth(self._alone.usual, self.shared.usual)
        low, high = (before, now) if before < now else (now, before)
        return any(low < times <= high for times in list(self._times.values()))


def _worth(alone: float, shared: float) -> float:
    """How many times as long one thread may take by warm-up to be better, when ratios are usually these."""
    # A coarse clock may find that steps take no time.
    return WORTH_SHARING * shared / max(alone, 1e-9)


Cost = MemberCost | SharedCost
"""Of one member, whether or not its work can be shared."""

"""Time: instants are seconds on a monotonic clock, budgets are durations. Standard library only."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

MOMENT_S = 1.0
"""As long as an instant may have passed to be found by the wall clock."""


class Clock(Protocol):
    """Where the engine reads the time; tests and the simulator bring their own."""

    def now(self) -> float:
        """Seconds, monotonic, from an arbitrary origin."""

    def at_wall(self, wall_ns: int) -> float:
        """The instant, on this clock, at which the system's wall clock showed `wall_ns` a moment ago."""


class MonotonicClock:
    """The system's monotonic clock."""

    # Asked a dozen times for each request: the function itself, without a method around it.
    now = staticmethod(time.monotonic)

    def at_wall(self, wall_ns: int) -> float:
        """That instant; now if it is in the future or so long ago that the wall clock must have been set."""
        ago_s = (time.time_ns() - wall_ns) / 1e9
        return self.now() - ago_s if 0.0 < ago_s < MOMENT_S else self.now()


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request arrived and when its answer is due.

    `answer_by` is earlier than `at` by the reserve for what follows the engine: the hop to the event loop,
    encoding, the socket. The engine plans with `answer_by`; the client counts from `at`.

    The reserve is what nearly all answers stay within. Who would have to go without an answer has more to win by one
    that most likely comes in time than to lose: until `last` it is worth trying.
    """

    arrived: float
    at: float
    answer_by: float
    last: float

    @classmethod
    def after(cls, arrived: float, budget_s: float | None, reserve_s: float, least_s: float | None = None) -> Deadline:
        """The deadline of a budget that started at `arrived`; None grants all the time there is.

        Args:
            arrived: when the request did.
            budget_s: what its client allows.
            reserve_s: to keep back of it.
            least_s: to keep back of it if there is no answer yet; None: the same.
        """
        if budget_s is None:
            return cls(arrived, math.inf, math.inf, math.inf)
        at = arrived + budget_s
        return cls(arrived, at, at - reserve_s, at - min(reserve_s, reserve_s if least_s is None else least_s))

    def slack(self, now: float, cost_s: float = 0.0) -> float:
        """Seconds left over if work of `cost_s` starts now; negative: it would end too late."""
        return self.answer_by - now - cost_s

    def chance(self, now: float, cost_s: float) -> bool:
        """Whether work of `cost_s` may still give a first answer."""
        return self.last - now - cost_s >= 0

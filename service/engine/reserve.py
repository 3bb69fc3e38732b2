"""The part of each deadline that is kept back for what follows the last member.

Between the moment a request is decided and the last byte of its answer lie the hop to the event loop, the loop's
other requests, encoding and the socket. On an idle machine that is a fraction of a millisecond; on a busy loop
it is many. So it is measured with every answer, and the quantile of the latest is kept back, but never less than
the operator asks for. Used on the event loop's thread only.
"""

from __future__ import annotations

from service.engine.recent import RecentQuantile

SHARE = 0.95
"""Higher would let the few slowest answers of a saturated loop turn everybody else away."""
WINDOW_ANSWERS = 200
MEMORY_S = 10.0


class Reserve:
    """Seconds to keep back, learned from answers."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._tails = RecentQuantile(SHARE, WINDOW_ANSWERS, MEMORY_S)

    def observe(self, tail_s: float, now: float) -> None:
        """An answer's last byte went out `tail_s` after the request was decided."""
        self._tails.add(tail_s, now)

    def seconds(self, now: float) -> float:
        """What a request that arrives now should keep back."""
        return max(self._least_s, self._tails.get(now) or 0.0)

"""What further members are expected to make of an answer, found out when somebody wants to know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bundle.exits import confidence
from service.engine.profile import Profile, Values

Logits = npt.NDArray[np.float32]


class Outlook:
    """Right answers expected after a prefix and after each later one, of the samples that go on.

    The confidences take longer than a small member. Where one request after the other has the device to itself,
    nobody asks for them: it gets all members that there is time for, whatever they are worth.

    Objects are not changed: one belongs to one prefix, so any thread may ask at any time.

    Args:
        profile: of the ticket.
        members: of the prefix.
        answer: its logits, (samples, classes); of a regression its values.
        regression: whether it is one: values say nothing of how good they are.
    """

    __slots__ = ("_answer", "_members", "_profile", "_regression", "_values")

    def __init__(self, profile: Profile, members: int, answer: Logits, *, regression: bool) -> None:
        self._profile = profile
        self._members = members
        self._answer = answer
        self._regression = regression
        self._values: Values | None = None

    @property
    def values(self) -> Values:
        """After the prefix, one more member, ... all."""
        if self._values is None:
            self._values = self._profile.after(self._members, self.confidences().tolist())
        return self._values

    def confidences(self) -> npt.NDArray[np.float64]:
        """Calibrated, of each sample, (samples,)."""
        if self._regression:
            return np.ones(len(self._answer))
        return confidence(self._answer, self._profile.temperature[self._members - 1])

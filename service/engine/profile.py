"""What further members are worth: the conditional performance profile of an anytime ensemble.

An anytime algorithm's *performance profile* tells how good its answer is after so much computation; a
*conditional* one tells it given how good the answer looks now (Hansen and Zilberstein, 2001). Here computation is
counted in members, goodness is accuracy, and looks are the calibrated confidence: that is `Prefix.outlook` of the
manifest. Where it was not measured, every sample is worth the prefix's mean.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from bundle import Manifest

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Expected accuracy of each prefix, and of the prefixes still ahead of a sample."""

    accuracy: Values
    """After 1, 2, ... members, on the held-out split; of a regression the coefficient of determination."""
    edges: tuple[Values, ...]
    """Of each prefix: upper edges of its bands of confidence."""
    ahead: tuple[tuple[Values, ...], ...]
    """Of each prefix and band: accuracy after this prefix, after the next one, ... after all members."""
    temperature: Values
    """Of each prefix: softmax(logits / temperature) is its calibrated probability."""
    jumps: bool
    """Whether the last member can be run at any depth: it replaces the answer and reads nothing of the others."""

    @classmethod
    def of(cls, manifest: Manifest) -> Profile:
        """The profile that a bundle's manifest states."""
        # Worse than the mean of all labels is worth nothing, not less.
        accuracy = tuple(max(0.0, prefix.quality) for prefix in manifest.prefixes)
        last = manifest.members[-1]
        return cls(
            accuracy=accuracy,
            edges=tuple(tuple(band.up_to for band in prefix.outlook) or (1.0,) for prefix in manifest.prefixes),
            ahead=tuple(
                # Held-out accuracies may fall with depth by chance; nothing is gained by planning with that.
                tuple(band.accuracy for band in prefix.outlook) or (tuple(accumulate(accuracy[k:], max)),)
                for k, prefix in enumerate(manifest.prefixes)
            ),
            temperature=tuple(prefix.temperature for prefix in manifest.prefixes),
            jumps=last.combine == "replace" and not last.connections,
        )

    def first(self, members: int) -> Profile:
        """The profile of the first `members` members as an ensemble of their own."""
        return Profile(
            accuracy=self.accuracy[:members],
            edges=self.edges[:members],
            ahead=tuple(
                tuple(values[: members - k] for values in bands) for k, bands in enumerate(self.ahead[:members])
            ),
            temperature=self.temperature[:members],
            jumps=self.jumps and members == len(self.accuracy),
        )

    def at_start(self, rows: int) -> Values:
        """Expected right answers of `rows` samples after 0, 1, 2, ... members."""
        return _at_start(self.accuracy, rows)

    def after(self, members: int, confidences: Sequence[float]) -> Values:
        """Expected right answers of these samples after `members` members, one more, ... all.

        Args:
            members: depth of the prefix that the confidences are of.
            confidences: calibrated, one a sample.
        """
        edges, ahead = self.edges[members - 1], self.ahead[members - 1]
        if not confidences:
            return (0.0,) * len(ahead[0])
        # The last band ends at 1, which rounding may exceed.
        bands = [ahead[min(bisect_left(edges, confidence), len(edges) - 1)] for confidence in confidences]
        return bands[0] if len(bands) == 1 else tuple(map(sum, zip(*bands, strict=True)))


# Asked for every request, and most have as many rows as others.
@lru_cache(maxsize=256)
def _at_start(accuracy: Values, rows: int) -> Values:
    return (0.0, *(rows * reached for reached in accumulate(accuracy, max)))

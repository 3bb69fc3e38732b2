"""The world that the simulator plays: an ensemble, its costs, its samples, and the traffic.

The ensemble is a ladder of seven small members under a teacher that replaces the answer. What a sample is worth
after each prefix is a Markov chain over bands of confidence, made so:

- a sample has a quality q ~ N(MEAN, 1), and prefix k sees the margin q + e + (n_1 + ... + n_k) / k, with an error e
  that all members share and errors n of their own; the answer is right when the margin is above 0;
- the confidence is the posterior of that, given the margin's size; it is cut into bands;
- accuracies of the bands, moves between the bands of one prefix and the next, and the teacher's accuracy in each
  band of the last small prefix are counted over many draws.

From there on the chain is the world: the `Prefix.outlook` that the scheduler reads is exact in it, and so is the
clairvoyant bound. An answer counts as right with the accuracy of its band, so that no luck of labels blurs the
differences between policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.engine.cost import CostModel, batch_sizes
from service.engine.member_cost import MemberCost
from service.engine.profile import Profile, Values

Floats = npt.NDArray[np.float64]

MEMBER_S = (1.7e-3,) * 7 + (15e-3,)
"""Duration of each member on one row: seven members of 1.7 ms, and the teacher."""

FIXED_SHARE = 0.06
"""Part of that which a step costs however many rows it has. From an earlier measurement (AMD EPYC, 2026-11-21, before
d619ca3): members of convolutions took 6.33 ms for one row and 48.02 ms for eight. docs/simulation.md says what 0, which
later measurements suggest, makes of the results."""

MAX_BATCH_ROWS = 64
DEADLINES_S = (0.020, 0.050, 0.100)

MEAN, SHARED, OWN, TEACHERS = 1.8, 0.19, 1.038, 0.127
"""Mean quality, and variances of the errors: 0.886 right after one member, 0.940 after seven, 0.955 by the teacher."""

EDGES = (0.55, 0.65, 0.75, 0.85, 0.92, 0.96, 0.98, 0.99, 0.996, 1.0)
DRAWS = 1_000_000


@dataclass(frozen=True, slots=True)
class World:
    """The chain."""

    start: Floats
    """(bands,): shares of the bands after the first member."""
    moves: Floats
    """(6, bands, bands): from a band of prefix k to one of prefix k + 1."""
    ahead: tuple[Floats, ...]
    """Of each prefix, (bands, prefixes from here on): accuracy, the teacher's last."""

    @property
    def members(self) -> int:
        """Members, the teacher included."""
        return len(self.ahead) + 1

    def profile(self) -> Profile:
        """What a manifest would say of this ensemble."""
        shares = [self.start]
        for move in self.moves:
            shares.append(shares[-1] @ move)
        accuracy = [float(share @ ahead[:, 0]) for share, ahead in zip(shares, self.ahead, strict=True)]
        accuracy.append(float(self.start @ self.ahead[0][:, -1]))
        bands: list[tuple[Values, ...]] = [tuple(map(tuple, ahead.tolist())) for ahead in self.ahead]
        return Profile(
            accuracy=tuple(accuracy),
            edges=(*(EDGES,) * (self.members - 1), (1.0,)),
            ahead=(*bands, ((accuracy[-1],),)),
            temperature=(1.0,) * self.members,
            jumps=True,
        )

    def paths(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.intp]:
        """Band of each sample after each small member, (samples, 7)."""
        cumulative = [np.cumsum(move, axis=1) for move in self.moves]
        path = [np.searchsorted(np.cumsum(self.start)[:-1], _stratified(samples, random))]
        for rows in cumulative:
            draw = _stratified(samples, random)[:, None]
            path.append((draw > rows[path[-1]][:, :-1]).sum(axis=1))
        return np.stack(path, axis=1)


def _stratified(samples: int, random: np.random.Generator) -> Floats:
    """Uniform on [0, 1), one in each of as many equal intervals: less luck in who is sampled."""
    result: Floats = (random.permutation(samples) + random.random(samples)) / samples
    return result


def make_world(seed: int = 0) -> World:
    """Count the chain."""
    random = np.random.default_rng(seed)
    quality = random.normal(MEAN, 1, DRAWS)
    shared = quality + random.normal(0, SHARED**0.5, DRAWS)
    own = np.zeros(DRAWS)
    bands, right = [], []
    small = len(MEMBER_S) - 1
    for k in range(1, small + 1):
        own += random.normal(0, OWN**0.5, DRAWS)
        margin = shared + own / k
        confidence = 1 / (1 + np.exp(-2 * MEAN * np.abs(margin) / (1 + SHARED + OWN / k)))
        bands.append(np.searchsorted(EDGES[:-1], confidence))
        right.append(margin > 0)
    teacher = quality + random.normal(0, TEACHERS**0.5, DRAWS) > 0
    accuracy = [_mean_by_band(band, correct) for band, correct in zip(bands, right, strict=True)]
    moves = np.stack([_moves(now, then) for now, then in pairwise(bands)])
    ahead = [np.stack([accuracy[-1], np.maximum(accuracy[-1], _mean_by_band(bands[-1], teacher))], axis=1)]
    for k in range(small - 2, -1, -1):
        later = moves[k] @ ahead[0]
        # A further member never lowers the expected accuracy: it may be ignored.
        ahead.insert(0, np.maximum.accumulate(np.column_stack([accuracy[k], later]), axis=1))
    return World(np.bincount(bands[0], minlength=len(EDGES)) / DRAWS, moves, tuple(ahead))


def _mean_by_band(band: npt.NDArray[np.intp], values: npt.NDArray[np.bool_]) -> Floats:
    result: Floats = np.bincount(band, values, len(EDGES)) / np.bincount(band, minlength=len(EDGES))
    return result


def _moves(now: npt.NDArray[np.intp], then: npt.NDArray[np.intp]) -> Floats:
    counts = np.bincount(now * len(EDGES) + then, minlength=len(EDGES) ** 2).reshape(len(EDGES), -1)
    result: Floats = counts / counts.sum(axis=1, keepdims=True)
    return result


def seconds(member: int, rows: int) -> float:
    """Duration of a step."""
    return MEMBER_S[member] * (FIXED_SHARE + (1 - FIXED_SHARE) * rows)


def cost_model(model: str) -> CostModel:
    """The costs as a warm-up would measure them."""
    costs = CostModel()
    sizes = batch_sizes(MAX_BATCH_ROWS)
    costs.add(model, [MemberCost({n: [seconds(m, n)] for n in sizes}, 0.95) for m in range(len(MEMBER_S))])
    return costs

"""Whether a candidate becomes a member.

Decided on all training samples and every label, in eval mode and fp64, never on a batch. Definition 1 alone is
not enough: a large constant logit vector meets it. So a candidate must also stay within Eq. 6's bound, and
the running average with it must do better on the validation part than without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training import boosting, ranks
from training.ensemble import Ensemble
from training.game import Game
from training.networks import StagedNetwork

EXACT = 1e-5
"""A residual below this share of B is rounding: the candidate equals the teacher."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate is taken, and the numbers that decided."""

    accepted: bool
    reason: str
    smallest_edge: float
    eq7_share: float
    validation_loss: float
    """Distillation loss of the running average with this candidate, on the validation part; infinite when the
    candidate is beyond the bound and not even a run that takes the best one may have it."""


def judge(game: Game, ensemble: Ensemble, network: StagedNetwork, sources: tuple[int, ...]) -> Verdict:
    """Evaluate a network on every sample, and decide."""
    f_NL = ensemble.train.logits(network, sources)
    validation_NL = ensemble.validation.logits(network, sources)
    return decide(game, ensemble, game.task.gauge(f_NL.double()), game.task.gauge(validation_NL.double()))


def decide(game: Game, ensemble: Ensemble, f_NL: Tensor, validation_NL: Tensor) -> Verdict:
    """The verdict on a candidate's centred fp64 logits on the training and on the validation samples.

    Definition 1's edge must be positive for every label, except where it cannot be. In the first round every pair
    is a tie, so the first member is accepted on its loss alone. A candidate that equals the teacher has edge 0;
    nothing can be better, so it is accepted as it is.
    """
    l_NL = f_NL - ensemble.teacher_train_NL
    largest, after = float(ranks.largest(l_NL.abs().max())), prefix_loss(game, ensemble, validation_NL)
    if not (math.isfinite(largest) and math.isfinite(after)):
        return Verdict(False, "its logits are not finite", 0.0, 0.0, math.inf)
    edge = float(boosting.edges(ensemble.S_train_NL, l_NL, game.eta).min())
    share = boosting.eq7_share(ensemble.S_train_NL, l_NL)
    if largest > 2 * game.B:
        return Verdict(False, f"a residual of {largest:.3g} is beyond 2B = {2 * game.B:.3g}", edge, share, math.inf)
    before = prefix_loss(game, ensemble, None)
    if largest <= EXACT * game.B:
        return Verdict(True, "", edge, share, after)
    if after >= before:
        reason = f"the validation loss of the running average would go from {before:.4g} to {after:.4g}"
    elif edge <= 0 and len(ensemble):
        reason = f"Definition 1 fails, the smallest edge is {edge:.3g}"
    else:
        return Verdict(True, "", edge, share, after)
    return Verdict(False, reason, edge, share, after)


def prefix_loss(game: Game, ensemble: Ensemble, validation_NL: Tensor | None) -> float:
    """Validation loss of the running average, with or without one more member; no member at all answers zeros."""
    teacher_NL = ensemble.teacher_validation_NL.double()
    S_NL, members = ensemble.S_validation_NL, len(ensemble)
    if validation_NL is not None:
        S_NL, members = S_NL + validation_NL - teacher_NL, members + 1
    average_NL = teacher_NL + S_NL / members if members else torch.zeros_like(teacher_NL)
    loss = game.task.loss(average_NL, teacher_NL, game.target.validation_y_N)
    return float(ranks.mean(loss, len(teacher_NL)))

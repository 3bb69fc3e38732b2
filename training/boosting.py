"""The game of B-DISTIL as pure functions: weights, weak-learning condition, barrier, Theorem 1.

Shape suffixes: N samples, L labels. `S_NL` is the cumulative residual, the sum over members s < t of
``l_s = f_s - g`` with both logits centred over the labels. It is the only state: the paper's two matrices are
``K+ ~ exp(-eta S)`` and ``K- ~ exp(eta S)`` (Eqs. 4 and 5 unrolled), jointly normalised for each label.
``S / t`` is what the running average of t members lacks to the teacher: ``F_t - g``. Sums over samples are over those
of all processes (:mod:`training.ranks`); the losses are means over the batch that they are given.

Where the paper's text cannot be run literally:

- K+ = K- wherever S = 0, so in the first round Definition 1's sum is 0 for every f and its strict ``> 0``
  would return an empty ensemble. Ties are undecided here: they have no part in the barrier, in the edge or
  in the Eq. 7 share, and the first member is accepted on its loss alone (`training.find_wl`).
- Eq. 6 averages its first term over the samples and sums its second. Both are means here, so gamma has no
  unit and does not depend on N.
- Theorem 1 assumes Eq. 7 in every round, Algorithm 2 checks only Definition 1; see :func:`theorem1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training import ranks

POLE_DISTANCE = 0.01
"""Where the logarithm of Eq. 6 goes over into its tangent: at 1 % of the distance 2B from the pole.

Beyond the pole the logarithm does not exist, and clamping it would remove the gradient just where the
violation is worst.
"""


def centre(logits_NL: Tensor) -> Tensor:
    """Remove the mean over labels: softmax does not see it, but a residual would."""
    return logits_NL - logits_NL.mean(dim=-1, keepdim=True)


def log_weights(S_NL: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """``log K+`` and ``log K-``, (N, L) in fp64, normalised jointly for each label.

    In log space because ``exp(eta S)`` overflows fp32 from 88.7 on; jointly because normalising the two
    matrices apart changes which of the two is larger.
    """
    scaled_NL, log_Z_L = eta * S_NL.double(), log_normaliser(S_NL, eta)
    return -scaled_NL - log_Z_L, scaled_NL - log_Z_L


def log_normaliser(S_NL: Tensor, eta: float) -> Tensor:
    """``log Z`` of :func:`log_weights`, (L,) in fp64."""
    scaled_NL = eta * S_NL.double()
    return ranks.logsumexp(torch.logaddexp(scaled_NL, -scaled_NL))


def wanted_sign(S_NL: Tensor) -> Tensor:
    """+1 where K+ > K- (I+ = 1: the residual should be positive), -1 where K+ < K-, 0 at a tie; (N, L).

    K+ > K- exactly where S < 0, whatever eta > 0 is.
    """
    return -torch.sign(S_NL)


def edges(S_NL: Tensor, l_NL: Tensor, eta: float) -> Tensor:
    """Definition 1's sum for each label, (L,) in fp64: positive everywhere means weak learner."""
    log_plus_NL, log_minus_NL = log_weights(S_NL, eta)
    return ranks.total(((log_plus_NL.exp() - log_minus_NL.exp()) * l_NL.double()).sum(dim=0))


def eq7_share(S_NL: Tensor, l_NL: Tensor) -> float:
    """Share of (sample, label) pairs, ties left out, for which Eq. 7 holds; 0 when every pair is a tie."""
    sign_NL = wanted_sign(S_NL)
    decided = int(ranks.total((sign_NL != 0).sum()))
    holds = int(ranks.total((sign_NL * l_NL > 0).sum()))
    return holds / decided if decided else 0.0


def effective_samples(S_NL: Tensor, eta: float) -> float:
    """Smallest effective sample size ``(sum K)^2 / sum K^2`` over both matrices and all labels.

    A large eta puts nearly all weight on a few samples; then Definition 1 says little about the others.
    """
    sizes = [2 * ranks.logsumexp(log_NL) - ranks.logsumexp(2 * log_NL) for log_NL in log_weights(S_NL, eta)]
    return float(torch.stack(sizes).min().exp())


def imbalance(S_NL: Tensor, eta: float, log_Z_L: Tensor, samples: int) -> Tensor:
    """``N |K+ - K-|`` of some samples, (n, L) in fp64, where `log_Z_L` is that of all N.

    Times N, so that the mean over a batch is an unbiased estimate of Definition 1's sum; in log space, because
    ``2 sinh(eta |S|)`` overflows.
    """
    scaled_NL = eta * S_NL.abs().double()
    return samples * (scaled_NL + torch.log1p(-torch.exp(-2 * scaled_NL)) - log_Z_L).exp()


def barrier(
    l_NL: Tensor, sign_NL: Tensor, B: float, *, weights_NL: Tensor | float = 1.0, cap_NL: Tensor | float = math.inf
) -> Tensor:
    """Second term of Eq. 6 without its 1/gamma: mean of ``-log(1 + sign * l / 2B)``; a scalar.

    Ties (sign 0) contribute exactly nothing, to the value and to the gradient. Near its pole at
    ``sign * l = -2B`` the logarithm is continued by its tangent, so value and slope stay finite.

    Two variants, neither in the paper: with weights from :func:`imbalance` its slope at ``l = 0`` is that of
    Definition 1's sum over 2B, where Eq. 6 counts every sample alike; with a cap it saturates, where Eq. 6 rewards
    ever larger residuals of the right sign.

    Args:
        l_NL: residuals of the candidate on a batch.
        sign_NL: :func:`wanted_sign` of the same samples.
        B: bound on the centred logits, ``B >= max(|f|, |g|)``.
        weights_NL: factor of each pair.
        cap_NL: value of ``sign * l`` beyond which there is no further reward, nor a gradient.
    """
    towards_NL = (sign_NL * l_NL).clamp(max=cap_NL)
    u_NL = 1 + towards_NL / (2 * B)
    inside_NL = u_NL.clamp(min=POLE_DISTANCE).log()
    tangent_NL = math.log(POLE_DISTANCE) + (u_NL - POLE_DISTANCE) / POLE_DISTANCE
    return -(weights_NL * torch.where(u_NL >= POLE_DISTANCE, inside_NL, tangent_NL)).mean()


def distillation_loss(logits_NL: Tensor, teacher_NL: Tensor, temperature: float) -> Tensor:
    """Hinton's loss: KL(teacher || student) of softened probabilities, mean over samples, times T^2.

    T^2 keeps the gradient's size when the temperature changes; zero exactly when the two agree.
    """
    student_NL = (logits_NL / temperature).log_softmax(dim=-1)
    soft_NL = (teacher_NL / temperature).log_softmax(dim=-1)
    return (soft_NL.exp() * (soft_NL - student_NL)).sum(dim=-1).mean() * temperature**2


def squared_loss(values_NL: Tensor, teacher_NL: Tensor) -> Tensor:
    """Mean over samples and labels of the squared difference: L_task of a regression."""
    return ((values_NL - teacher_NL) ** 2).mean()


def label_loss(logits_NL: Tensor, y_N: Tensor, alpha: float) -> Tensor:
    """``alpha CE(y)``, mixed into the distillation loss: a student need not repeat the teacher's mistakes.

    Nothing is computed, and exactly 0 returned, for ``alpha = 0``, which is the paper.
    """
    return alpha * torch.nn.functional.cross_entropy(logits_NL, y_N) if alpha else logits_NL.new_zeros(())


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on the sup norm of ``F_T - g`` after T rounds, in logits."""

    paper: float
    """Eq. 10, ``G sqrt(ln 2N / T)``: not implied by Definition 1, an adversary can exceed it by 44 %."""
    paper_eta: float
    """``1.5 G sqrt(ln 2N / T)``: implied by Definition 1 with the paper's eta."""
    best_eta: float
    """``sqrt(2) G sqrt(ln 2N / T)``: implied by Definition 1 with ``eta = sqrt(2 ln 2N / T) / G``."""
    eq7: float
    """``G / T``: implied by Eq. 7 in every round, as the theorem assumes."""
    applies: bool
    """Whether ``T >= ln 2N``, which the theorem asks for; few real runs meet it."""


def theorem1(G: float, samples: int, rounds: int) -> Bounds:
    """Theorem 1 with the constants that its premises give, beside the published one.

    Each round multiplies the potential ``sum_i cosh(eta S_i)`` by at most ``exp(eta^2 G^2 / 2)`` when the edge
    is not negative (Hoeffding's lemma), so ``|S| <= ln(2N) / eta + eta T G^2 / 2``: 1.5 for the paper's
    eta, sqrt(2) for the best one.
    """
    rate = G * math.sqrt(math.log(2 * samples) / rounds)
    return Bounds(rate, 1.5 * rate, math.sqrt(2) * rate, G / rounds, rounds >= math.log(2 * samples))


def theorem1_eta(G: float, samples: int, rounds: int, *, best: bool = False) -> float:
    """The theorem's ``eta = sqrt(ln 2N / T) / G``; with `best`, the one that minimises the bound."""
    return math.sqrt((2 if best else 1) * math.log(2 * samples) / rounds) / G

"""The pure functions against the paper's recurrences and the known pitfalls of reading it literally."""

from __future__ import annotations

import math

import pytest
import torch

from training import boosting
from training.boosting import (
    barrier,
    centre,
    distillation_loss,
    edges,
    effective_samples,
    eq7_share,
    imbalance,
    label_loss,
    log_normaliser,
    log_weights,
    theorem1,
    theorem1_eta,
    wanted_sign,
)
from training.reproduce import adversary

N, L = 40, 3


def normal(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recurrence(residuals: list[torch.Tensor], eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Eqs. 4 and 5 and line 10 of Algorithm 1, as printed."""
    plus = minus = torch.full((N, L), 1 / (2 * N), dtype=torch.float64)
    for l_NL in residuals:
        plus, minus = plus * torch.exp(-eta * l_NL), minus * torch.exp(eta * l_NL)
        total_L = (plus + minus).sum(dim=0)
        plus, minus = plus / total_L, minus / total_L
    return plus, minus


def test_pitfall_1_weights_from_the_cumulative_residual_equal_the_recurrence():
    residuals = [normal(seed, N, L) for seed in range(5)]
    plus, minus = recurrence(residuals, eta=0.7)
    log_plus, log_minus = log_weights(torch.stack(residuals).sum(dim=0), eta=0.7)
    torch.testing.assert_close(log_plus.exp(), plus, rtol=1e-12, atol=0)
    torch.testing.assert_close(log_minus.exp(), minus, rtol=1e-12, atol=0)


def test_pitfall_1_no_overflow_where_fp32_exp_overflows():
    S_NL = torch.tensor([[89.0], [-500.0], [0.0]])
    assert torch.exp(S_NL[0]).isinf()
    log_plus, log_minus = log_weights(S_NL, eta=1.0)
    assert log_plus.isfinite().all()
    assert log_minus.isfinite().all()
    assert edges(S_NL, -torch.sign(S_NL), 1.0).item() == pytest.approx(1.0)


def test_pitfall_2_normalised_jointly_for_each_label():
    S_NL = normal(0, N, L) + torch.tensor([0.0, 1.0, -2.0])
    log_plus, log_minus = log_weights(S_NL, eta=1.0)
    torch.testing.assert_close((log_plus.exp() + log_minus.exp()).sum(dim=0), torch.ones(L, dtype=torch.float64))
    assert torch.equal(log_plus > log_minus, S_NL < 0)
    apart = log_plus - log_plus.logsumexp(dim=0) > log_minus - log_minus.logsumexp(dim=0)
    assert not torch.equal(apart, S_NL < 0), "normalising the matrices apart must be seen to be wrong"


def test_pitfall_3_a_tie_has_no_part_in_the_barrier():
    l_NL = normal(0, N, L).requires_grad_()
    sign_NL = wanted_sign(torch.zeros(N, L))
    assert (sign_NL == 0).all()
    value = barrier(l_NL, sign_NL, B=10.0)
    value.backward()
    assert value.item() == 0
    assert (l_NL.grad == 0).all()


def test_definition_1_is_the_printed_sum():
    S_NL, l_NL = normal(0, N, L), normal(1, N, L)
    plus, minus = recurrence([S_NL], eta=0.3)
    printed = (plus * l_NL).sum(dim=0) + (minus * -l_NL).sum(dim=0)
    torch.testing.assert_close(edges(S_NL, l_NL, 0.3), printed)
    assert (edges(S_NL, -S_NL, 0.3) > 0).all()
    assert (edges(S_NL, S_NL, 0.3) < 0).all()


def test_literal_algorithm_1_has_no_first_weak_learner():
    assert torch.equal(edges(torch.zeros(N, L), normal(0, N, L), 1.0), torch.zeros(L, dtype=torch.float64))


def test_eq7_share_leaves_ties_out():
    S_NL = torch.tensor([[1.0], [1.0], [-1.0], [0.0]])
    l_NL = torch.tensor([[-1.0], [2.0], [3.0], [5.0]])
    assert eq7_share(S_NL, l_NL) == pytest.approx(2 / 3)
    assert eq7_share(torch.zeros(3, 1), torch.ones(3, 1)) == 0


@pytest.mark.parametrize(("l", "value"), [(-1.0, 0.0513), (0.0, 0.0), (1.0, -0.0488), (-19.0, 2.9957)])
def test_pitfall_6_the_pole_of_the_barrier_is_at_minus_2B_not_at_0(l: float, value: float):  # noqa: E741
    one = torch.ones(1, 1, dtype=torch.float64)
    assert barrier(l * one, one, B=10.0).item() == pytest.approx(value, abs=1e-4)
    assert barrier(-l * one, -one, B=10.0).item() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("factor", [-1.9, -1.99, -2.0, -3.0, -100.0])
def test_pitfall_7_finite_and_steep_beyond_the_pole(factor: float):
    B = 4.0
    l_NL = torch.tensor([[factor * B]], dtype=torch.float64, requires_grad=True)
    value = barrier(l_NL, torch.ones(1, 1), B)
    value.backward()
    assert value.isfinite()
    assert l_NL.grad.item() <= -1 / (2 * B), "at least as steep as in the middle, and towards larger l"


def test_pitfall_7_value_and_slope_are_continuous_where_the_tangent_begins():
    B, joint = 4.0, 2 * 4.0 * (boosting.POLE_DISTANCE - 1)
    l_NL = torch.tensor([[joint - 1e-9], [joint + 1e-9]], dtype=torch.float64, requires_grad=True)
    values = torch.stack([barrier(row[None], torch.ones(1, 1), B) for row in l_NL])
    values.sum().backward()
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    assert l_NL.grad[0].item() == pytest.approx(l_NL.grad[1].item(), rel=1e-5)


def test_pitfall_8_loss_does_not_change_when_the_batch_is_duplicated():
    l_NL, sign_NL, g_NL = normal(0, N, L), wanted_sign(normal(1, N, L)), normal(2, N, L)
    twice = barrier(l_NL.repeat(2, 1), sign_NL.repeat(2, 1), 10.0)
    torch.testing.assert_close(twice, barrier(l_NL, sign_NL, 10.0))
    task = distillation_loss(g_NL + l_NL, g_NL, 4.0)
    torch.testing.assert_close(distillation_loss((g_NL + l_NL).repeat(2, 1), g_NL.repeat(2, 1), 4.0), task)


def test_pitfall_8_gamma_has_no_unit():
    l_NL, sign_NL = normal(0, N, L), wanted_sign(normal(1, N, L))
    torch.testing.assert_close(barrier(7 * l_NL, sign_NL, 70.0), barrier(l_NL, sign_NL, 10.0))


def test_pitfall_9_mini_batch_gradients_are_unbiased():
    l_NL, sign_NL = normal(0, N, L).requires_grad_(), wanted_sign(normal(1, N, L))
    (full,) = torch.autograd.grad(barrier(l_NL, sign_NL, 10.0), l_NL)
    parts = [barrier(l_NL[rows], sign_NL[rows], 10.0) for rows in torch.arange(N).split(N // 8)]
    (mean,) = torch.autograd.grad(torch.stack(parts).mean(), l_NL)
    torch.testing.assert_close(mean, full)


def test_the_weighted_barrier_climbs_definition_1s_sum():
    """At l = 0 its gradient is that of the sum, over 2B and the labels' mean, whatever the weights' size."""
    eta, B = 0.8, 10.0
    S_NL, l_NL = normal(0, N, L, scale=3.0), torch.zeros(N, L, dtype=torch.float64, requires_grad=True)
    weights_NL = imbalance(S_NL, eta, log_normaliser(S_NL, eta), N)
    (gradient,) = torch.autograd.grad(barrier(l_NL, wanted_sign(S_NL), B, weights_NL=weights_NL), l_NL)
    (wanted,) = torch.autograd.grad(edges(S_NL, l_NL, eta).mean(), l_NL)
    torch.testing.assert_close(gradient, -wanted / (2 * B))


def test_pitfall_9_the_weights_are_those_of_all_samples_and_unbiased_on_a_batch():
    S_NL = normal(0, N, L, scale=2.0)
    log_Z_L = log_normaliser(S_NL, 1.0)
    plus_NL, minus_NL = log_weights(S_NL, 1.0)
    whole_NL = imbalance(S_NL, 1.0, log_Z_L, N)
    torch.testing.assert_close(whole_NL, N * (plus_NL.exp() - minus_NL.exp()).abs())
    for rows in torch.arange(N).split(8):
        assert torch.equal(imbalance(S_NL[rows], 1.0, log_Z_L, N), whole_NL[rows])


def test_the_weights_are_finite_where_sinh_overflows_and_zero_at_ties():
    S_NL = torch.tensor([[2000.0], [0.0], [-1.0]])
    found = imbalance(S_NL, 1.0, log_normaliser(S_NL, 1.0), 3)[:, 0]
    assert found.tolist() == [3.0, 0.0, 0.0]


def test_the_saturating_barrier_rewards_undoing_the_residual_and_no_more():
    l_NL = torch.tensor([[0.5], [2.5], [-2.5]], dtype=torch.float64, requires_grad=True)
    sign_NL, cap_NL = torch.ones(3, 1), torch.full((3, 1), 2.0)
    capped = [barrier(row[None], sign_NL[:1], 10.0, cap_NL=cap_NL[:1]) for row in l_NL]
    literal = [barrier(row[None], sign_NL[:1], 10.0) for row in l_NL]
    assert [a.item() == b.item() for a, b in zip(capped, literal, strict=True)] == [True, False, True]
    torch.stack(capped).sum().backward()
    assert l_NL.grad[1] == 0
    assert l_NL.grad[0] < 0
    assert l_NL.grad[2] < 0


def test_labels_are_mixed_in_by_their_weight():
    logits_NL, y_N = normal(0, N, L), torch.arange(N) % L
    expected = 0.3 * -logits_NL.log_softmax(dim=1)[torch.arange(N), y_N].mean()
    torch.testing.assert_close(label_loss(logits_NL, y_N, 0.3), expected)
    assert label_loss(logits_NL, y_N, 0.0).item() == 0


def test_pitfall_10_effective_samples_against_the_closed_form():
    samples = 100_000
    S_NL = normal(0, samples, 1)
    assert effective_samples(torch.zeros(samples, 1), 1.0) == pytest.approx(samples)
    assert effective_samples(S_NL, 1.0) == pytest.approx(samples * math.exp(-1), rel=0.08)
    assert effective_samples(S_NL, 0.5) == pytest.approx(samples * math.exp(-0.25), rel=0.02)
    assert effective_samples(4 * S_NL, 1.0) < 100, "a residual of a few logits leaves only a handful of samples"


def test_pitfall_15_the_residual_does_not_see_a_shift_of_a_samples_logits():
    f_NL, g_NL, shift_N1 = normal(0, N, L), normal(1, N, L), normal(2, N, 1, scale=9.0)
    shifted = centre(f_NL + shift_N1) - centre(g_NL)
    torch.testing.assert_close(shifted, centre(f_NL) - centre(g_NL))
    assert not torch.allclose(f_NL + shift_N1 - g_NL, f_NL - g_NL, atol=1.0)


def gradient_norm(temperature: float, factor: float = 1.0) -> float:
    logits, teacher = normal(0, N, 10, scale=3.0).requires_grad_(), normal(1, N, 10, scale=3.0)
    (gradient,) = torch.autograd.grad(factor * distillation_loss(logits, teacher, temperature), logits)
    return float(gradient.norm())


def test_pitfall_16_temperature_does_not_change_the_size_of_the_gradient():
    assert 0.3 < gradient_norm(16.0) / gradient_norm(1.0) < 3
    assert gradient_norm(16.0, factor=1 / 16**2) / gradient_norm(1.0) < 0.02, "what it would be without T^2"


def test_pitfall_16_loss_is_a_mean_over_samples_and_0_for_the_teacher():
    g_NL = normal(0, N, L)
    assert distillation_loss(g_NL, g_NL, 4.0).item() == pytest.approx(0, abs=1e-15)
    one = distillation_loss(g_NL[:1] + 1.0 * torch.eye(L)[:1], g_NL[:1], 1.0)
    p, q = g_NL[0].softmax(0), (g_NL[0] + torch.eye(L)[0]).softmax(0)
    assert one.item() == pytest.approx(float((p * (p / q).log()).sum()))


@pytest.mark.parametrize(("rounds", "excess"), [(12, 1.02), (24, 1.20), (40, 1.21)])
def test_theorem_1_constant_is_exceeded_under_definition_1_but_the_corrected_ones_hold(rounds: int, excess: float):
    samples = 50_000
    bounds = theorem1(1.0, samples, rounds)
    assert bounds.applies
    best = adversary.play(samples, rounds, theorem1_eta(1.0, samples, rounds, best=True))
    assert best / bounds.paper == pytest.approx(excess, abs=0.01)
    assert best <= bounds.best_eta
    literal = adversary.play(samples, rounds, theorem1_eta(1.0, samples, rounds))
    assert bounds.paper < literal <= bounds.paper_eta


def test_theorem_1_adversary_keeps_every_edge_non_negative():
    """The count of `adversary.play`, replayed sample by sample against Definition 1 itself."""
    samples, rounds = 512, 10
    eta = theorem1_eta(1.0, samples, rounds)
    S_NL = torch.zeros(samples, 1, dtype=torch.float64)
    for _ in range(rounds):
        weight = torch.sinh(eta * S_NL[:, 0].abs())
        order = weight.argsort(descending=True, stable=True)
        away = weight[order].cumsum(0) <= weight.sum() / 2 + 1e-9
        sign = torch.where(S_NL[order, 0] >= 0, 1.0, -1.0).double()
        l_NL = torch.empty_like(S_NL)
        l_NL[order, 0] = torch.where(away, sign, -sign)
        assert edges(S_NL, l_NL, eta).item() >= -1e-9
        S_NL = S_NL + l_NL
    assert float(S_NL.abs().max()) / rounds <= theorem1(1.0, samples, rounds).paper_eta


def test_theorem_1_under_eq7_the_error_is_at_most_G_over_T():
    S_NL = torch.zeros(N, L, dtype=torch.float64)
    rounds = 9
    for round_ in range(rounds):
        size = normal(round_, N, L).abs().clamp(max=1.0)
        l_NL = torch.where(S_NL == 0, size, wanted_sign(S_NL) * size)
        assert round_ == 0 or eq7_share(S_NL, l_NL) == 1
        S_NL = S_NL + l_NL
    assert float((S_NL / rounds).abs().max()) <= theorem1(1.0, N, rounds).eq7


def test_theorem_1_says_when_it_does_not_apply():
    assert not theorem1(1.0, 50_000, 7).applies
    assert theorem1(1.0, 548, 7).applies
    assert not theorem1(1.0, 549, 7).applies

"""Every formula on numbers worked out by hand."""

import math

import pytest
import torch

from editorbot_core.policy.losses import (
    approximate_kl,
    categorical_kl,
    clipped_surrogate,
    dpo_loss,
    ipo_loss,
    kl_pressure,
    next_kl_weight,
    soft_preference,
    value_error,
)


def test_clipped_surrogate_by_hand():
    log_ratio = torch.tensor([0.0, math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)])
    advantages = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    # max(-A r, -A clip(r)): -2; -min(1.5, 1.2); max(1.5, 1.2); -min(0.5, 0.8); max(0.5, 0.8)
    expected = torch.tensor([-2.0, -1.2, 1.5, -0.5, 0.8])
    torch.testing.assert_close(clipped_surrogate(log_ratio, advantages, clip_coef=0.2), expected)


def test_clipping_stops_the_gradient_only_on_the_side_that_gains():
    log_ratio = torch.tensor([math.log(1.5), math.log(1.5)], requires_grad=True)
    clipped_surrogate(log_ratio, torch.tensor([1.0, -1.0]), clip_coef=0.2).sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 1.5]))


def test_kl_by_hand_and_forbidden_actions_add_nothing():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    forbidden = torch.tensor([-1e9])
    kl = categorical_kl(torch.cat([p, forbidden]), torch.cat([q, forbidden]))
    assert float(kl) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(categorical_kl(p, p)) == 0


def test_approximate_kl_and_value_error_by_hand():
    torch.testing.assert_close(approximate_kl(torch.tensor([math.log(2.0)])), torch.tensor([1 - math.log(2.0)]))
    torch.testing.assert_close(value_error(torch.tensor([3.0]), torch.tensor([1.0])), torch.tensor([2.0]))


def test_the_kl_weight_follows_the_kl_slowly_and_within_bounds():
    def step(weight, kl):
        return next_kl_weight(weight, kl, kl_target=0.3, initial=0.1)

    assert step(0.1, 0.3) == pytest.approx(0.1)
    assert step(0.1, 0.45) == pytest.approx(0.1025)
    assert step(0.1, 3.0) == pytest.approx(0.105)
    assert step(0.1, 0.0) == pytest.approx(0.095)
    assert step(9.9, 3.0) == pytest.approx(10.0)
    assert step(0.01, 0.0) == pytest.approx(0.01)


def test_the_kl_presses_little_below_its_target_and_hard_above():
    pressures = [kl_pressure(0.1, kl, kl_target=0.3) for kl in (-1e-9, 0.15, 0.3, 0.6, 9.0)]
    assert pressures == pytest.approx([0.0, 0.025, 0.1, 0.4, 0.9])


def test_dpo_loss_by_hand():
    # -log sigmoid(0.5 * 2) where a is preferred, -log sigmoid(-1) where b is; a tie is their mean.
    preferred, rejected = -math.log(1 / (1 + math.exp(-1))), -math.log(1 / (1 + math.exp(1)))
    loss = dpo_loss(torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]), beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([preferred, rejected, (preferred + rejected) / 2]))
    # At the reference nothing is known: log 2.
    assert float(dpo_loss(torch.tensor(0.0), torch.tensor(1.0), beta=0.1)) == pytest.approx(math.log(2))


def test_a_doubtful_label_is_best_met_by_a_finite_margin():
    # The soft loss is least where sigmoid(beta m) = p: beta m = log(0.9 / 0.1).
    margins = torch.linspace(-60, 60, 12001)
    best = margins[dpo_loss(margins, torch.full_like(margins, 0.9), beta=0.1).argmin()]
    assert float(best) == pytest.approx(math.log(9) / 0.1, abs=0.02)


def test_ipo_loss_by_hand():
    # Aimed-at margin 1 / (2 * 0.25) = 2.
    loss = ipo_loss(torch.tensor([2.0, 5.0, -2.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.5]), beta=0.25)
    torch.testing.assert_close(loss, torch.tensor([0.0, 9.0, 0.0, 1.0]))


def test_soft_preferences_by_hand():
    label = torch.tensor([1.0, 0.0, 0.5, 1.0])
    confidence = torch.tensor([1.0, 1.0, 1.0, 0.5])
    result = soft_preference(label, confidence, label_smoothing=0.05)
    torch.testing.assert_close(result, torch.tensor([0.95, 0.05, 0.5, 0.725]))

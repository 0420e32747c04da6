"""The formulas that policies are trained by: functions of tensors that know nothing of songs."""

import torch
import torch.nn.functional as F


def clipped_surrogate(log_ratio: torch.Tensor, advantages: torch.Tensor, *, clip_coef: float) -> torch.Tensor:
    """The negative clipped objective of every decision (Schulman et al. 2017, eq. 7), shaped like the inputs.

    Args:
        log_ratio: New minus old log-probability.
        advantages: Advantage of each decision.
        clip_coef: How far the ratio may leave 1 before its gradient stops.
    """
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_coef, 1 + clip_coef))


def value_error(values: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """Half the squared error of every value (Schulman et al. 2017, eq. 9, L^VF / 2)."""
    return 0.5 * (values - returns).square()


def categorical_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q), nat, over the last dimension; -1e9 stands for a forbidden action on both sides."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def approximate_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(old || new) from samples of old: (r - 1) - log r (Schulman 2020, estimator k3)."""
    return log_ratio.exp() - 1 - log_ratio


def kl_pressure(weight: float, kl: float, *, kl_target: float) -> float:
    """The weight of the KL in the loss: `weight` at the target, quadratic in the KL, at most 9 times `weight`.

    This is the gradient of a cubic penalty. It answers at once, so that a KL beyond its target is pushed back before
    the slower `next_kl_weight` has moved, and it vanishes below the target instead of pulling back to the reference.
    """
    return weight * min(max(kl / kl_target, 0.0), 3.0) ** 2


def next_kl_weight(weight: float, kl: float, *, kl_target: float, initial: float) -> float:
    """The adaptive KL weight (Ziegler et al. 2019, eq. 3, with a gain of 0.05), within 1/10 and 100 of its start.

    The error is clipped to [-1, 1], so a step changes the weight by at most 5 %: a faster rule overshoots, because
    the policy answers to a weight only after several iterations.
    """
    error = min(max(kl / kl_target - 1.0, -1.0), 1.0)
    return min(max(weight * (1.0 + 0.05 * error), 0.1 * initial), 100.0 * initial)


def dpo_loss(margin: torch.Tensor, preference: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The sigmoid loss of every pair (Rafailov et al. 2023, eq. 7; with soft labels cDPO, Mitchell 2023, eq. 3).

    Args:
        margin: Log-ratio of a minus that of b; a log-ratio is policy minus reference log-probability.
        preference: P(a preferred), in [0, 1]: 1 is the plain loss, 0.5 a tie.
        beta: How strongly the policy is held to the reference.
    """
    return -(preference * F.logsigmoid(beta * margin) + (1 - preference) * F.logsigmoid(-beta * margin))


def ipo_loss(margin: torch.Tensor, preference: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The squared loss of every pair (Azar et al. 2024, eq. 17); a soft label moves the aimed-at margin towards 0."""
    return (margin - (2 * preference - 1) / (2 * beta)).square()


def soft_preference(label: torch.Tensor, confidence: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
    """P(a preferred) to train on: `0.5 + (0.5 - eps) sign c`, as for the reward model."""
    return 0.5 + (2 * label - 1) * (0.5 - label_smoothing) * confidence

"""The update of proximal policy optimisation, which knows nothing of songs: any network, any decisions.

A *row* is something that is judged as a whole, such as an edit or one step of a game, and holds one decision or more;
rows of one group are never divided between gradient steps. All terms of the loss are means over the same decisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from editorbot_core.base.devices import is_distributed, sum_gradients, sum_over_processes
from editorbot_core.policy.config import PPOConfig
from editorbot_core.policy.losses import approximate_kl, clipped_surrogate, value_error


class LossSums(NamedTuple):
    """Sums over the decisions of one part of a gradient step; the first four carry gradients."""

    policy_loss: torch.Tensor
    value_loss: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    kl_old: torch.Tensor
    clipped: torch.Tensor


def loss_sums(
    *,
    log_ratio: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    returns: torch.Tensor,
    entropy: torch.Tensor,
    kl: torch.Tensor,
    clip_coef: float,
) -> LossSums:
    """The terms of the loss, from one number per decision, float32 (d,) each.

    Args:
        log_ratio: New minus old log-probability.
        advantages: Advantages, standardised.
        values: New values.
        returns: What the values should be.
        entropy: Of the new policy, nat.
        kl: Of the new policy to the reference, nat; zeros without one.
        clip_coef: Clipping of the probability ratio.
    """
    return LossSums(
        policy_loss=clipped_surrogate(log_ratio, advantages, clip_coef=clip_coef).sum(),
        value_loss=value_error(values, returns).sum(),
        entropy=entropy.sum(),
        kl=kl.sum(),
        kl_old=approximate_kl(log_ratio.detach()).sum(),
        clipped=((log_ratio.detach().exp() - 1).abs() > clip_coef).float().sum(),
    )


def standardised_advantages(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Advantages with mean 0 and deviation 1 over the decisions in `mask` of all processes, 0 elsewhere."""
    chosen = advantages[mask]
    n, first, second = sum_over_processes(
        torch.stack([torch.ones_like(chosen).sum(), chosen.sum(), chosen.square().sum()])
    )
    deviation = (second / n - (first / n).square()).clamp(min=1e-12).sqrt()
    return (advantages - first / n) / deviation * mask


def update_policy(
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    group: torch.Tensor,
    n_decisions: torch.Tensor,
    sums: Callable[[torch.Tensor], LossSums],
    config: PPOConfig,
    ent_coef: float,
    kl_weight: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """All gradient steps of one iteration (Schulman et al. 2017, algorithm 1); returns means over their decisions.

    Args:
        policy: The network whose parameters are improved.
        optimizer: Over its parameters.
        group: int64 (n,), the group of every row, counting from 0.
        n_decisions: int64 (n,), decisions of every row.
        sums: The terms of the loss over given rows, int64 (r,).
        config: Epochs, parts, clipping and the weight of the value error.
        ent_coef: Weight of the entropy.
        kl_weight: Weight of the KL to the reference.
        generator: Of the order of the groups, on the device of `group`.
    """
    n_groups = int(group.max()) + 1
    totals = torch.zeros(len(LossSums._fields) + 1, dtype=torch.float64)
    norms = []
    for _ in range(config.epochs):
        order = torch.randperm(n_groups, generator=generator, device=group.device)
        for groups in order.chunk(min(config.n_minibatches, n_groups)):
            rows = torch.isin(group, groups).nonzero()[:, 0]
            count = float(sum_over_processes(n_decisions[rows].sum().float()))
            optimizer.zero_grad(set_to_none=True)
            for part in rows.chunk(config.accumulation_steps):
                found = sums(part)
                loss = found.policy_loss + config.vf_coef * found.value_loss
                loss = loss + kl_weight * found.kl - ent_coef * found.entropy
                (loss / count).backward()
                totals[:-1] += torch.stack([value.detach() for value in found]).double().cpu()
            totals[-1] += float(n_decisions[rows].sum())
            sum_gradients(policy)
            norms.append(float(torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)))
            optimizer.step()
    totals = sum_over_processes(totals.float().to(group.device)).cpu() if is_distributed() else totals
    means = dict(zip(LossSums._fields, (totals[:-1] / totals[-1]).tolist(), strict=True))
    return {**means, "kl_weight": kl_weight, "grad_norm": sum(norms) / len(norms)}

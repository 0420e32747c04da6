"""Proximal policy optimisation of edits (Schulman et al. 2017) with a per-song group baseline (Shao et al. 2024).

One iteration samples edits of a few songs, several of each song at one target, scores the finished edits, and takes a
few gradient steps. All terms of the loss are means over the same decisions: real units of the sampled edits. A *step*
is one beat decided in a rollout.

Several processes (torch.distributed): each is given its own songs and seed; gradients, counts, the deviation of the
advantages and the KL are summed over all.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from editorbot_core.base.devices import sum_over_processes
from editorbot_core.base.progress import Log, Progress
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.policy.config import PPOConfig
from editorbot_core.policy.losses import categorical_kl, kl_pressure, next_kl_weight
from editorbot_core.policy.network import Policy
from editorbot_core.policy.ppo_state import PPOState, adam
from editorbot_core.policy.ppo_update import LossSums, loss_sums, standardised_advantages, update_policy
from editorbot_core.policy.rollout import (
    Rollout,
    compute_gae,
    draw_targets,
    edit_statistics,
    group_advantages,
    log_prob,
    sample_edits,
)
from editorbot_core.policy.selection import (
    HeldOut,
    Selection,
    augmented,
    decayed,
    frozen_copy,
    on_device,
    reference_whitening,
)
from editorbot_core.rewards.mixing import RewardPair, Scores, conservative_reward


def init_ppo(
    reference: Policy, songs: SongBatch, rewards: RewardPair, *, config: PPOConfig | None = None, seed: int = 0
) -> PPOState:
    """The state before the first iteration.

    Args:
        reference: The warm-started policy; it is copied, not changed. Its device is where training runs.
        songs: Training songs.
        rewards: Learned and dense reward.
        config: How the policy is improved.
        seed: Of all randomness; give each of several processes its own.
    """
    config = config or PPOConfig()
    policy = frozen_copy(reference).requires_grad_(True)
    generator = torch.Generator(policy.device).manual_seed(seed)
    whitening = reference_whitening(
        reference,
        on_device(songs, policy.device),
        rewards._replace(learned=conservative_reward(rewards.learned, config.ensemble_k)),
        n_edits=config.whitening_edits,
        target_range=config.target_range,
        generator=generator,
    )
    return PPOState(
        config=config,
        policy=policy,
        reference=frozen_copy(reference),
        optimizer=adam(policy, config),
        generator=generator,
        whitening=whitening,
        kl_weight=config.kl_coef,
        iteration=0,
        step=0,
        episode=0,
        selection=Selection(),
    )


class _Experience(NamedTuple):
    """The edits of one iteration and what learning needs of them; tensors of shape (n, U) where not said."""

    rollout: Rollout  # of the songs as the policy saw them, one row per group
    group: torch.Tensor  # int64 (n,)
    scores: Scores  # (n,) each
    advantages: torch.Tensor
    returns: torch.Tensor
    reference_log_softmax: torch.Tensor  # (n, U, 9)


def _draw_groups(state: PPOState, songs: SongBatch) -> torch.Tensor:
    """Songs of this iteration, int64 (n_groups,); none comes again before all have come."""
    device = state.generator.device
    # The same number in every process, or they would wait for each other's gradients forever.
    counts = torch.tensor([float(songs.beat_mask.sum()), float(songs.n_songs)], dtype=torch.float64, device=device)
    n_beats, n_songs = sum_over_processes(counts).tolist()
    n_groups = state.config.n_groups(n_beats / n_songs)
    rounds = -(-n_groups // songs.n_songs)
    orders = [torch.randperm(songs.n_songs, generator=state.generator, device=device) for _ in range(rounds)]
    return torch.cat(orders)[:n_groups]


def _collect(state: PPOState, songs: SongBatch, rewards: RewardPair) -> _Experience:
    config = state.config
    chosen = _draw_groups(state, songs)
    targets = draw_targets(
        len(chosen),
        generator=state.generator,
        target_range=config.target_range,
        extended_frac=config.extended_frac,
    )
    group = torch.arange(len(chosen), device=chosen.device).repeat_interleave(config.samples_per_song)
    seen = augmented(
        songs.select(chosen),
        state.policy,
        noise=config.feature_noise,
        dropout=config.feature_dropout,
        generator=state.generator,
    )
    rollout = sample_edits(state.policy, seen, song_index=group, target_ratio=targets[group], generator=state.generator)
    heard = EditBatch(songs, chosen[group], rollout.actions, rollout.edits.target_ratio)
    scores = rewards.score(heard)
    mixed = scores.mixed(state.whitening)
    advantages, returns = _advantages(rollout, mixed, group, config)
    with torch.no_grad():
        reference = log_prob(state.reference, rollout.edits).log_softmax
    return _Experience(rollout, group, scores, advantages, returns, reference)


def _advantages(
    rollout: Rollout, mixed: torch.Tensor, group: torch.Tensor, config: PPOConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns per unit, (n, U) each; gamma is 1, the reward comes at the last unit."""
    mask = rollout.edits.unit_mask
    if config.advantage == "group":
        return group_advantages(mixed, group, total=sum_over_processes)[:, None] * mask, mixed[:, None].expand_as(
            rollout.values
        )
    last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(1, keepdim=True) - 1
    estimates = compute_gae(
        mixed[:, None] * last,
        rollout.values * mask,
        last,
        torch.zeros_like(mixed),
        gamma=1.0,
        gae_lambda=config.gae_lambda,
    )
    return standardised_advantages(estimates.advantages, mask), estimates.returns


def _loss_sums(policy: Policy, data: _Experience, rows: torch.Tensor, config: PPOConfig) -> LossSums:
    edits = data.rollout.edits
    part = EditBatch(edits.songs, edits.song_index[rows], edits.actions[rows], edits.target_ratio[rows])
    new = log_prob(policy, part)
    mask = new.unit_mask
    return loss_sums(
        log_ratio=(new.log_probs - data.rollout.log_probs[rows])[mask],
        advantages=data.advantages[rows][mask],
        values=new.values[mask],
        returns=data.returns[rows][mask],
        entropy=new.entropy[mask],
        kl=categorical_kl(new.log_softmax[mask], data.reference_log_softmax[rows][mask]),
        clip_coef=config.clip_coef,
    )


def _kl_now(data: _Experience) -> float:
    """KL of the policy that made the edits to the reference, nat per unit, over all processes."""
    mask = data.rollout.edits.unit_mask
    kl = categorical_kl(data.rollout.log_softmax[mask], data.reference_log_softmax[mask])
    total, count = sum_over_processes(torch.stack([kl.sum(), torch.ones_like(kl).sum()])).tolist()
    return total / count


def _metrics(
    state: PPOState, data: _Experience, update: dict[str, float], *, collect_s: float, update_s: float
) -> dict[str, float]:
    rollout = data.rollout
    n_units = float(rollout.edits.unit_mask.sum())
    rewards = {
        "total_reward": float(data.scores.total.mean()),
        "learned_reward": float(data.scores.learned.mean()),
        "dense_reward": float(data.scores.dense.mean()),
    }
    return {
        "episode": float(state.episode),
        "step": float(state.step),
        **rewards,
        "policy_loss": update["policy_loss"],
        "value_loss": update["value_loss"],
        "kl": update["kl"],
        "entropy": update["entropy"],
        "ppo/total_reward": rewards["total_reward"],
        "ppo/reward_learned": rewards["learned_reward"],
        "ppo/reward_dense": rewards["dense_reward"],
        "ppo/reward_mixed": float(data.scores.mixed(state.whitening).mean()),
        "ppo/kl_ref_unit": update["kl"],
        "ppo/kl_old": update["kl_old"],
        "ppo/entropy": update["entropy"],
        "ppo/clip_frac": update["clipped"],
        "ppo/grad_norm": update["grad_norm"],
        "ppo/beta": update["kl_weight"],
        "ppo/learning_rate": float(state.optimizer.param_groups[0]["lr"]),
        "edit/mask_forced_frac": rollout.mask_forced_frac,
        **edit_statistics(rollout.edits),
        "perf/env_steps_s": n_units / max(collect_s, 1e-9),
        "perf/learner_steps_s": n_units * state.config.epochs / max(update_s, 1e-9),
    }


def train_ppo(
    state: PPOState,
    songs: SongBatch,
    rewards: RewardPair,
    *,
    total_steps: int,
    max_iterations: int | None = None,
    evaluate: Callable[[Policy], HeldOut] | None = None,
    after_iteration: Callable[[PPOState], None] | None = None,
    log: Log | None = None,
    progress: Progress | None = None,
) -> PPOState:
    """Improve `state.policy` until `total_steps` beats were decided; returns the same state, changed in place.

    Args:
        state: From `init_ppo`, or from a checkpoint of an earlier run with the same songs, rewards and total.
        songs: Training songs; always the same object, so that rewards may keep what they encoded.
        rewards: Learned and dense reward.
        total_steps: Beats in all, counted from the first iteration ever; also the length of the schedules.
        max_iterations: Return when `state.iteration` reaches this, wherever the schedules are.
        evaluate: Judges the policy on held-out songs every `evaluate_every` iterations and at the end.
        after_iteration: Called at every iteration boundary, the only place for a checkpoint.
        log: Gets the metrics of every iteration and the step.
        progress: Told how many steps are done.
    """
    config = state.config
    songs = on_device(songs, state.policy.device)
    rewards = rewards._replace(learned=conservative_reward(rewards.learned, config.ensemble_k))
    if evaluate is not None and state.iteration == 0:
        state.selection.observe(state.policy, evaluate(state.policy.eval()), guard_drop=config.guard_drop)
    while state.step < total_steps and not state.stopped:
        if max_iterations is not None and state.iteration >= max_iterations:
            break
        learning_rate = decayed(
            config.learning_rate, 0.1 * config.learning_rate, step=state.step, total_steps=total_steps
        )
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = learning_rate
        ent_coef = decayed(config.ent_coef, config.ent_coef_final, step=state.step, total_steps=total_steps)

        started = time.perf_counter()
        data = _collect(state, songs, rewards)
        collected = time.perf_counter()
        state.policy.train()
        kl_weight = kl_pressure(state.kl_weight, _kl_now(data), kl_target=config.kl_target)
        update = update_policy(
            state.policy,
            state.optimizer,
            group=data.group,
            n_decisions=data.rollout.edits.unit_mask.sum(1),
            sums=partial(_loss_sums, state.policy, data, config=config),
            config=config,
            ent_coef=ent_coef,
            kl_weight=kl_weight,
            generator=state.generator,
        )
        state.policy.eval()
        updated = time.perf_counter()

        edits = data.rollout.edits
        beats = edits.songs.beat_mask.sum(1)[edits.song_index].sum()
        state.iteration += 1
        state.step += int(sum_over_processes(beats))
        state.episode += int(sum_over_processes(torch.tensor(len(data.group), device=data.group.device)))
        metrics = _metrics(state, data, update, collect_s=collected - started, update_s=updated - collected)
        state.kl_weight = next_kl_weight(
            state.kl_weight, update["kl"], kl_target=config.kl_target, initial=config.kl_coef
        )
        if evaluate is not None and (state.iteration % config.evaluate_every == 0 or state.step >= total_steps):
            judgement = evaluate(state.policy)
            state.selection.observe(state.policy, judgement, guard_drop=config.guard_drop)
            metrics["eval/score"] = judgement.score
            if judgement.guard is not None:
                metrics["eval/guard"] = judgement.guard
            if state.selection.strikes >= config.guard_patience:
                state.stopped = (
                    f"the guard fell from {state.selection.first.guard:.4g} to {judgement.guard:.4g} while the score "
                    f"rose to {judgement.score:.4g}"
                    if state.selection.first is not None and state.selection.first.guard is not None
                    else "the guard fell"
                )
        if log is not None:
            log(metrics, state.step)
        if progress is not None:
            progress("ppo", min(state.step, total_steps), total_steps)
        if after_iteration is not None:
            after_iteration(state)
    return state

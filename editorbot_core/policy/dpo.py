"""Direct preference optimisation of edits (Rafailov et al. 2023) from answers to pairs.

The log-probability of an edit is the sum over its units, without length normalisation: both sides of a pair have the
same units. Reference log-probabilities are computed once and kept with the digest of the reference. Pairs of which
the mask forbids a side are left out and counted. A *step* is one beat of an edit that was judged.
"""

import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from editorbot_core.base.devices import least_over_processes, sum_gradients, sum_over_processes
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.progress import Log, Progress
from editorbot_core.base.tensors import module_digest
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.policy.config import DPOConfig
from editorbot_core.policy.dpo_state import DPOState, adam
from editorbot_core.policy.environment import respects_mask
from editorbot_core.policy.losses import dpo_loss, ipo_loss, soft_preference
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import log_prob
from editorbot_core.policy.selection import HeldOut, Selection, decayed, frozen_copy, rollout_metrics
from editorbot_core.preferences.pairs import PairBatch
from editorbot_core.rewards.mixing import RewardPair


def _both_sides(pairs: PairBatch, rows: torch.Tensor) -> EditBatch:
    """Sides a, then sides b, of the given pairs."""
    return EditBatch(
        pairs.songs,
        pairs.song_index[rows].repeat(2),
        torch.cat([pairs.actions_a[rows], pairs.actions_b[rows]]),
        pairs.target_ratio[rows].repeat(2),
    )


def pairs_digest(pairs: PairBatch) -> str:
    """Hexadecimal SHA-256 of what the pairs are and how they were answered."""
    hasher = hashlib.sha256()
    for name in ("song_index", "actions_a", "actions_b", "target_ratio", "label", "confidence", "strength"):
        hasher.update(getattr(pairs, name).cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def _usable_rows(pairs: PairBatch) -> torch.Tensor:
    """Rows whose two sides the mask allows, int64 (n,)."""
    if len(pairs.song_index) == 0:
        return torch.zeros(0, dtype=torch.int64, device=pairs.song_index.device)
    both = respects_mask(_both_sides(pairs, torch.arange(len(pairs.song_index), device=pairs.song_index.device)))
    return (both.view(2, -1).all(0)).nonzero()[:, 0]


@torch.no_grad()
def edit_log_probs(policy: Policy, pairs: PairBatch, rows: torch.Tensor, *, batch_pairs: int) -> torch.Tensor:
    """Log-probability of both sides of the given pairs, float32 (n, 2)."""
    parts = [
        log_prob(policy, _both_sides(pairs, part)).log_probs.sum(1).view(2, -1).T for part in rows.split(batch_pairs)
    ]
    return torch.cat(parts) if len(rows) else torch.zeros((0, 2), device=rows.device)


def init_dpo(reference: Policy, pairs: PairBatch, *, config: DPOConfig | None = None, seed: int = 0) -> DPOState:
    """The state before the first gradient step.

    Args:
        reference: The warm-started policy; it is copied, not changed.
        pairs: Training pairs, on the reference's device.
        config: How the policy learns.
        seed: Of the order of pairs and of the edits sampled for the log.

    Raises:
        ParameterError: If the mask refuses every pair.
    """
    config = config or DPOConfig()
    usable = _usable_rows(pairs)
    n_refused = pairs.n_refused + len(pairs.song_index) - len(usable)
    if len(usable) == 0:
        raise ParameterError(
            f"all {n_refused} pairs are refused: a side misses the target length; propose pairs of edits that meet it"
        )
    policy = frozen_copy(reference).requires_grad_(True)
    return DPOState(
        config=config,
        policy=policy,
        reference_digest=module_digest(reference),
        pairs_digest=pairs_digest(pairs),
        reference_log_probs=edit_log_probs(reference, pairs, usable, batch_pairs=config.batch_pairs),
        usable=usable,
        n_refused=n_refused,
        optimizer=adam(policy, config),
        generator=torch.Generator(policy.device).manual_seed(seed),
        order=usable[:0],
        position=0,
        epoch=0,
        iteration=0,
        step=0,
        episode=0,
        selection=Selection(),
    )


class _PairSums(NamedTuple):
    """Sums over pairs, except `n_decided`: pairs that are no tie."""

    loss: torch.Tensor
    nll: torch.Tensor
    margin: torch.Tensor
    chosen_delta: torch.Tensor
    rejected_delta: torch.Tensor
    right: torch.Tensor
    n_decided: torch.Tensor


def _pair_sums(
    policy: Policy, pairs: PairBatch, rows: torch.Tensor, reference: torch.Tensor, config: DPOConfig
) -> _PairSums:
    """Loss terms and statistics of the given pairs; reference log-probabilities (n, 2)."""
    edits = _both_sides(pairs, rows)
    log_probs = log_prob(policy, edits).log_probs.sum(1).view(2, -1).T
    delta = log_probs - reference
    margin = delta[:, 0] - delta[:, 1]
    label = pairs.label[rows]
    preference = soft_preference(label, pairs.confidence[rows], label_smoothing=config.label_smoothing)
    loss = (dpo_loss if config.loss == "sigmoid" else ipo_loss)(margin, preference, beta=config.beta)
    decided = label != 0.5
    chosen = torch.where(label < 0.5, 1, 0)[:, None]
    n_units = edits.unit_mask[: len(rows)].sum(1)
    weight = pairs.weight[rows]
    nll = -log_probs.gather(1, chosen)[:, 0] / n_units
    towards = torch.where(label < 0.5, -margin, margin).detach()
    return _PairSums(
        loss=(weight * loss).sum(),
        nll=(weight * nll * decided).sum(),
        margin=(towards * decided).sum(),
        chosen_delta=(delta.detach().gather(1, chosen)[:, 0] * decided).sum(),
        rejected_delta=(delta.detach().gather(1, 1 - chosen)[:, 0] * decided).sum(),
        right=((towards > 0) & decided).sum(),
        n_decided=decided.sum(),
    )


class _Totals:
    """Sums over the gradient steps between two lines of the log."""

    def __init__(self) -> None:
        self.sums = torch.zeros(len(_PairSums._fields), dtype=torch.float64)
        self.weight = 0.0
        self.norms: list[float] = []

    def metrics(self, prefix: str) -> dict[str, float]:
        """Means by the names of the log."""
        sums = dict(zip(_PairSums._fields, self.sums.tolist(), strict=True))
        decided = max(sums["n_decided"], 1.0)
        return {
            f"{prefix}loss": sums["loss"] / max(self.weight, 1e-9),
            f"{prefix}acc": sums["right"] / decided,
            f"{prefix}margin": sums["margin"] / decided,
            f"{prefix}logp_chosen_delta": sums["chosen_delta"] / decided,
            f"{prefix}logp_rejected_delta": sums["rejected_delta"] / decided,
        }

    def add(self, sums: _PairSums, weight: float) -> None:
        """Add the sums of some pairs and their weight."""
        self.sums += torch.stack([value.detach().double().cpu() for value in sums])
        self.weight += weight


def _gradient_step(state: DPOState, pairs: PairBatch, chosen: torch.Tensor, totals: _Totals) -> None:
    """One step of the optimiser on usable pairs `chosen`."""
    config = state.config
    weight = float(sum_over_processes(pairs.weight[state.usable[chosen]].sum()))
    state.optimizer.zero_grad(set_to_none=True)
    for part in chosen.chunk(config.accumulation_steps):
        rows = state.usable[part]
        sums = _pair_sums(state.policy, pairs, rows, state.reference_log_probs[part], config)
        ((sums.loss + config.nll_coef * sums.nll) / weight).backward()
        totals.add(sums, float(pairs.weight[rows].sum()))
    sum_gradients(state.policy)
    totals.norms.append(float(torch.nn.utils.clip_grad_norm_(state.policy.parameters(), config.max_grad_norm)))
    state.optimizer.step()
    beats = pairs.songs.beat_mask.sum(1)[pairs.song_index[state.usable[chosen]]].sum() * 2
    state.iteration += 1
    state.step += int(sum_over_processes(beats))
    state.episode += int(sum_over_processes(torch.tensor(2 * len(chosen), device=chosen.device)))


@torch.no_grad()
def judge_pairs(policy: Policy, reference: Policy, pairs: PairBatch, *, config: DPOConfig) -> dict[str, float]:
    """Loss and accuracy of `policy` on held-out pairs, by the names `dpo/heldout_...`.

    Raises:
        ParameterError: If the mask refuses every pair.
    """
    usable = _usable_rows(pairs)
    if len(usable) == 0:
        raise ParameterError("all held-out pairs are refused by the mask; hold out pairs that meet the target length")
    log_probs = edit_log_probs(reference, pairs, usable, batch_pairs=config.batch_pairs)
    totals = _Totals()
    for part in torch.arange(len(usable), device=usable.device).split(config.batch_pairs):
        rows = usable[part]
        totals.add(_pair_sums(policy, pairs, rows, log_probs[part], config), float(pairs.weight[rows].sum()))
    metrics = totals.metrics("dpo/heldout_")
    return {name: metrics[name] for name in ("dpo/heldout_loss", "dpo/heldout_acc", "dpo/heldout_margin")}


def train_dpo(
    state: DPOState,
    pairs: PairBatch,
    *,
    songs: SongBatch,
    rewards: RewardPair,
    total_steps: int | None = None,
    max_iterations: int | None = None,
    heldout: Callable[[Policy], dict[str, float]] | None = None,
    evaluate: Callable[[Policy], HeldOut] | None = None,
    after_iteration: Callable[[DPOState], None] | None = None,
    log: Log | None = None,
    progress: Progress | None = None,
) -> DPOState:
    """Learn from the pairs for `config.epochs` passes; returns the same state, changed in place.

    Every `log_every` gradient steps edits are sampled, scored and logged under the names PPO uses, so that runs of
    both stand side by side; there is no value function, so `value_loss` is 0.

    Args:
        state: From `init_dpo`, or from a checkpoint of an earlier run with the same pairs.
        pairs: Training pairs, the same as at `init_dpo`.
        songs: Songs to sample edits of; always the same object, so that rewards may keep what they encoded.
        rewards: Learned and dense reward, for the log.
        total_steps: Beats after which to stop before the epochs are over.
        max_iterations: Return when `state.iteration` reaches this.
        heldout: Judges the policy on held-out pairs, see `judge_pairs`; without `evaluate`, the policy with the least
            `dpo/heldout_loss` is the best.
        evaluate: Judges the policy on held-out songs and decides which is the best.
        after_iteration: Called after every gradient step that was logged, the only place for a checkpoint.
        log: Gets metrics and the step.
        progress: Told how many gradient steps are done.

    Raises:
        FormatError: If the pairs are not those the state was made with.
    """
    config = state.config
    if pairs_digest(pairs) != state.pairs_digest:
        raise FormatError("the DPO state belongs to other pairs; resume with the same answers and songs, or start anew")
    n_pairs = len(state.usable)
    # Every process takes as many steps; of a larger share, some pairs wait for the next epoch.
    per_epoch = least_over_processes(-(-n_pairs // config.batch_pairs), state.usable.device)
    epoch_pairs = min(n_pairs, per_epoch * config.batch_pairs)
    n_iterations = config.epochs * per_epoch
    totals, started = _Totals(), time.perf_counter()
    while state.epoch < config.epochs and not state.stopped:
        if max_iterations is not None and state.iteration >= max_iterations:
            break
        if len(state.order) == 0:
            state.order = torch.randperm(n_pairs, generator=state.generator, device=state.usable.device)
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = decayed(
                config.learning_rate, 0.1 * config.learning_rate, step=state.iteration, total_steps=n_iterations
            )
        chosen = state.order[state.position : state.position + config.batch_pairs]
        state.policy.train()
        _gradient_step(state, pairs, chosen, totals)
        state.policy.eval()
        state.position += len(chosen)
        if state.position >= epoch_pairs:
            state.epoch, state.position, state.order = state.epoch + 1, 0, state.order[:0]
        if total_steps is not None and state.step >= total_steps and state.epoch < config.epochs:
            state.stopped = f"{total_steps} steps are done"
        if progress is not None:
            progress("dpo", state.iteration, n_iterations)
        ended = state.epoch >= config.epochs or bool(state.stopped)
        if state.iteration % config.log_every == 0 or ended:
            elapsed = max(time.perf_counter() - started, 1e-9)
            metrics = _line(state, totals, songs, rewards, heldout=heldout, evaluate=evaluate)
            metrics["perf/learner_steps_s"] = totals.weight / elapsed
            if log is not None:
                log(metrics, state.step)
            if after_iteration is not None:
                after_iteration(state)
            totals, started = _Totals(), time.perf_counter()
    return state


def _line(
    state: DPOState,
    totals: _Totals,
    songs: SongBatch,
    rewards: RewardPair,
    *,
    heldout: Callable[[Policy], dict[str, float]] | None,
    evaluate: Callable[[Policy], HeldOut] | None,
) -> dict[str, float]:
    """Metrics since the last line, and the judgement that decides which policy is the best."""
    config = state.config
    metrics = {
        "episode": float(state.episode),
        "step": float(state.step),
        **rollout_metrics(
            state.policy,
            songs,
            rewards,
            n_edits=config.rollout_edits,
            target_range=config.target_range,
            generator=state.generator,
        ),
        **totals.metrics("dpo/"),
        "dpo/pairs_refused": float(state.n_refused),
        "dpo/grad_norm": sum(totals.norms) / max(len(totals.norms), 1),
        "dpo/learning_rate": float(state.optimizer.param_groups[0]["lr"]),
        "value_loss": 0.0,
    }
    metrics["policy_loss"] = metrics["dpo/loss"]
    judgement = None
    if heldout is not None:
        metrics |= (found := heldout(state.policy))
        judgement = HeldOut(-found["dpo/heldout_loss"])
    if evaluate is not None:
        judgement = evaluate(state.policy)
        metrics["eval/score"] = judgement.score
        if judgement.guard is not None:
            metrics["eval/guard"] = judgement.guard
    if judgement is not None:
        before = state.selection.best_score
        state.selection.observe(state.policy, judgement, guard_drop=config.guard_drop)
        state.since_best = 0 if before is None or state.selection.best_score != before else state.since_best + 1
        if state.since_best >= config.patience and not state.stopped:
            state.stopped = f"no better score than {state.selection.best_score:.4g} in {state.since_best} judgements"
    return metrics

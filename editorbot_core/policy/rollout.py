"""Rollouts: edits sampled from a policy, log-probabilities of given edits, and advantages.

Shapes: n edits, U units of the longest song of the batch the caller gave. A song is encoded once, however many edits
of it are asked for. Padding units carry CUT, log-probability 0 and entropy 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.editing.edits import ACTION_NAMES, CUT, LOOP_RATIO
from editorbot_core.editing.transitions import transitions
from editorbot_core.policy.environment import BeatEditingEnv, Episodes, allowed_actions, plan_episodes, replay
from editorbot_core.policy.network import Policy

# Stands for minus infinity: its exponential is 0 in float32, and products with 0 stay numbers.
FORBIDDEN_LOGIT = -1e9


@dataclass(frozen=True)
class UnitLogProbs:
    """What a policy thinks of given edits.

    Attributes:
        log_probs: float32 (n, U), log-probability of each decision; about -1e9 where the mask forbids it.
        entropy: float32 (n, U), nat.
        log_softmax: float32 (n, U, 9), log-probabilities of all actions, about -1e9 where forbidden.
        values: float32 (n, U).
        allowed: bool (n, U, 9), the mask.
        unit_mask: bool (n, U).
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor
    log_softmax: torch.Tensor
    values: torch.Tensor
    allowed: torch.Tensor
    unit_mask: torch.Tensor

    @property
    def refused(self) -> torch.Tensor:
        """Edits with at least one forbidden decision, bool (n,)."""
        return (self.log_probs < FORBIDDEN_LOGIT / 2).any(1)


@dataclass(frozen=True)
class Rollout:
    """Sampled edits.

    Attributes:
        edits: The n edits.
        log_probs: float32 (n, U), of each decision under the policy (temperature 1).
        entropy: float32 (n, U), nat.
        log_softmax: float32 (n, U, 9).
        values: float32 (n, U), value before each decision.
        forced: bool (n, U), True where the mask allowed one action only.
    """

    edits: EditBatch
    log_probs: torch.Tensor
    entropy: torch.Tensor
    log_softmax: torch.Tensor
    values: torch.Tensor
    forced: torch.Tensor

    @property
    def actions(self) -> torch.Tensor:
        """Action ids per unit, int64 (n, U)."""
        return self.edits.actions

    @property
    def mask_forced_frac(self) -> float:
        """Share of decisions that the mask left no choice in."""
        mask = self.edits.unit_mask
        return float((self.forced & mask).sum() / mask.sum())


_UNIT_FIELDS = (
    *("unit_mask", "unit_durations", "first_beat", "last_beat", "movable"),
    *("phrase_start", "phase", "cluster"),
)


class _Local(NamedTuple):
    """The songs that some edits are of, without padding that none of them needs."""

    songs: SongBatch
    row: torch.Tensor


def _local_songs(songs: SongBatch, song_index: torch.Tensor) -> _Local:
    unique, row = song_index.unique(return_inverse=True)
    chosen = songs.select(unique)
    n_units = int(chosen.unit_mask.sum(1).max())
    n_beats = int(chosen.beat_mask.sum(1).max())
    by_unit = {name: getattr(chosen, name)[:, :n_units] for name in _UNIT_FIELDS}
    trimmed = SongBatch(
        features=chosen.features[:, :n_beats],
        beat_mask=chosen.beat_mask[:, :n_beats],
        unit_id=chosen.unit_id[:, :n_beats].clamp(max=n_units),
        duration=chosen.duration,
        outlook=chosen.outlook.trimmed(n_units) if chosen.outlook else None,
        **by_unit,
    )
    return _Local(trimmed, row)


def _padded(values: torch.Tensor, n_units: int, fill: float) -> torch.Tensor:
    """Extend dim 1 of (n, u, ...) to `n_units`."""
    missing = n_units - values.shape[1]
    if missing == 0:
        return values
    return torch.cat([values, values.new_full((len(values), missing, *values.shape[2:]), fill)], dim=1)


def _masked_log_softmax(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(~allowed, FORBIDDEN_LOGIT).log_softmax(-1)


def _entropy(log_softmax: torch.Tensor) -> torch.Tensor:
    return -(log_softmax.exp() * log_softmax).sum(-1)


@torch.no_grad()
def sample_edits(
    policy: Policy,
    songs: SongBatch,
    *,
    song_index: torch.Tensor,
    target_ratio: torch.Tensor,
    generator: torch.Generator | None = None,
    greedy: bool = False,
    temperature: float = 1.0,
) -> Rollout:
    """Let the policy edit songs.

    Args:
        policy: The policy.
        songs: S songs, on the policy's device.
        song_index: int64 (n,), the song of each edit; all samples of a song share its encoding.
        target_ratio: float (n,), target length over the song's length.
        generator: Source of all randomness, on the policy's device; needed unless `greedy`.
        greedy: Take the likeliest action everywhere.
        temperature: Divides the logits when sampling.

    Raises:
        ParameterError: If there is no generator to sample with or the temperature is not positive.
    """
    if not greedy and (generator is None or temperature <= 0):
        raise ParameterError(f"sampling needs a generator and a positive temperature; got {generator}, {temperature}")
    local = _local_songs(songs, song_index)
    states = policy.encode(local.songs)
    env = BeatEditingEnv(local.songs)
    state = env.reset(local.row, target_ratio)
    n, n_units = env.actions.shape
    noise = torch.zeros((n_units, n, len(ACTION_NAMES)), device=song_index.device)
    if not greedy:
        # argmax of logits plus Gumbel noise is a sample of the softmax (Gumbel 1954; Maddison et al. 2014).
        noise.exponential_(generator=generator).clamp_(min=1e-30).log_().neg_().mul_(temperature)
    log_softmaxes, values, masks = [], [], []
    for u in range(n_units):
        decision = policy.decide(states, local.row, env.episodes, state)
        allowed = env.allowed_actions()
        masked = decision.logits.masked_fill(~allowed, FORBIDDEN_LOGIT)
        log_softmaxes.append(masked)
        values.append(decision.values)
        masks.append(allowed)
        state = env.step((masked + noise[u]).argmax(1), validate=False).state
    actions = env.actions
    log_softmax = torch.stack(log_softmaxes, dim=1).log_softmax(-1)
    forced = torch.stack(masks, dim=1).sum(2) == 1
    real = env.episodes.unit_mask
    full = songs.n_units
    return Rollout(
        edits=EditBatch(songs, song_index, _padded(actions, full, CUT), target_ratio.float()),
        log_probs=_padded(log_softmax.gather(2, actions[..., None])[..., 0] * real, full, 0.0),
        entropy=_padded(_entropy(log_softmax) * real, full, 0.0),
        log_softmax=_padded(log_softmax, full, 0.0),
        values=_padded(torch.stack(values, dim=1), full, 0.0),
        forced=_padded(forced, full, 1),
    )


def log_prob(policy: Policy, edits: EditBatch) -> UnitLogProbs:
    """Log-probability of every decision of given edits, in one parallel pass that gradients flow through.

    Args:
        policy: The policy.
        edits: n edits, on the policy's device.
    """
    local = _local_songs(edits.songs, edits.song_index)
    episodes = plan_episodes(local.songs, local.row, edits.target_ratio)
    actions = edits.actions[:, : episodes.n_units].masked_fill(~episodes.unit_mask, CUT)
    result = _unit_log_probs(policy, local, episodes, actions)
    full = edits.songs.n_units
    return UnitLogProbs(
        log_probs=_padded(result.log_probs, full, 0.0),
        entropy=_padded(result.entropy, full, 0.0),
        log_softmax=_padded(result.log_softmax, full, 0.0),
        values=_padded(result.values, full, 0.0),
        allowed=_padded(result.allowed, full, 0),
        unit_mask=_padded(result.unit_mask, full, 0),
    )


def _unit_log_probs(policy: Policy, local: _Local, episodes: Episodes, actions: torch.Tensor) -> UnitLogProbs:
    state = replay(episodes, actions)
    allowed = allowed_actions(episodes, state)
    decision = policy.decide(policy.encode(local.songs), local.row, episodes, state)
    log_softmax = _masked_log_softmax(decision.logits, allowed)
    real = episodes.unit_mask
    return UnitLogProbs(
        log_probs=log_softmax.gather(2, actions[..., None])[..., 0] * real,
        entropy=_entropy(log_softmax) * real,
        log_softmax=log_softmax,
        values=decision.values,
        allowed=allowed,
        unit_mask=real,
    )


def group_advantages(
    rewards: torch.Tensor,
    group: torch.Tensor,
    *,
    total: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone,
) -> torch.Tensor:
    """Rewards minus the mean of their group, over the deviation of that in the batch.

    The baseline is the group mean of Shao et al. 2024 (GRPO); the deviation is taken over the whole batch, because a
    group of equal edits has none of its own. float32 (n,); all 0 if no group has any spread.

    Args:
        rewards: float (n,).
        group: int64 (n,), samples of one song and target share a number.
        total: Adds a tensor up over all processes that train together.
    """
    n_groups = int(group.max()) + 1
    zeros = torch.zeros(n_groups, dtype=rewards.dtype, device=rewards.device)
    counts = zeros.index_add(0, group, torch.ones_like(rewards)).clamp(min=1)
    centred = rewards - (zeros.index_add(0, group, rewards) / counts)[group]
    sums = total(torch.stack([centred.square().sum(), torch.ones_like(centred).sum()]))
    deviation = (sums[0] / sums[1]).sqrt()
    return torch.where(deviation > 1e-6, centred / deviation.clamp(min=1e-6), torch.zeros_like(centred))


class Advantages(NamedTuple):
    """Advantages and the returns they imply, both shaped like the rewards."""

    advantages: torch.Tensor
    returns: torch.Tensor


def compute_gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    dones: torch.Tensor,
    last_value: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Advantages:
    """Generalised advantage estimates and returns (Schulman et al. 2016, eq. 16).

    Args:
        rewards: Reward of each step, shape (..., n_steps).
        values: Value estimates before each step, shape (..., n_steps).
        dones: True where the step ended its episode, shape (..., n_steps).
        last_value: Value after the final step, used if it did not end an episode, shape (...).
        gamma: Discount.
        gae_lambda: Weight of later estimates; 1 is the plain return minus the value.

    Raises:
        ParameterError: If the three arrays differ in shape.
    """
    if rewards.shape != values.shape or rewards.shape != dones.shape:
        shapes = tuple(rewards.shape), tuple(values.shape), tuple(dones.shape)
        raise ParameterError(f"rewards, values and dones must have one shape; got {shapes}")
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(last_value)
    following = last_value
    for t in range(rewards.shape[-1] - 1, -1, -1):
        going_on = (~dones[..., t]).to(rewards.dtype)
        # delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1}
        delta = rewards[..., t] + gamma * following * going_on - values[..., t]
        running = delta + gamma * gae_lambda * going_on * running
        advantages[..., t] = running
        following = values[..., t]
    return Advantages(advantages, advantages + values)


def draw_targets(
    n: int,
    *,
    generator: torch.Generator,
    target_range: tuple[float, float],
    extended_frac: float = 0.0,
    extended_max: float = 1.25,
) -> torch.Tensor:
    """Random target ratios, float32 (n,), on the generator's device.

    Args:
        n: How many.
        generator: Source of randomness.
        target_range: Lowest and highest ratio of a shortening.
        extended_frac: Share drawn between 0.95 and `extended_max` instead, where loops are needed.
        extended_max: Highest ratio of those.
    """
    device = generator.device
    low, high = target_range
    place, extended = torch.rand((2, n), generator=generator, device=device)
    return torch.where(
        extended < extended_frac, LOOP_RATIO + place * (extended_max - LOOP_RATIO), low + place * (high - low)
    )


@torch.no_grad()
def edit_statistics(edits: EditBatch) -> dict[str, float]:
    """What edits are like, by the names `edit/...` of the logs; means over the edits."""
    mask = edits.unit_mask
    actions = edits.actions.masked_fill(~mask, CUT)
    moves = transitions(actions, mask)
    durations = edits.songs.unit_durations[edits.song_index]
    total = (edits.songs.unit_durations * edits.songs.unit_mask).sum(1)[edits.song_index]
    ratio = (durations * moves.repeats).sum(1) / total
    last_unit = mask.sum(1) - 1
    result = {
        "edit/keep_ratio": ratio.mean(),
        "edit/target_abs_err": ((ratio - edits.target_ratio).abs() / edits.target_ratio).mean(),
        "edit/joins_per_song": moves.n_joins.float().mean(),
        "edit/start_kept": (actions[:, 0] != CUT).float().mean(),
        "edit/end_kept": (actions.gather(1, last_unit[:, None]) != CUT).float().mean(),
    }
    share = torch.bincount(actions[mask], minlength=len(ACTION_NAMES)) / mask.sum()
    result |= {f"edit/act_frac_{name.lower()}": share[i] for i, name in enumerate(ACTION_NAMES)}
    return {name: float(value) for name, value in result.items()}

"""What the ways of training a policy share: the mixed reward, choosing the best policy, and several processes.

A reward is any callable `EditBatch -> (n,)`. The *mixed* reward, which the policy is trained on, adds 0.8 of the
learned and 0.2 of the dense reward after each was whitened by frozen statistics of the reference policy; the
*total* reward, which is reported, adds them as they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

from editorbot_core.errors import FormatError, ParameterError
from editorbot_core.policy import Policy
from editorbot_core.rewards.base import RewardFunction
from editorbot_core.rollout import draw_targets, edit_statistics, sample_edits
from editorbot_core.songs import EditBatch, SongBatch

LEARNED_WEIGHT = 0.8
DENSE_WEIGHT = 0.2


class Whitening(NamedTuple):
    """Mean and standard deviation of both rewards under the reference policy."""

    learned_mean: float
    learned_std: float
    dense_mean: float
    dense_std: float


class Scores(NamedTuple):
    """Rewards of n edits, float32 (n,)."""

    learned: torch.Tensor
    dense: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """0.8 learned + 0.2 dense, as reported."""
        return LEARNED_WEIGHT * self.learned + DENSE_WEIGHT * self.dense

    def mixed(self, whitening: Whitening) -> torch.Tensor:
        """0.8 learned + 0.2 dense, each whitened first: what is maximised."""
        learned = (self.learned - whitening.learned_mean) / whitening.learned_std
        dense = (self.dense - whitening.dense_mean) / whitening.dense_std
        return LEARNED_WEIGHT * learned + DENSE_WEIGHT * dense


class RewardPair(NamedTuple):
    """The learned and the dense reward."""

    learned: RewardFunction
    dense: RewardFunction

    @torch.no_grad()
    def score(self, edits: EditBatch) -> Scores:
        """Both rewards of n edits.

        Raises:
            ParameterError: If a reward returns anything but one finite number per edit.
        """
        n = len(edits.song_index)
        results = []
        for name, reward in zip(self._fields, self, strict=True):
            values = reward(edits).float()
            if values.shape != (n,) or not bool(torch.isfinite(values).all()):
                raise ParameterError(
                    f"the {name} reward must give one finite number for each of {n} edits; "
                    f"got shape {tuple(values.shape)}, {int((~torch.isfinite(values)).sum())} not finite"
                )
            results.append(values)
        return Scores(*results)


def conservative_reward(reward: RewardFunction, ensemble_k: float) -> RewardFunction:
    """Mean minus `ensemble_k` standard deviations over the members of an ensemble; `reward` itself if that is 0.

    Raises:
        ParameterError: If `ensemble_k` is not 0 and `reward` has no `score_members(edits) -> (k, n)`.
    """
    if ensemble_k == 0:
        return reward
    score_members = getattr(reward, "score_members", None)
    if score_members is None:
        raise ParameterError(f"ensemble_k = {ensemble_k} needs a reward with score_members(edits); got {reward!r}")

    def lower_bound(edits: EditBatch) -> torch.Tensor:
        members = score_members(edits)
        return members.mean(0) - ensemble_k * members.std(0, correction=0)

    return lower_bound


def reference_whitening(
    reference: Policy,
    songs: SongBatch,
    rewards: RewardPair,
    *,
    n_edits: int,
    target_range: tuple[float, float],
    generator: torch.Generator,
) -> Whitening:
    """Statistics of both rewards over edits that the reference makes of the songs in turn."""
    index = torch.arange(n_edits, device=generator.device) % songs.n_songs
    targets = draw_targets(n_edits, generator=generator, target_range=target_range)
    rollout = sample_edits(reference, songs, song_index=index, target_ratio=targets, generator=generator)
    scores = rewards.score(rollout.edits)
    both = torch.stack([scores.learned, scores.dense]).double()
    sums = torch.stack([torch.ones_like(both).sum(1), both.sum(1), both.square().sum(1)])
    n, first, second = sum_over_processes(sums)
    means = first / n
    # A reward that does not vary has nothing to teach; the floor keeps it from being blown up.
    deviations = (second / n - means.square()).clamp(min=1e-6).sqrt()
    return Whitening(float(means[0]), float(deviations[0]), float(means[1]), float(deviations[1]))


@torch.no_grad()
def rollout_metrics(
    policy: Policy,
    songs: SongBatch,
    rewards: RewardPair,
    *,
    n_edits: int,
    target_range: tuple[float, float],
    generator: torch.Generator,
) -> dict[str, float]:
    """Rewards, `edit/...` statistics and forced share of edits sampled from `policy`, the songs in turn."""
    index = torch.arange(n_edits, device=generator.device) % songs.n_songs
    targets = draw_targets(n_edits, generator=generator, target_range=target_range)
    rollout = sample_edits(policy, songs, song_index=index, target_ratio=targets, generator=generator)
    scores = rewards.score(rollout.edits)
    mask = rollout.edits.unit_mask
    return {
        "total_reward": float(scores.total.mean()),
        "learned_reward": float(scores.learned.mean()),
        "dense_reward": float(scores.dense.mean()),
        "entropy": float(rollout.entropy[mask].mean()),
        "edit/mask_forced_frac": rollout.mask_forced_frac,
        **edit_statistics(rollout.edits),
    }


class HeldOut(NamedTuple):
    """Judgement of a policy on held-out songs.

    Attributes:
        score: The larger the better; decides which policy is the best.
        guard: Something that no reward contains, the larger the better; None if nothing guards.
    """

    score: float
    guard: float | None = None


@dataclass
class Selection:
    """The best policy so far, and whether training should stop.

    Attributes:
        best_score: Highest score seen, None before the first.
        best_weights: State dict of the policy that got it, on the CPU.
        first: The first judgement.
        strikes: Judgements in a row that were better in score and worse in guard than the first.
    """

    best_score: float | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    first: HeldOut | None = None
    strikes: int = 0

    def observe(self, policy: Policy, judgement: HeldOut, *, guard_drop: float) -> None:
        """Take note of a judgement of `policy`; a guard lower than the first by `guard_drop` counts as worse."""
        if self.first is None:
            self.first = judgement
        if self.best_score is None or judgement.score > self.best_score:
            self.best_score = judgement.score
            self.best_weights = {k: v.detach().cpu().clone() for k, v in policy.state_dict().items()}
        worse = (
            judgement.guard is not None
            and self.first.guard is not None
            and judgement.guard < self.first.guard - guard_drop
            and judgement.score > self.first.score
        )
        self.strikes = self.strikes + 1 if worse else 0

    def best_policy(self, policy: Policy) -> Policy:
        """A copy of `policy` with the best weights; with its own if nothing was judged yet."""
        best = Policy(policy.config)
        best.load_state_dict(self.best_weights or policy.state_dict())
        return best.to(policy.device).eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "best_score": self.best_score,
            "best_weights": dict(self.best_weights),
            "first": list(self.first) if self.first else None,
            "strikes": self.strikes,
        }

    @classmethod
    def from_state_dict(cls, payload: Mapping[str, Any]) -> "Selection":
        """The selection that `state_dict` described."""
        first = payload["first"]
        return cls(
            best_score=payload["best_score"],
            best_weights=dict(payload["best_weights"]),
            first=HeldOut(*first) if first else None,
            strikes=int(payload["strikes"]),
        )


def frozen_copy(policy: Policy) -> Policy:
    """A copy of `policy` that takes no gradient."""
    copy = Policy(policy.config)
    copy.load_state_dict(policy.state_dict())
    return copy.to(policy.device).eval().requires_grad_(False)


def augmented(
    songs: SongBatch, policy: Policy, *, noise: float, dropout: float, generator: torch.Generator
) -> SongBatch:
    """`songs` with disturbed features, so that a policy learns what joins are like and not the songs by heart.

    Args:
        songs: Songs.
        policy: Its feature statistics say what a deviation is.
        noise: Deviation of the noise added to every feature of every beat, in deviations of the feature.
        dropout: Probability that a feature of a song is replaced by its mean over all songs.
        generator: Source of randomness, on the device of the songs.
    """
    if noise == 0 and dropout == 0:
        return songs
    features = songs.features
    device = features.device
    disturbed = torch.randn(features.shape, generator=generator, device=device)
    disturbed = features + noise * policy.feature_scale * disturbed
    dropped = torch.rand((songs.n_songs, 1, features.shape[2]), generator=generator, device=device) < dropout
    disturbed = torch.where(dropped, policy.feature_mean, disturbed)
    return replace(songs, features=disturbed * songs.beat_mask[..., None])


def on_device(songs: SongBatch, device: torch.device) -> SongBatch:
    """`songs` themselves if they are on `device`, else a copy there."""
    return songs if songs.features.device == device else songs.to(device)


def decayed(first: float, last: float, *, step: int, total_steps: int) -> float:
    """The value at `step` of a line from `first` to `last` over `total_steps`."""
    share = min(max(step / total_steps, 0.0), 1.0)
    return first + (last - first) * share


def require_keys(payload: Mapping[str, Any], expected: Iterable[str], what: str) -> None:
    """Refuse training state that lacks a piece or has one too many.

    Raises:
        FormatError: Naming both.
    """
    expected = set(expected)
    missing, unknown = sorted(expected - set(payload)), sorted(set(payload) - expected)
    if missing or unknown:
        raise FormatError(f"{what}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """`value` summed over all processes, in place; itself if there is one."""
    if is_distributed():
        distributed.all_reduce(value)
    return value


def least_over_processes(value: int, device: torch.device) -> int:
    """The least of the numbers that the processes give."""
    if not is_distributed():
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, op=distributed.ReduceOp.MIN)
    return int(shared)


def sum_gradients(policy: nn.Module) -> None:
    """Add up the gradients of all processes; every process must have divided its loss by the common count."""
    if not is_distributed():
        return
    for parameter in policy.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)

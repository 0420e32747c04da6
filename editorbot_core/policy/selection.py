"""What the ways of training a policy share: whitening by the reference, choosing the best policy, augmentation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from editorbot_core.base.devices import sum_over_processes
from editorbot_core.base.errors import FormatError
from editorbot_core.editing.batches import SongBatch
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import draw_targets, edit_statistics, sample_edits
from editorbot_core.rewards.mixing import RewardPair, Whitening


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

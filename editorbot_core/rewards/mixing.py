"""The mix of the learned and the dense reward.

The *mixed* reward, which policies are trained on, is 0.8 learned + 0.2 dense after whitening: from each reward its mean
under the reference policy is subtracted, and the rest divided by its standard deviation; both are frozen. The *total*
reward, which is reported, is 0.8 learned + 0.2 dense without whitening. Scores are float32 (n,) for n edits.
"""

from typing import NamedTuple, TypeVar

import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.rewards.base import RewardFunction
from editorbot_core.rewards.dense import dense_reward
from editorbot_core.rewards.learned import RewardEnsemble

LEARNED_WEIGHT = 0.8
DENSE_WEIGHT = 0.2

Number = TypeVar("Number", float, torch.Tensor)


def weighted_sum(learned: Number, dense: Number) -> Number:
    """0.8 learned + 0.2 dense.

    >>> weighted_sum(5.0, 0.5)
    4.1
    """
    return LEARNED_WEIGHT * learned + DENSE_WEIGHT * dense


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
        return weighted_sum(self.learned, self.dense)

    def mixed(self, whitening: Whitening) -> torch.Tensor:
        """0.8 learned + 0.2 dense, each whitened first: the objective of training."""
        learned = (self.learned - whitening.learned_mean) / whitening.learned_std
        dense = (self.dense - whitening.dense_mean) / whitening.dense_std
        return weighted_sum(learned, dense)


class RewardPair(NamedTuple):
    """The learned and the dense reward."""

    learned: RewardFunction
    dense: RewardFunction

    @torch.no_grad()
    def score(self, edits: EditBatch) -> Scores:
        """Both rewards of n edits, without gradients.

        Raises:
            ParameterError: If a reward does not return one finite number per edit.
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


class EncodedReward:
    """The learned reward of edits of fixed songs, which are encoded only once."""

    def __init__(self, ensemble: RewardEnsemble, songs: SongBatch) -> None:
        self._ensemble = ensemble
        self._states = ensemble.encode(songs)

    def __call__(self, edits: EditBatch) -> torch.Tensor:
        """Scores (n,) of edits of the same songs."""
        return self._ensemble(edits, states=self._states)

    def score_members(self, edits: EditBatch) -> torch.Tensor:
        """Scores by every member of the ensemble, (k, n)."""
        return self._ensemble.score_members(edits, states=self._states)


def reward_pair(ensemble: RewardEnsemble, songs: SongBatch) -> RewardPair:
    """Learned and dense reward of edits of `songs`."""
    return RewardPair(EncodedReward(ensemble, songs), dense_reward)

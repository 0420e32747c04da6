"""Judging a policy by its edits of held-out songs, during training."""

from collections.abc import Sequence

import numpy as np
import torch

from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import edl_of
from editorbot_core.evaluation.metrics import edit_metrics
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import sample_edits
from editorbot_core.policy.selection import HeldOut
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.mixing import reward_pair
from editorbot_core.songs.song import Song

JUDGED_RATIOS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)


class HeldOutJudge:
    """Judges a policy by its greedy edits of held-out songs.

    The total reward decides which policy is the best; the quality, which no reward contains, guards it. A few held-out
    songs at one length say little, so it looks at `JUDGED_RATIOS` besides the lengths asked for.
    """

    def __init__(
        self, songs: Sequence[Song], ensemble: RewardEnsemble, *, ratios: Sequence[float], device: str
    ) -> None:
        ratios = sorted({*ratios, *JUDGED_RATIOS})
        self._songs = list(songs)
        self._batch = collate(self._songs).to(device)
        self._rewards = reward_pair(ensemble, self._batch)
        self._index = torch.arange(len(songs), device=device).repeat_interleave(len(ratios))
        self._ratios = torch.tensor(ratios, device=device).repeat(len(songs))

    def __call__(self, policy: Policy) -> HeldOut:
        """Mean total reward, and mean quality in points of 100."""
        rollout = sample_edits(policy, self._batch, song_index=self._index, target_ratio=self._ratios, greedy=True)
        score = float(self._rewards.score(rollout.edits).total.mean())
        qualities = []
        for i, ratio, actions in zip(
            self._index.tolist(), self._ratios.tolist(), rollout.actions.cpu().numpy(), strict=True
        ):
            song = self._songs[i]
            edl = edl_of(song, actions[: song.units.n_units], target_duration_s=ratio * song.duration)
            qualities.append(edit_metrics(edl, song).quality)
        return HeldOut(score, float(np.mean(qualities)))

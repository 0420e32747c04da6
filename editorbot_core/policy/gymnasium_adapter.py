"""One song as a Gymnasium environment, for other people's agents. Gymnasium itself is imported only when asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import N_ACTIONS
from editorbot_core.policy.environment import BeatEditingEnv
from editorbot_core.songs.song import Song

if TYPE_CHECKING:
    import gymnasium

_OBSERVATION_LIMIT = 10.0


def gymnasium_env(
    song: Song,
    *,
    reward: Callable[[EditBatch], torch.Tensor],
    target_range: tuple[float, float] = (0.35, 0.95),
) -> "gymnasium.Env[np.ndarray, np.int64]":
    """One song as a Gymnasium environment, for other people's agents. Needs the package `gymnasium`.

    An observation is float32: the unit's mean features (standardised within the song), target ratio, shares of the
    target played and left in the song, units skipped, since the last join and joins (each over 8), share of this
    unit's material heard, the previous action one-hot, and the mask. `info["action_mask"]` and `action_masks()` give
    the mask; a forbidden action is replaced by the first allowed one, which `info["replaced"]` tells.

    Args:
        song: What to edit.
        reward: Scores the finished edit.
        target_range: Target ratios are drawn uniformly from here; `reset(options={"target_ratio": x})` fixes one.
    """
    import gymnasium

    songs = collate([song])
    starts = song.units.first_beats
    means = np.add.reduceat(song.features.values, starts) / song.units.lengths[:, None]
    spread = means.std(0)
    unit_features = np.divide(means - means.mean(0), spread, out=np.zeros_like(means), where=spread > 1e-6)

    class SongEnv(gymnasium.Env):
        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - the name and form Gymnasium asks for

        def __init__(self) -> None:
            size = unit_features.shape[1] + 7 + (N_ACTIONS + 1) + N_ACTIONS
            self.action_space = gymnasium.spaces.Discrete(N_ACTIONS)
            self.observation_space = gymnasium.spaces.Box(-_OBSERVATION_LIMIT, _OBSERVATION_LIMIT, (size,), np.float32)
            self._env = BeatEditingEnv(songs, reward=reward)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed)
            ratio = (options or {}).get("target_ratio")
            ratio = float(self.np_random.uniform(*target_range)) if ratio is None else float(ratio)
            self._env.reset(torch.zeros(1, dtype=torch.int64), torch.tensor([ratio]))
            return self._observation(), self._info(replaced=False)

        def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            mask = self.action_masks()
            replaced = not mask[action]
            chosen = int(mask.argmax()) if replaced else int(action)
            result = self._env.step(torch.tensor([chosen]), validate=False)
            return (
                self._observation(),
                float(result.reward[0]),
                result.done,
                False,
                self._info(replaced=replaced),
            )

        def action_masks(self) -> np.ndarray:
            """Allowed actions, bool (9,); all of them after the end."""
            if self._env.state.at == self._env.n_steps:
                return np.ones(N_ACTIONS, dtype=bool)
            return self._env.allowed_actions()[0].numpy()

        def _info(self, *, replaced: bool) -> dict[str, Any]:
            return {"action_mask": self.action_masks(), "replaced": replaced}

        def _observation(self) -> np.ndarray:
            state, episodes = self._env.state, self._env.episodes
            assert isinstance(state.at, int)
            u = min(state.at, self._env.n_steps - 1)
            target = float(episodes.target_us[0])
            skipped = state.at - int(state.exit_unit[0]) - 1
            numbers = [
                float(episodes.target_ratio[0]),
                float(state.played_us[0]) / target,
                float(episodes.remaining_us[0, u]) / target,
                skipped / 8,
                float(state.since_join[0]) / 8,
                float(state.joins[0]) / 8,
                float(state.heard[0]) / float(episodes.cluster_size[0, u]),
            ]
            previous = np.eye(N_ACTIONS + 1)[int(state.previous[0])]
            parts = [unit_features[u], numbers, previous, self.action_masks()]
            joined = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
            return np.clip(joined, -_OBSERVATION_LIMIT, _OBSERVATION_LIMIT)

    return SongEnv()

"""The decision process as a competent user of Gymnasium writes it: one song, Python numbers, no tensors per step."""

from typing import Any

import gymnasium
import numpy as np
import torch

from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import ACTION_SHIFTS, CUT, KEEP, N_ACTIONS
from editorbot_core.policy.environment import START, plan_episodes
from editorbot_core.rewards.dense import dense_reward
from editorbot_core.songs.song import Song

_LIMIT = 10.0


class PlainSongEnv(gymnasium.Env):
    """As `editorbot_core.policy.gymnasium_adapter`: rules, observations, reward; the tables of a song are made once."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - the name and form Gymnasium asks for

    def __init__(self, song: Song, *, target_range: tuple[float, float]) -> None:
        self._songs, self._range = collate([song]), target_range
        means = np.add.reduceat(song.features.values, song.units.first_beats) / song.units.lengths[:, None]
        spread = means.std(0)
        scaled = np.divide(means - means.mean(0), spread, out=np.zeros_like(means), where=spread > 1e-6)
        self._units = np.clip(scaled, -_LIMIT, _LIMIT).astype(np.float32)
        self._size = scaled.shape[1] + 7 + START + 1 + N_ACTIONS
        self.action_space = gymnasium.spaces.Discrete(N_ACTIONS)
        self.observation_space = gymnasium.spaces.Box(-_LIMIT, _LIMIT, (self._size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._ratio = float((options or {}).get("target_ratio") or self.np_random.uniform(*self._range))
        plan = plan_episodes(self._songs, torch.zeros(1, dtype=torch.int64), torch.tensor([self._ratio]))
        self._target = int(plan.target_us[0])
        self._remaining, self._cluster, self._sizes = (
            values[0].tolist() for values in (plan.remaining_us, plan.cluster, plan.cluster_size)
        )
        self._added, self._low, self._high = (
            values[0].tolist() for values in (plan.added_us, plan.low_us, plan.high_us)
        )
        self._possible = [[a for a in range(N_ACTIONS) if row[a]] for row in plan.possible[0].tolist()]
        self._n = plan.n_units
        self._actions: list[int] = []
        self._slots = [-1] * (self._n + 9)
        self._heard = [0] * (max(self._cluster) + 1)
        self._played, self._exit, self._joins, self._last_join = 0, -1, 0, 0
        self._mask = self._allowed()
        return self._observation(), {"action_mask": self._mask, "replaced": False}

    def _allowed(self) -> np.ndarray:
        u = len(self._actions)
        mask = np.ones(N_ACTIONS, dtype=bool)
        if u == self._n:
            return mask
        added, (low_a, low_b), (high_a, high_b) = self._added[u], self._low[u], self._high[u]
        errors = {}
        for action in self._possible[u]:
            if action == CUT and u == self._n - 1 and self._played == 0:
                continue
            total = self._played + added[action]
            errors[action] = min(
                max(low_a - total, 0) + max(total - high_a, 0), max(low_b - total, 0) + max(total - high_b, 0)
            )
        least = min(errors.values())
        mask[:] = False
        mask[[action for action, error in errors.items() if error == least]] = True
        return mask

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        chosen, u = int(action), len(self._actions)
        replaced = not self._mask[chosen]
        if replaced:
            chosen = int(self._mask.argmax())
        if chosen != CUT:
            shift = ACTION_SHIFTS[chosen]
            slot = u + 1 + shift
            self._slots[slot] = max(self._slots[slot], u + self._n * (shift > 0))
            self._heard[self._cluster[u]] += 1
            if chosen != KEEP or (self._exit >= 0 and self._exit + 1 != u):
                self._joins, self._last_join = self._joins + 1, u
            self._played += self._added[u][chosen]
        self._actions.append(chosen)
        if self._slots[u + 1] >= 0:
            self._exit = self._slots[u + 1] % self._n
        done, reward = u + 1 == self._n, 0.0
        if done:
            rows = torch.tensor([self._actions])
            edits = EditBatch(self._songs, torch.zeros(1, dtype=torch.int64), rows, torch.tensor([self._ratio]))
            reward = float(dense_reward(edits)[0])
        self._mask = self._allowed()
        return self._observation(), reward, done, False, {"action_mask": self._mask, "replaced": replaced}

    def _observation(self) -> np.ndarray:
        decided = len(self._actions)
        u = min(decided, self._n - 1)
        out = np.zeros(self._size, dtype=np.float32)
        n_features = self._units.shape[1]
        out[:n_features] = self._units[u]
        out[n_features : n_features + 7] = (
            self._ratio,
            self._played / self._target,
            self._remaining[u] / self._target,
            min((decided - self._exit - 1) / 8, _LIMIT),
            min((decided - self._last_join) / 8, _LIMIT),
            min(self._joins / 8, _LIMIT),
            self._heard[self._cluster[u]] / self._sizes[u],
        )
        out[n_features + 7 + (self._actions[-1] if decided else START)] = 1.0
        out[-N_ACTIONS:] = self._mask
        return out

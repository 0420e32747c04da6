"""The learned reward: an ensemble of reward models, its calibration, and its file.

Members differ in their seed and in how much each training song weighed for them; where they disagree, the reward is
guessing. Scores are in (-10, 10); only differences between edits of one song and one target mean something. Shapes:
S songs, n edits, k members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from editorbot_core.analysis.features.columns import FEATURE_NAMES
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.tensors import load_tensors, save_tensors
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.model import EDIT_FEATURE_NAMES, SCORE_LIMIT, RewardModel, SongStates

KIND = "editorbot.reward_model/2"
SATURATION_MARGIN = 0.1
_KEYS = {"kind", "feature_names", "edit_feature_names", "config", "temperature", "members", "metrics", "model"}
_EDITS_AT_ONCE = 4096


def saturated_share(scores: torch.Tensor) -> float:
    """Share of the scores within 0.1 of either end of the range, where gradients vanish."""
    if scores.numel() == 0:
        return 0.0
    return float((scores.abs() > SCORE_LIMIT - SATURATION_MARGIN).float().mean())


class RewardEnsemble(nn.Module):
    """Reward models that are asked together; a `RewardFunction`.

    Attributes:
        config: Settings of the members.
        members: The models.
        temperature: Calibration: P(a preferred) = sigmoid((score a - score b) / temperature).
        metrics: What was measured when it was trained.
        model: Name, version and origin, plain values.
    """

    temperature: torch.Tensor

    def __init__(
        self,
        config: RewardConfig,
        *,
        metrics: Mapping[str, float] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(RewardModel(config) for _ in range(config.n_members))
        self.register_buffer("temperature", torch.tensor(1.0))
        self.metrics = dict(metrics or {})
        self.model = dict(model or {})

    def encode(self, songs: SongBatch) -> tuple[SongStates, ...]:
        """What every member knows of the songs; worth keeping while many edits of them are scored."""
        with torch.no_grad():
            return tuple(member.encode(songs) for member in self._members())

    def score_members(self, edits: EditBatch, *, states: Sequence[SongStates] | None = None) -> torch.Tensor:
        """Scores by every member, float32 (k, n); no gradients.

        Args:
            edits: The edits.
            states: What `encode` said of their songs; computed here if None.
        """
        with torch.no_grad():
            states = self.encode(edits.songs) if states is None else states
            n = len(edits.song_index)
            rows = []
            for member, known in zip(self._members(), states, strict=True):
                parts = [
                    member.score(
                        known,
                        EditBatch(
                            edits.songs,
                            edits.song_index[i : i + _EDITS_AT_ONCE],
                            edits.actions[i : i + _EDITS_AT_ONCE],
                            edits.target_ratio[i : i + _EDITS_AT_ONCE],
                        ),
                    )
                    for i in range(0, n, _EDITS_AT_ONCE)
                ]
                rows.append(torch.cat(parts) if parts else edits.target_ratio.new_zeros(0))
            return torch.stack(rows)

    def forward(self, edits: EditBatch, *, states: Sequence[SongStates] | None = None) -> torch.Tensor:
        """Mean over members minus `pessimism` standard deviations, within [-10, 10], float32 (n,); no gradients."""
        return self.combine(self.score_members(edits, states=states))

    def combine(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores by every member (k, n) to one score each, (n,), as `forward` does."""
        lowered = scores.mean(0) - self.config.pessimism * scores.std(0, correction=0)
        return lowered.clamp(-SCORE_LIMIT, SCORE_LIMIT)

    def _members(self) -> list[RewardModel]:
        return [member for member in self.members if isinstance(member, RewardModel)]

    def payload(self) -> dict[str, Any]:
        """What stands in a reward model file: tensors and plain values."""
        return {
            "kind": KIND,
            "feature_names": list(FEATURE_NAMES),
            "edit_feature_names": list(EDIT_FEATURE_NAMES),
            "config": asdict(self.config),
            "temperature": float(self.temperature),
            "members": [
                {name: value.detach().cpu().clone() for name, value in member.state_dict().items()}
                for member in self.members
            ],
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "model": dict(self.model),
        }

    def save(self, path: Path | str) -> str:
        """Write the ensemble to `path` in one step, its digest beside it; return the SHA-256."""
        return save_tensors(path, self.payload())

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], *, source: str) -> "RewardEnsemble":
        """The ensemble that `payload` described, in evaluation mode on the CPU.

        Raises:
            FormatError: If anything is missing, unknown, of another shape or type, or not finite.
        """
        if payload.get("kind") != KIND:
            raise FormatError(f"{source}: not a reward model: kind is {payload.get('kind')!r}, expected {KIND!r}")
        if set(payload) != _KEYS:
            wrong = sorted(map(str, set(payload) ^ _KEYS))
            raise FormatError(f"{source}: a reward model holds {sorted(_KEYS)}; missing or unknown: {wrong}")
        if payload["feature_names"] != list(FEATURE_NAMES) or payload["edit_feature_names"] != list(EDIT_FEATURE_NAMES):
            raise FormatError(f"{source}: trained on other features than this version computes; train it again")
        try:
            config = RewardConfig(**payload["config"])
        except (TypeError, ParameterError) as error:
            raise FormatError(f"{source}: unusable configuration: {error}") from error
        temperature, metrics, model = payload["temperature"], payload["metrics"], payload["model"]
        if not isinstance(temperature, float) or not 1e-3 <= temperature <= 1e3:
            raise FormatError(f"{source}: temperature must be a number in [0.001, 1000], got {temperature!r}")
        if not isinstance(metrics, dict) or not all(isinstance(value, float) for value in metrics.values()):
            raise FormatError(f"{source}: metrics must be numbers by name")
        if not isinstance(model, dict):
            raise FormatError(f"{source}: model must be plain values by name, got {type(model).__name__}")
        members = payload["members"]
        if not isinstance(members, list) or len(members) != config.n_members:
            raise FormatError(f"{source}: {config.n_members} members expected, got {len(members)}")
        ensemble = cls(config, metrics=metrics, model=model)
        for i, (member, state) in enumerate(zip(ensemble.members, members, strict=True)):
            _load_state(member, state, f"{source}: member {i}")
        ensemble.temperature.fill_(temperature)
        return ensemble.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | str, *, device: torch.device | str = "cpu") -> "RewardEnsemble":
        """Read the ensemble at `path` onto `device`, in evaluation mode.

        Raises:
            FormatError: If the file is missing, damaged, or not a reward model of this version.
        """
        return cls.from_payload(load_tensors(path), source=str(path)).to(device)


def _load_state(member: nn.Module, state: Any, where: str) -> None:
    """Copy `state` into `member` if its names, shapes and types are exactly the member's and all values finite."""
    expected = member.state_dict()
    if not isinstance(state, dict) or set(state) != set(expected):
        names = sorted(map(str, set(state) ^ set(expected))) if isinstance(state, dict) else [type(state).__name__]
        raise FormatError(f"{where}: missing or unknown weights: {', '.join(names[:5])}")
    for name, value in expected.items():
        found = state[name]
        if not isinstance(found, torch.Tensor) or (found.shape, found.dtype) != (value.shape, value.dtype):
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise FormatError(f"{where}: {name} must be {value.dtype} {tuple(value.shape)}, got {what}")
        if not bool(torch.isfinite(found).all()):
            raise FormatError(f"{where}: {name} holds values that are not finite")
    if bool((state["feature_scale"] <= 0).any()):
        raise FormatError(f"{where}: feature_scale must be positive")
    member.load_state_dict(state)


def load_reward(path: Path | str, *, device: torch.device | str = "cpu") -> RewardEnsemble:
    """Read the reward model at `path` onto `device`."""
    return RewardEnsemble.load(path, device=device)

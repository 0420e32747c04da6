"""The public interface to the reward of an edit: 0.8 learned + 0.2 dense.

`LearnedRewardIntegration` scores one edit given as arrays (`compute_learned_reward`, `compute_trajectory_reward`) and,
when called, batches of edits given as tensors. The mix itself is that of `rewards.mixing`, which training uses. Learned
scores are in [-10, 10], dense ones in [0, 1].
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.features.columns import FEATURE_INDEX, FEATURE_NAMES, N_FEATURES
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.config import Config
from editorbot_core.editing.batches import EditBatch, collate, stack_actions
from editorbot_core.editing.edits import ACTION_NAMES, N_ACTIONS, beat_actions_to_units
from editorbot_core.rewards.dense import dense_reward
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.mixing import RewardPair, weighted_sum
from editorbot_core.rewards.model import BEAT_S, EDIT_FEATURE_NAMES, N_INPUT_FEATURES, RewardModel, model_input
from editorbot_core.songs.song import Song

_PHASE = FEATURE_INDEX["beat_phase"]
_TARGET = N_FEATURES + EDIT_FEATURE_NAMES.index("edit_target_ratio")
# Range of target ratios; those of training lie well within it.
_TARGET_RANGE = (0.1, 2.0)
_ALL_NAMES = FEATURE_NAMES + EDIT_FEATURE_NAMES


def beat_features_of(song: Song, unit_actions: np.ndarray, *, target_ratio: float) -> np.ndarray:
    """The 125 features per beat of an edit of `song`, float32 (n_beats, 125), as `compute_learned_reward` takes them.

    Args:
        song: The song.
        unit_actions: Action ids per unit, (n_units,).
        target_ratio: Requested duration over the song's.
    """
    songs = collate([song])
    edits = EditBatch(
        songs, torch.tensor([0]), stack_actions([unit_actions], songs.n_units), torch.tensor([target_ratio])
    )
    return model_input(edits)[0].numpy()


def units_of(beat_features: np.ndarray, action_ids: np.ndarray) -> Units:
    """The units of features and actions: bars, split where the action changes within a bar.

    A bar starts where the beat phase falls. If an edit was decided in bars, these are its bars.

    Args:
        beat_features: (n, 121 or more).
        action_ids: (n,).
    """
    phase = beat_features[:, _PHASE]
    starts = np.append(True, (np.diff(phase) <= 0) | (np.diff(action_ids) != 0))
    return Units(np.cumsum(starts) - 1)


def _checked_features(beat_features: ArrayLike) -> np.ndarray:
    try:
        values = np.asarray(beat_features, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"beat_features must be numbers, (n_beats, {N_INPUT_FEATURES}): {error}") from error
    if values.ndim != 2 or values.shape[1] != N_INPUT_FEATURES or len(values) == 0:
        slip = ""
        if values.ndim == 2 and values.shape[1] == N_FEATURES:
            slip = "; the 4 edit features are missing, see learned_reward_integration.beat_features_of"
        elif values.ndim == 2 and values.shape[0] == N_INPUT_FEATURES:
            slip = "; is it transposed?"
        raise ParameterError(f"beat_features must be (n_beats, {N_INPUT_FEATURES}); got {values.shape}{slip}")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    bad = ~np.isfinite(single)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ParameterError(
            f"beat_features must be finite in float32; {int(bad.sum())} are not, the first at beat {row}, feature "
            f"{_ALL_NAMES[column]}: {values[row, column]}"
        )
    return single


def _checked_actions(action_ids: ArrayLike, n_beats: int) -> np.ndarray:
    actions = np.asarray(action_ids)
    if actions.shape != (n_beats,):
        raise ParameterError(f"action_ids must be one id per beat, ({n_beats},); got {actions.shape}")
    if not np.issubdtype(actions.dtype, np.integer):
        raise ParameterError(f"action_ids must be integers; got {actions.dtype}")
    unknown = sorted(set(actions[(actions < 0) | (actions >= N_ACTIONS)].tolist()))
    if unknown:
        reserved = "; 9 is reserved" if 9 in unknown else ""
        raise ParameterError(f"action ids are 0-8 ({', '.join(ACTION_NAMES)}); got {unknown[:5]}{reserved}")
    return actions.astype(np.int64)


class LearnedRewardIntegration:
    """The learned and the dense reward, mixed.

    Attributes:
        config: The configuration, with the default path of the reward model.
        ensemble: The reward model, or None before one is loaded.
    """

    def __init__(
        self,
        config: Config,
        *,
        ensemble: RewardEnsemble | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the configuration, optionally a reward model that is already in memory, and the device of models."""
        self.config = config
        self.device = torch.device(device)
        self.ensemble = None if ensemble is None else ensemble.to(self.device).eval()

    def load_model(self, path: Path | str | None = None) -> bool:
        """Load a reward model.

        Args:
            path: The file; by default `config.reward_model_path`.

        Returns:
            True if a model was loaded; False only if no path was given and there is no file at the default path.

        Raises:
            FormatError: If the given path does not exist, or the file is damaged or not a reward model.
        """
        if path is None:
            default = Path(self.config.reward_model_path)
            if not default.is_file():
                return False
            path = default
        elif not Path(path).is_file():
            raise FormatError(f"{path}: no such reward model; name an existing .pt file")
        self.ensemble = RewardEnsemble.load(path, device=self.device)
        return True

    def _loaded(self) -> RewardEnsemble:
        if self.ensemble is None:
            raise EditorBotError(
                "no reward model is loaded, and an untrained one would make up its scores; call load_model(), and if "
                f"there is none at {self.config.reward_model_path}, train one: python train_rlhf.py --data_dir FOLDER"
            )
        return self.ensemble

    def compute_learned_reward(
        self,
        beat_features: ArrayLike,
        action_ids: ArrayLike,
        *,
        target_ratio: float | None = None,
        unit_id: ArrayLike | None = None,
        beat_durations: ArrayLike | None = None,
        structure: Structure | None = None,
    ) -> float:
        """Learned score of one edit, in [-10, 10].

        If all arguments are given, the score equals that of the edit in a batch; missing ones are derived from the
        features.

        Args:
            beat_features: (n, 125): 121 audio features per beat and the 4 that describe the edit.
            action_ids: Action ids per beat, (n,), 0-8.
            target_ratio: Requested duration over the song's; by default the mean of the target column, within 0.1-2.
            unit_id: The unit of every beat, (n,); by default bars by beat phase, split where the action changes.
            beat_durations: Length of every beat, s, (n,); by default 0.5 each.
            structure: Structure per unit; by default estimated from the features.

        Raises:
            ParameterError: If a shape is wrong, a value is not finite, or an action id unknown.
            EditorBotError: If no model was loaded.
        """
        features = _checked_features(beat_features)
        actions = _checked_actions(action_ids, len(features))
        ensemble = self._loaded()
        units = units_of(features, actions) if unit_id is None else Units(np.asarray(unit_id))
        if len(units.unit_id) != len(features):
            raise ParameterError(f"unit_id must be one id per beat, ({len(features)},); got {units.unit_id.shape}")
        beat_actions_to_units(actions, units)
        if target_ratio is None:
            target_ratio = float(np.clip(features[:, _TARGET].mean(dtype=np.float64), *_TARGET_RANGE))
        if not np.isfinite(target_ratio) or target_ratio <= 0:
            raise ParameterError(f"target_ratio must be positive; got {target_ratio}")
        seconds = np.asarray(np.full(len(features), BEAT_S) if beat_durations is None else beat_durations, np.float64)
        if seconds.shape != (len(features),) or not np.isfinite(seconds).all() or (seconds <= 0).any():
            raise ParameterError(f"beat_durations must be positive, ({len(features)},); got {seconds.shape}")
        known = estimate_structure(features[:, :N_FEATURES], units) if structure is None else structure
        if len(known.phrase_start) != units.n_units:
            raise ParameterError(f"structure must be of {units.n_units} units; got {len(known.phrase_start)}")
        beats = units.unit_id

        def tensor(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=self.device)[None]

        with torch.no_grad():
            scores = [
                member(
                    tensor(features, torch.float32),
                    tensor(actions, torch.int64),
                    torch.tensor([target_ratio], dtype=torch.float32, device=self.device),
                    tensor(beats, torch.int64),
                    tensor(seconds, torch.float32),
                    tensor(known.phrase_start[beats], torch.float32),
                    tensor(known.phase[beats], torch.float32),
                    tensor(known.cluster[beats], torch.int64),
                )
                for member in ensemble.members
                if isinstance(member, RewardModel)
            ]
        return float(ensemble.combine(torch.stack(scores))[0])

    def compute_trajectory_reward(self, trajectory: Mapping[str, ArrayLike], dense_reward: float) -> float:
        """0.8 x learned + 0.2 x dense of one edit.

        Args:
            trajectory: `beat_features` (n, 125) and `action_ids` (n,), and any keyword of `compute_learned_reward`.
            dense_reward: The dense score of the edit, in [0, 1] as `rewards.dense` computes it.

        Raises:
            ParameterError: If a key is missing or unknown, or a value cannot be used.
            EditorBotError: If no model was loaded.
        """
        required = {"beat_features", "action_ids"}
        optional = {"target_ratio", "unit_id", "beat_durations", "structure"}
        if not isinstance(trajectory, Mapping) or not required <= set(trajectory) <= required | optional:
            keys = sorted(map(str, trajectory)) if isinstance(trajectory, Mapping) else type(trajectory).__name__
            raise ParameterError(f"a trajectory holds {sorted(required)} and perhaps {sorted(optional)}; got {keys}")
        try:
            dense = float(dense_reward)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"dense_reward must be a number; got {dense_reward!r}") from error
        if not np.isfinite(dense):
            raise ParameterError(f"dense_reward must be finite; got {dense}")
        return weighted_sum(self.compute_learned_reward(**trajectory), dense)  # type: ignore[arg-type]

    def __call__(self, edits: EditBatch) -> torch.Tensor:
        """0.8 x learned + 0.2 x dense of edits on the model's device, float32 (n,); makes this a `RewardFunction`.

        Raises:
            EditorBotError: If no model was loaded.
        """
        return RewardPair(self._loaded(), dense_reward).score(edits).total

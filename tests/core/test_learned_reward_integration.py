from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.config import get_default_config
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.learned_reward_integration import LearnedRewardIntegration, beat_features_of, units_of
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.dense import dense_reward
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.mixing import reward_pair
from editorbot_core.songs.song import Song

SMALL = RewardConfig(hidden=16, n_layers=1, n_heads=2, n_convs=0, unit_channels=8, join_channels=8, n_members=2)


@pytest.fixture
def config(tmp_path):
    return replace(get_default_config(), reward_model_path=str(tmp_path / "models" / "reward.pt"), reward=SMALL)


@pytest.fixture
def reward(config):
    torch.manual_seed(0)
    RewardEnsemble(SMALL).save(config.reward_model_path)
    integration = LearnedRewardIntegration(config)
    assert integration.load_model() is True
    return integration


@pytest.fixture(scope="module")
def song():
    rng = np.random.default_rng(0)
    n_beats = 48
    times = np.cumsum(rng.uniform(0.4, 0.6, n_beats))
    grid = BeatGrid(times, np.arange(n_beats) % 4 + 1, duration=float(times[-1]) + 1.0)
    values = rng.normal(size=(n_beats, N_FEATURES)).astype(np.float32)
    units = Units.bars(grid)
    return Song("song", "", "", BeatFeatures(values, grid), units, estimate_structure(values, units))


def test_the_documented_snippet(reward):
    beat_features = np.random.default_rng(0).standard_normal((32, 125))
    action_ids = np.zeros(32, dtype=int)
    learned = reward.compute_learned_reward(beat_features, action_ids)
    assert isinstance(learned, float) and -10 <= learned <= 10
    total = reward.compute_trajectory_reward(
        {"beat_features": beat_features, "action_ids": action_ids}, dense_reward=0.5
    )
    assert total == pytest.approx(0.8 * learned + 0.2 * 0.5)


def test_one_edit_scores_as_it_does_in_a_batch(reward, song):
    rng = np.random.default_rng(1)
    songs = collate([song])
    for _ in range(5):
        actions = rng.integers(0, 9, song.units.n_units) * (rng.random(song.units.n_units) < 0.5)
        edits = EditBatch(songs, torch.tensor([0]), torch.tensor(actions)[None], torch.tensor([0.6]))
        alone = reward.compute_learned_reward(
            beat_features_of(song, actions, target_ratio=0.6),
            actions[song.units.unit_id],
            unit_id=song.units.unit_id,
            beat_durations=np.diff(song.grid.bounds),
            structure=song.structure,
        )
        assert alone == pytest.approx(float(reward.ensemble(edits)), abs=1e-4)


def test_the_target_is_read_off_the_features(reward, song):
    actions = np.zeros(song.units.n_units, dtype=int)
    features = beat_features_of(song, actions, target_ratio=0.6)
    per_beat = actions[song.units.unit_id]
    assert reward.compute_learned_reward(features, per_beat) == pytest.approx(
        reward.compute_learned_reward(features, per_beat, target_ratio=0.6), abs=1e-6
    )
    assert reward.compute_learned_reward(features, per_beat) != pytest.approx(
        reward.compute_learned_reward(features, per_beat, target_ratio=0.9), abs=1e-5
    )


def test_units_are_bars_split_where_the_action_changes():
    features = np.zeros((10, 125))
    features[:, N_FEATURES - 17] = [0.5, 0.75, 0.0, 0.25, 0.5, 0.75, 0.0, 0.25, 0.5, 0.75]
    same = units_of(features, np.zeros(10, dtype=int))
    assert same.unit_id.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    split = units_of(features, np.array([0, 0, 1, 1, 0, 0, 0, 0, 0, 0]))
    assert split.unit_id.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    constant = units_of(np.zeros((3, 125)), np.zeros(3, dtype=int))
    assert constant.unit_id.tolist() == [0, 1, 2]


def test_a_missing_default_is_false_and_a_missing_named_path_an_error(config, tmp_path):
    integration = LearnedRewardIntegration(config)
    assert integration.load_model() is False
    with pytest.raises(FormatError, match=r"nowhere\.pt: no such reward model"):
        integration.load_model(tmp_path / "nowhere.pt")


def test_a_damaged_model_is_an_error_even_at_the_default(config, reward):
    with Path(config.reward_model_path).open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"\0\1\2\3\4\5\6\7" * 8)
    with pytest.raises(FormatError, match="damaged"):
        LearnedRewardIntegration(config).load_model()


def test_an_untrained_model_is_never_asked(config, song):
    integration = LearnedRewardIntegration(config)
    with pytest.raises(EditorBotError, match=r"call load_model\(\)"):
        integration.compute_learned_reward(np.zeros((4, 125)), np.zeros(4, dtype=int))
    edits = EditBatch(collate([song]), torch.tensor([0]), torch.zeros(1, 12, dtype=torch.int64), torch.tensor([0.5]))
    with pytest.raises(EditorBotError, match=r"call load_model\(\)"):
        integration(edits)


def _broken(what):
    features, actions = np.zeros((8, 125)), np.zeros(8, dtype=int)
    if what == "nan":
        features[3, 1] = np.nan
    elif what == "overflow":
        features[3, 1] = 1e300
    elif what == "no edit features":
        features = features[:, :121]
    elif what == "transposed":
        features = features.T
    elif what == "one beat flat":
        features = features[0]
    elif what == "empty":
        features, actions = features[:0], actions[:0]
    elif what == "text":
        features = [["a"] * 125] * 8
    elif what == "too few actions":
        actions = actions[:5]
    elif what == "reserved":
        actions[2] = 9
    elif what == "negative":
        actions[2] = -1
    elif what == "fractions":
        actions = actions.astype(float)
    return features, actions


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "beat 3, feature rms: nan"),
        ("overflow", "finite in float32; 1 are not"),
        ("no edit features", r"\(8, 121\); the 4 edit features are missing"),
        ("transposed", r"\(125, 8\); is it transposed\?"),
        ("one beat flat", r"must be \(n_beats, 125\); got \(125,\)"),
        ("empty", r"got \(0, 125\)"),
        ("text", "must be numbers"),
        ("too few actions", r"\(8,\); got \(5,\)"),
        ("reserved", r"got \[9\]; 9 is reserved"),
        ("negative", r"got \[-1\]"),
        ("fractions", "must be integers; got float64"),
    ],
)
def test_wrong_input_is_refused_with_what_came(reward, what, message):
    features, actions = _broken(what)
    with pytest.raises(ParameterError, match=message):
        reward.compute_learned_reward(features, actions)
    with pytest.raises(ValueError, match=message):
        reward.compute_trajectory_reward({"beat_features": features, "action_ids": actions}, dense_reward=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit_id": np.zeros(3, dtype=int)}, "unit_id must be one id per beat"),
        ({"beat_durations": np.zeros(8)}, "beat_durations must be positive"),
        ({"target_ratio": 0.0}, "target_ratio must be positive"),
        (
            {"unit_id": np.repeat([0, 1], 4), "structure": estimate_structure(np.zeros((8, 121)), Units.beats(8))},
            "of 2 units",
        ),
    ],
)
def test_wrong_options_are_refused(reward, changes, message):
    with pytest.raises(ParameterError, match=message):
        reward.compute_learned_reward(np.zeros((8, 125)), np.zeros(8, dtype=int), **changes)


def test_actions_that_differ_within_a_unit_are_refused(reward):
    with pytest.raises(ParameterError, match="unlike the first beat of its unit"):
        reward.compute_learned_reward(np.zeros((4, 125)), np.array([0, 1, 1, 1]), unit_id=np.zeros(4, dtype=int))


@pytest.mark.parametrize("dense", [float("nan"), "much", None])
def test_a_dense_reward_that_is_no_number_is_refused(reward, dense):
    trajectory = {"beat_features": np.zeros((4, 125)), "action_ids": np.zeros(4, dtype=int)}
    with pytest.raises(ParameterError, match="dense_reward must be"):
        reward.compute_trajectory_reward(trajectory, dense_reward=dense)


@pytest.mark.parametrize("trajectory", [{}, {"beat_features": np.zeros((4, 125))}, [1, 2]])
def test_an_incomplete_trajectory_is_refused(reward, trajectory):
    with pytest.raises(ParameterError, match="a trajectory holds"):
        reward.compute_trajectory_reward(trajectory, dense_reward=0.5)


def test_training_and_the_public_name_give_one_number(reward, song):
    """One edit, as arrays and as the batch that training scores."""
    songs = collate([song])
    actions = np.random.default_rng(2).integers(0, 2, song.units.n_units)
    edits = EditBatch(songs, torch.tensor([0]), torch.tensor(actions)[None], torch.tensor([0.6]))
    trained_on = reward_pair(reward.ensemble, songs).score(edits)
    trajectory = {
        "beat_features": beat_features_of(song, actions, target_ratio=0.6),
        "action_ids": actions[song.units.unit_id],
        "unit_id": song.units.unit_id,
        "beat_durations": np.diff(song.grid.bounds),
        "structure": song.structure,
    }
    alone = reward.compute_trajectory_reward(trajectory, dense_reward=float(dense_reward(edits)))
    assert alone == pytest.approx(float(trained_on.total), abs=1e-4)
    assert float(reward(edits)) == pytest.approx(float(trained_on.total), abs=1e-5)

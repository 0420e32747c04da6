"""The whole of training in eight parts, on composed songs: run with pytest, or as a script.

python tests/test_rlhf_integration.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError
from editorbot_core.config import DEFAULT_REWARD_MODEL_PATH, get_default_config, overridden
from editorbot_core.learned_reward_integration import LearnedRewardIntegration
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.trainer import RLHFTrainer


def beats(n_beats: int = 32, seed: int = 0) -> np.ndarray:
    """Random features as a caller might have them, (n_beats, 125)."""
    return np.random.default_rng(seed).standard_normal((n_beats, 125))


def test_1_configuration() -> None:
    config = get_default_config()
    assert (config.reward.hidden, config.reward.n_layers, config.reward.n_heads) == (256, 3, 4)
    assert config.reward_model_path == "models/reward_model_v8_long/reward_model_final.pt"
    assert (config.total_steps, config.save_interval, config.algorithm) == (100_000, 10_000, "ppo")
    with pytest.raises(ParameterError, match=r"no setting colour.*no setting ppo\.clip"):
        overridden(config, {"ppo.clip": 0.1, "colour": "red"})


def test_2_reward_initialisation() -> None:
    integration = LearnedRewardIntegration(get_default_config())
    with pytest.raises(EditorBotError, match="load_model"):
        integration.compute_learned_reward(beats(), np.zeros(32, dtype=int))


def test_3_loading(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LearnedRewardIntegration(get_default_config()).load_model() is False
    monkeypatch.chdir(trained.output)
    assert LearnedRewardIntegration(get_default_config()).load_model() is True
    with pytest.raises(EditorBotError, match=r"missing\.pt"):
        LearnedRewardIntegration(get_default_config()).load_model("missing.pt")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(Path(DEFAULT_REWARD_MODEL_PATH).read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"damaged\.pt"):
        LearnedRewardIntegration(get_default_config()).load_model(damaged)


def test_4_trajectory(trained) -> None:
    integration = trained.integration()
    trajectory = {"beat_features": beats(), "action_ids": np.zeros(32, dtype=int)}
    assert np.isfinite(integration.compute_trajectory_reward(trajectory, dense_reward=0.5))
    with pytest.raises(ParameterError, match="action_ids"):
        integration.compute_trajectory_reward({"beat_features": beats()}, dense_reward=0.5)


def test_5_learned_reward(trained) -> None:
    integration = trained.integration()
    actions = np.zeros(32, dtype=int)
    reward = integration.compute_learned_reward(beats(), actions)
    assert isinstance(reward, float)
    assert -10 < reward < 10
    assert reward == integration.compute_learned_reward(beats(), actions)
    other = actions.copy()
    other[8:16] = 1
    assert reward != integration.compute_learned_reward(beats(), other)
    for features, ids in (
        (beats()[:, :121], actions),
        (beats(), actions[:-1]),
        (np.full((32, 125), np.nan), actions),
        (beats(), actions + 9),
    ):
        with pytest.raises(ParameterError):
            integration.compute_learned_reward(features, ids)


def test_6_combination(trained) -> None:
    integration = trained.integration()
    trajectory = {"beat_features": beats(), "action_ids": np.zeros(32, dtype=int)}
    learned = integration.compute_learned_reward(trajectory["beat_features"], trajectory["action_ids"])
    for dense in (0.0, 0.5, 1.0):
        combined = integration.compute_trajectory_reward(trajectory, dense_reward=dense)
        assert combined == pytest.approx(0.8 * learned + 0.2 * dense, abs=1e-6)


def test_7_batch(trained) -> None:
    """What was scored one by one is the same in any order and company."""
    integration = trained.integration()
    rng = np.random.default_rng(1)
    trajectories = [(beats(n, seed=n), rng.integers(0, 2, n)) for n in (8, 32, 57, 120)]
    scores = [integration.compute_learned_reward(*trajectory) for trajectory in trajectories]
    again = [integration.compute_learned_reward(*trajectory) for trajectory in reversed(trajectories)]
    assert scores == list(reversed(again))
    assert len(set(scores)) == len(scores)


def test_8_checkpoint(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITORBOT_HOME", str(trained.home))
    result = trained.result
    history = json.loads(result.history_path.read_text())
    columns = ("episode", "step", "total_reward", "learned_reward", "dense_reward", "policy_loss", "value_loss")
    assert {len(history[name]) for name in history} == {len(history["step"])}
    assert all(np.isfinite(history[name]).all() for name in columns)
    assert result.policy_best.is_file()
    for path in (result.policy_final, *sorted((trained.output / "models").glob("checkpoint_*.pt"))):
        assert torch.load(path, weights_only=True)

    first = min((trained.output / "models").glob("checkpoint_*.pt"), key=lambda path: int(path.stem.split("_")[1]))
    resumed = RLHFTrainer(trained.config, output_dir=tmp_path, log_level="WARNING").train(
        trained.songs.parent,
        checkpoint=first,
        reward_model=str(trained.output / DEFAULT_REWARD_MODEL_PATH),
    )
    straight = torch.load(result.policy_final, weights_only=True)["state"]
    continued = torch.load(resumed.policy_final, weights_only=True)["state"]
    assert straight.keys() == continued.keys()
    assert all(torch.equal(straight[name], continued[name]) for name in straight)
    assert resumed.history["step"] == history["step"]
    assert resumed.history["total_reward"] == history["total_reward"]

    other = RewardEnsemble(trained.config.reward)
    other.save(tmp_path / "other.pt")
    with pytest.raises(FormatError, match="another reward model"):
        RLHFTrainer(trained.config, output_dir=tmp_path, log_level="WARNING").train(
            trained.songs.parent, checkpoint=first, reward_model=str(tmp_path / "other.pt")
        )


if __name__ == "__main__":
    status = pytest.main(["-q", "-p", "no:cacheprovider", __file__])
    if status == 0:
        sys.stdout.write("ALL TESTS PASSED\n")
    sys.exit(status)

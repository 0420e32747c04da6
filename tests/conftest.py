"""Fixtures that several test files share."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from editorbot_core.config import Config
    from editorbot_core.learned_reward_integration import LearnedRewardIntegration
    from editorbot_core.training.session import TrainingResult

# Chosen before numerical libraries start their threads; tests run beside each other on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own EDITORBOT_HOME, and none of the user's addresses."""
    monkeypatch.setenv("EDITORBOT_HOME", str(tmp_path / "home"))
    for name in (
        "MLFLOW_TRACKING_URI",
        "EDITORBOT_DATABASE_URL",
        "EDITORBOT_STORAGE",
        "EDITORBOT_SONGS",
        "DAGSTER_HOME",
    ):
        monkeypatch.delenv(name, raising=False)


# Small networks and few steps: what is tested is that training works, not how well.
SMALL_TRAINING = {
    "n_pairs": 20,
    "total_steps": 6000,
    "save_interval": 2000,
    "reward.hidden": 32,
    "reward.n_layers": 1,
    "reward.n_members": 1,
    "reward.epochs": 2,
    "policy.width": 32,
    "policy.n_layers": 1,
    "warm_start.n_steps": 5,
    "warm_start.edits_per_song": 4,
    "ppo.n_steps": 2000,
    "ppo.samples_per_song": 4,
    "ppo.whitening_edits": 16,
    "ppo.evaluate_every": 2,
}


@dataclass(frozen=True)
class Trained:
    """Four composed songs and what one short training run made of them."""

    config: "Config"
    home: Path
    songs: Path
    output: Path
    result: "TrainingResult"

    def integration(self) -> "LearnedRewardIntegration":
        """The combined reward with the trained model."""
        from editorbot_core.learned_reward_integration import LearnedRewardIntegration

        integration = LearnedRewardIntegration(self.config)
        assert integration.load_model(self.output / self.config.reward_model_path)
        return integration


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One short training run, shared by all tests of a session."""
    from editorbot_core.config import get_default_config, overridden
    from editorbot_core.songs.demo.songs import compose_demo_songs
    from editorbot_core.trainer import RLHFTrainer

    folder = tmp_path_factory.mktemp("rlhf")
    config = overridden(get_default_config(), SMALL_TRAINING)
    songs, output, home = folder / "training_data" / "train", folder / "out", folder / "home"
    compose_demo_songs(songs, n_songs=4, seed=0, n_processes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDITORBOT_HOME", str(home))
        result = RLHFTrainer(config, output_dir=output, log_level="WARNING").train(songs.parent)
    return Trained(config, home, songs, output, result)


@pytest.fixture(scope="session")
def steady_audio() -> "Callable[..., np.ndarray]":
    """Makes audio, mono at `SAMPLE_RATE`: `steady_audio(beat_s=0.5, metre=4, first_s=0.2, duration_s=20.0)`.

    Every bar has a chord of its own; every beat a bass note and a noise burst, the first of a bar the strongest.
    """

    import numpy as np

    from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE

    def make(
        beat_s: float = 0.5, metre: int = 4, first_s: float = 0.2, duration_s: float = 20.0, seed: int = 0
    ) -> "np.ndarray":
        rng = np.random.default_rng(seed)
        t = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
        beat = np.floor((t - first_s) / beat_s).astype(int)
        since = t - first_s - beat * beat_s
        root = 220.0 * 2.0 ** (rng.permutation(12)[beat // metre % 12] / 12)
        mix = sum(0.1 * np.sin(2 * np.pi * np.cumsum(root * ratio) / SAMPLE_RATE) for ratio in (1.0, 1.25, 1.5))
        mix += np.where(beat % metre == 0, 0.5, 0.15) * np.sin(2 * np.pi * 60 * t) * np.exp(-8 * since)
        mix += 0.2 * rng.standard_normal(len(t)) * np.exp(-50 * since)
        return np.where(beat >= 0, mix, 0.0).astype(np.float32)

    return make

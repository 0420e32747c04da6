"""Synthetic songs: without audio and of known durations for what edits them, and audio of known bars."""

from collections.abc import Callable

import numpy as np
import pytest

from editorbot_core.beats import BeatGrid
from editorbot_core.edits import Units
from editorbot_core.features import N_FEATURES, BeatFeatures
from editorbot_core.filterbanks import SAMPLE_RATE
from editorbot_core.songs import Song
from editorbot_core.structure import Structure


def make_song(seed: int = 0, *, n_bars: int = 12, tail_s: float = 2.0, jitter: float = 0.02) -> Song:
    """A song of bars of four beats, random features, phrases of four bars, and a final decay of `tail_s`."""
    rng = np.random.default_rng(seed)
    n_beats = 4 * n_bars
    beat_s = rng.uniform(0.4, 0.6) * (1 + rng.uniform(-jitter, jitter, n_beats))
    times = np.concatenate([[0.1], 0.1 + np.cumsum(beat_s)])
    grid = BeatGrid(times[:-1], np.arange(n_beats) % 4 + 1, duration=float(times[-1] + tail_s), confidence=0.9)
    bars = np.arange(n_bars)
    phase = np.full((n_bars, 4), 0.05)
    phase[bars, bars % 4] = 0.85
    return Song(
        track_id=f"{seed:016x}",
        path=f"song-{seed}.wav",
        sha256=f"{seed:064x}",
        features=BeatFeatures(rng.normal(size=(n_beats, N_FEATURES)).astype(np.float32), grid),
        units=Units.bars(grid),
        structure=Structure(
            phrase_start=np.where(bars % 4 == 0, 0.9, 0.1).astype(np.float32),
            phase=phase.astype(np.float32),
            cluster=bars // 4 % 2,
            confidence=0.8,
        ),
    )


@pytest.fixture(scope="session")
def synthetic_song() -> Callable[..., Song]:
    """Makes songs: `synthetic_song(seed, n_bars=12, tail_s=2.0, jitter=0.02)`."""
    return make_song


@pytest.fixture(scope="session")
def steady_audio() -> Callable[..., np.ndarray]:
    """Makes audio, mono at `SAMPLE_RATE`: `steady_audio(beat_s=0.5, metre=4, first_s=0.2, duration_s=20.0)`.

    Every bar has a chord of its own; every beat a bass note and a noise burst, the first of a bar the strongest.
    """

    def make(
        beat_s: float = 0.5, metre: int = 4, first_s: float = 0.2, duration_s: float = 20.0, seed: int = 0
    ) -> np.ndarray:
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

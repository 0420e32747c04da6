"""Synthetic songs: without audio and of known durations for what edits them, and audio of known bars."""

from collections.abc import Callable

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.songs.song import Song


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

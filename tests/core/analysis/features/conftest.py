"""A song of known beats, and its features."""

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.analysis.features.extraction import extract_features
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.audio.clip import AudioClip


def song(duration_s: float = 12.0, *, sample_rate: int = SAMPLE_RATE, n_channels: int = 1) -> AudioClip:
    """A bass note and a noise burst on every beat at 120 BPM, and a chord that changes every bar."""
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    beat = np.floor(t / 0.5).astype(int)
    since = t % 0.5
    chord = 2.0 ** ((beat // 4 % 3) * 5 / 12)
    mix = 0.2 * np.sin(2 * np.pi * 220 * chord * t) + 0.1 * np.sin(2 * np.pi * 277 * chord * t)
    mix += np.where(beat % 4 == 0, 0.5, 0.2) * np.sin(2 * np.pi * 60 * t) * np.exp(-8 * since)
    mix += 0.2 * np.random.default_rng(0).standard_normal(len(t)) * np.exp(-50 * since)
    mix += 0.01 * np.random.default_rng(1).standard_normal(len(t))
    samples = np.repeat(0.4 * mix[None], n_channels, axis=0).astype(np.float32)
    return AudioClip(samples, sample_rate)


def beat_grid(duration_s: float = 12.0) -> BeatGrid:
    times = np.arange(0.0, duration_s - 0.01, 0.5)
    return BeatGrid(times, np.arange(len(times)) % 4 + 1, duration=duration_s, confidence=0.9)


@pytest.fixture(scope="module")
def features() -> BeatFeatures:
    return extract_features(song(), beat_grid())


def column(features: BeatFeatures, name: str) -> np.ndarray:
    return features.values[:, FEATURE_INDEX[name]]

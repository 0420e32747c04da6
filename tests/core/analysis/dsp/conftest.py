"""A passage with something of everything that features measure."""

import numpy as np
import pytest

from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames


def passage(duration_s: float = 12.0, *, seed: int = 0) -> np.ndarray:
    """Chords, a bass and noise bursts, slightly out of tune: something of everything that features measure."""
    rng = np.random.default_rng(seed)
    n = int(duration_s * SAMPLE_RATE)
    samples = np.zeros(n)
    for start in range(0, n, SAMPLE_RATE // 2):
        length = min(SAMPLE_RATE // 2, n - start)
        t = np.arange(length) / SAMPLE_RATE
        decay = np.exp(-4 * t)
        for pitch in 48 + rng.choice(24, 4) + 0.13:
            hz = 440 * 2 ** ((pitch - 69) / 12)
            samples[start : start + length] += (
                0.1 * decay * sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 9))
            )
        samples[start : start + length] += 0.05 * np.exp(-40 * t) * rng.standard_normal(length)
    return (samples + 1e-4 * rng.standard_normal(n)).astype(np.float32)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return passage()


@pytest.fixture(scope="module")
def frames(samples: np.ndarray) -> FrameFeatures:
    return analyse_frames(samples)

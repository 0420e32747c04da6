"""Four pseudo-stems share the power of the mix, and each takes what is its own."""

import numpy as np
from scipy.ndimage import median_filter

from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_FFT, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.stems import STEM_NAMES, running_median, stem_frames


def test_running_median_is_the_median() -> None:
    values = np.random.default_rng(0).random((200, 7)).astype(np.float32)
    values[40:70] = 0.5
    for width in (3, 13, 17):
        expected = median_filter(values, size=(width, 1), mode="nearest")
        np.testing.assert_array_equal(running_median(values, width), expected)
    np.testing.assert_array_equal(running_median(values[:4], 17), median_filter(values[:4], (17, 1), mode="nearest"))


def test_stems_share_the_power_of_the_mix(samples: np.ndarray, frames: FrameFeatures) -> None:
    stems = stem_frames(frames.mel)
    assert stems.power.shape == (frames.n_frames, 4)
    assert (stems.power >= 0).all()
    mix = np.sum(stems.power[5:-5], axis=1)
    windowed = np.lib.stride_tricks.sliding_window_view(np.pad(samples, N_FFT // 2), N_FFT)[::HOP_LENGTH]
    window = np.hanning(N_FFT + 1)[:-1]
    expected = ((windowed * window) ** 2).sum(axis=1) / (window**2).sum()
    np.testing.assert_allclose(mix, expected[5:-5], rtol=0.1)


def _share(samples: np.ndarray) -> dict[str, float]:
    power = stem_frames(analyse_frames(samples.astype(np.float32)).mel).power[10:-10].sum(axis=0)
    return dict(zip(STEM_NAMES, power / power.sum(), strict=True))


def test_stems_take_what_is_theirs() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    clicks = rng.standard_normal(len(t)) * np.exp(-60 * (t % 0.5))
    assert _share(clicks)["drums"] > 0.8
    assert _share(np.sin(2 * np.pi * 70 * t))["bass"] > 0.7
    assert _share(0.1 * sum(np.sin(2 * np.pi * 660 * k * t) for k in (1, 2, 3)))["other"] > 0.6
    singing = np.sin(2 * np.pi * 500 * t + 12 * np.sin(2 * np.pi * 0.7 * t)) * (t % 1.0 < 0.45)
    assert _share(0.3 * singing)["vocals"] > _share(0.3 * np.sin(2 * np.pi * 500 * t))["vocals"] + 0.2

import numpy as np
import pytest

from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_BINS, N_FFT, hann_window
from editorbot_core.analysis.dsp.fourier import power_of_frames, tables, workspace
from editorbot_core.analysis.dsp.lanes import LANES


def powers(samples: np.ndarray, first: int = 0) -> np.ndarray:
    """Power spectra of eight frames from hop `first` on, (1025, 8)."""
    hops = np.ascontiguousarray(samples.reshape(-1, HOP_LENGTH).T)
    power = np.empty(N_BINS * LANES)
    power_of_frames(hops, first, (*tables(), *workspace()), power)
    return power.reshape(N_BINS, LANES)


@pytest.mark.parametrize("first", [0, 3])
def test_spectra_are_those_of_numpy(first: int) -> None:
    samples = np.random.default_rng(0).standard_normal(14 * HOP_LENGTH).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH][first : first + LANES]
    expected = np.abs(np.fft.rfft(frames * hann_window())) ** 2
    np.testing.assert_allclose(powers(samples, first), expected.T, rtol=1e-9, atol=1e-12 * expected.max())


@pytest.mark.parametrize("k", [0, 1, 16, 31, 32, 33, 511, 512, 513, 1_008, 1_023, 1_024])
def test_a_tone_is_in_its_bin_and_nowhere_else(k: int) -> None:
    samples = np.cos(2 * np.pi * k * np.arange(11 * HOP_LENGTH) / N_FFT).astype(np.float32)
    power = powers(samples)
    assert (power[k] > 0.99 * power.max(axis=0)).all()
    # The window spreads a tone to the two bins beside it.
    far = np.abs(np.arange(N_BINS) - k) > 1
    assert power[far].max() < 1e-9 * power.max()


def test_silence_has_no_power() -> None:
    assert not powers(np.zeros(11 * HOP_LENGTH, dtype=np.float32)).any()

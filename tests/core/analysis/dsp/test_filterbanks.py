"""Filters agree with librosa, loudness with BS.1770."""

import librosa
import numpy as np
import pytest

from editorbot_core.analysis.dsp.filterbanks import N_FFT, SAMPLE_RATE, chroma_filters, mel_filters
from editorbot_core.analysis.dsp.frames import analyse_frames


@pytest.mark.parametrize("tuning", [-0.3, 0.0, 0.25])
def test_filters_agree_with_librosa(tuning: float) -> None:
    expected = librosa.filters.chroma(sr=SAMPLE_RATE, n_fft=N_FFT, tuning=tuning)
    np.testing.assert_allclose(chroma_filters(tuning), expected, atol=1e-6)
    np.testing.assert_allclose(mel_filters(), librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT), atol=1e-8)


def test_loudness_of_the_reference_tone() -> None:
    t = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS; gates ignore the silence and the quiet tone.
    tone = np.sin(2 * np.pi * 997 * t).astype(np.float32)
    assert analyse_frames(tone).loudness_db == pytest.approx(-3.01, abs=0.1)
    assert analyse_frames(np.float32(0.1) * tone).loudness_db == pytest.approx(-23.01, abs=0.1)
    for quiet in (0.0, 0.03):
        passage = np.concatenate([tone, np.float32(quiet) * tone])
        assert analyse_frames(passage).loudness_db == pytest.approx(-3.0, abs=0.3)

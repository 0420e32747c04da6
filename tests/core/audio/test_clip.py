"""Samples in memory."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.audio.clip import AudioClip, resample
from editorbot_core.audio.files import read_audio, write_audio
from editorbot_core.base.errors import ParameterError
from tests.core.audio.conftest import tone


def test_resampling_keeps_a_tone(tmp_path: Path) -> None:
    expected = tone(2.0, sample_rate=16_000, n_channels=2)
    got = resample(tone(2.0, sample_rate=44_100, n_channels=2), 16_000)
    np.testing.assert_allclose(got.samples[:, 500:-500], expected.samples[:, 500:-500], atol=1e-3)
    write_audio(tmp_path / "a.wav", tone(2.0, sample_rate=44_100, n_channels=2))
    read = read_audio(tmp_path / "a.wav", sample_rate=16_000)
    np.testing.assert_allclose(read.samples, got.samples, atol=1e-5)


def test_a_clip_checks_its_samples() -> None:
    with pytest.raises(ParameterError, match="float32"):
        AudioClip(np.zeros((1, 9)), 22_050)
    with pytest.raises(ParameterError, match="positive"):
        AudioClip(np.zeros((1, 9), dtype=np.float32), 0)

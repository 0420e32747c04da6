"""Features per frame agree with librosa, however the audio comes in."""

import librosa
import numpy as np
import pytest

from editorbot_core.analysis.beats import tracking
from editorbot_core.analysis.dsp import frames as spectral
from editorbot_core.analysis.dsp import stems
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_FFT, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameAnalyser, FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.stems import stem_frames


def _librosa_features(samples: np.ndarray) -> dict[str, np.ndarray]:
    feature, sr = librosa.feature, SAMPLE_RATE
    mfcc = feature.mfcc(y=samples, sr=sr, n_mfcc=13)
    return {
        "onset_strength": librosa.onset.onset_strength(y=samples, sr=sr),
        "rms": feature.rms(y=samples)[0],
        "zero_crossing_rate": feature.zero_crossing_rate(samples)[0],
        "centroid": feature.spectral_centroid(y=samples, sr=sr)[0],
        "bandwidth": feature.spectral_bandwidth(y=samples, sr=sr)[0],
        "flatness": feature.spectral_flatness(y=samples)[0],
        "contrast": feature.spectral_contrast(y=samples, sr=sr).T,
        "mfcc": mfcc.T,
        "mfcc_delta": feature.delta(mfcc).T,
        "chroma": feature.chroma_stft(y=samples, sr=sr).T,
        "mel": feature.melspectrogram(y=samples, sr=sr).T,
    }


def test_frames_agree_with_librosa(samples: np.ndarray, frames: FrameFeatures) -> None:
    for name, expected in _librosa_features(samples).items():
        got = getattr(frames, name)
        assert got.shape == expected.shape, name
        tolerance = 1e-3 if name == "contrast" else 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


def test_rolloff_agrees_with_librosa_but_for_ties(samples: np.ndarray, frames: FrameFeatures) -> None:
    expected = librosa.feature.spectral_rolloff(y=samples, sr=SAMPLE_RATE)[0]
    # librosa sums in single precision, so a sum that lies on the threshold may fall into the next bin.
    bins = np.abs(frames.rolloff - expected) / (SAMPLE_RATE / N_FFT)
    assert bins.max() < 1.01
    assert (bins > 0.5).mean() < 0.01


def test_tuning_agrees_with_librosa(samples: np.ndarray, frames: FrameFeatures) -> None:
    spectrum = np.abs(librosa.stft(samples)) ** 2
    assert frames.tuning == pytest.approx(librosa.estimate_tuning(S=spectrum, sr=SAMPLE_RATE), abs=1e-9)
    assert frames.tuning == pytest.approx(0.13, abs=0.05)


@pytest.mark.parametrize("pieces", [[1], [1_000], [511, 513, 70_000], [150_000, 7]])
def test_pieces_of_any_length_give_the_same_frames(
    samples: np.ndarray, frames: FrameFeatures, pieces: list[int]
) -> None:
    samples = samples[:3_000] if pieces == [1] else samples
    expected = analyse_frames(samples) if pieces == [1] else frames
    analyser = FrameAnalyser()
    start, i = 0, 0
    while start < len(samples):
        analyser.push(samples[start : start + pieces[i % len(pieces)]])
        start += pieces[i % len(pieces)]
        i += 1
    got = analyser.finish()
    for name in FrameFeatures.__dataclass_fields__:
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-6, atol=1e-6, err_msg=name)


def test_tuning_settles_while_long_audio_streams(samples: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = analyse_frames(samples)
    monkeypatch.setattr(spectral, "_TUNING_FRAMES", 256)
    got = analyse_frames(samples)
    assert got.chroma.shape == whole.chroma.shape
    assert got.tuning == pytest.approx(whole.tuning, abs=0.03)
    np.testing.assert_allclose(got.mfcc, whole.mfcc, atol=1e-4)


def test_a_tone_is_where_it_sounds() -> None:
    t = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    frames = analyse_frames((0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32))
    middle = slice(10, -10)
    np.testing.assert_allclose(frames.centroid[middle], 440, atol=2)
    np.testing.assert_allclose(frames.rms[middle], 0.5 / np.sqrt(2), rtol=1e-2)
    np.testing.assert_allclose(frames.zero_crossing_rate[middle], 880 / SAMPLE_RATE, rtol=0.03)
    assert (frames.chroma[middle].argmax(axis=1) == 9).all()
    assert frames.peak == pytest.approx(0.5, abs=1e-3)
    assert frames.duration_s == 5.0


@pytest.mark.parametrize("n_samples", [1, 511, 512, 2_048, 5_000])
def test_short_and_silent_audio_gives_finite_frames(n_samples: int) -> None:
    for value in (0.0, 0.5):
        frames = analyse_frames(np.full(n_samples, value, dtype=np.float32))
        assert frames.n_frames == 1 + n_samples // HOP_LENGTH
        for name in FrameFeatures.__dataclass_fields__:
            assert np.isfinite(getattr(frames, name)).all(), name
    assert analyse_frames(np.zeros(n_samples, dtype=np.float32)).loudness_db == -70.0


def test_blocks_do_not_show(samples: np.ndarray, frames: FrameFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_stems, whole_onsets = stem_frames(frames.mel), tracking.band_onsets(frames.mel)
    whole_grid = tracking.track_beats(frames)
    for module in (spectral, stems, tracking):
        monkeypatch.setattr(module, "_CHUNK_FRAMES", 104)
    blocked = analyse_frames(samples)
    np.testing.assert_allclose(blocked.onset_strength, frames.onset_strength, atol=1e-5)
    np.testing.assert_allclose(blocked.mfcc, frames.mfcc, atol=1e-3)
    np.testing.assert_allclose(stem_frames(frames.mel).power, whole_stems.power, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(tracking.band_onsets(frames.mel), whole_onsets, atol=1e-6)
    np.testing.assert_array_equal(tracking.track_beats(blocked).times, whole_grid.times)

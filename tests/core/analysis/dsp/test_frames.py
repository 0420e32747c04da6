import numpy as np
import pytest
from scipy.ndimage import median_filter

from editorbot_core.analysis.beats import tracking
from editorbot_core.analysis.dsp import frames as spectral
from editorbot_core.analysis.dsp import stems
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_FFT, SAMPLE_RATE, chroma_filters, mel_filters
from editorbot_core.analysis.dsp.frames import FrameAnalyser, FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.stems import STEM_NAMES, running_median, stem_frames


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


def _librosa_features(samples: np.ndarray) -> dict[str, np.ndarray]:
    librosa = pytest.importorskip("librosa")
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
    librosa = pytest.importorskip("librosa")
    expected = librosa.feature.spectral_rolloff(y=samples, sr=SAMPLE_RATE)[0]
    # librosa sums in single precision, so a sum that lies on the threshold may fall into the next bin.
    bins = np.abs(frames.rolloff - expected) / (SAMPLE_RATE / N_FFT)
    assert bins.max() < 1.01
    assert (bins > 0.5).mean() < 0.01


def test_tuning_agrees_with_librosa(samples: np.ndarray, frames: FrameFeatures) -> None:
    librosa = pytest.importorskip("librosa")
    spectrum = np.abs(librosa.stft(samples)) ** 2
    assert frames.tuning == pytest.approx(librosa.estimate_tuning(S=spectrum, sr=SAMPLE_RATE), abs=1e-9)
    assert frames.tuning == pytest.approx(0.13, abs=0.05)


@pytest.mark.parametrize("tuning", [-0.3, 0.0, 0.25])
def test_filters_agree_with_librosa(tuning: float) -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.chroma(sr=SAMPLE_RATE, n_fft=N_FFT, tuning=tuning)
    np.testing.assert_allclose(chroma_filters(tuning), expected, atol=1e-6)
    np.testing.assert_allclose(mel_filters(), librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT), atol=1e-8)


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


def test_loudness_of_the_reference_tone() -> None:
    t = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS; gates ignore the silence and the quiet tone.
    tone = np.sin(2 * np.pi * 997 * t).astype(np.float32)
    assert analyse_frames(tone).loudness_db == pytest.approx(-3.01, abs=0.1)
    assert analyse_frames(np.float32(0.1) * tone).loudness_db == pytest.approx(-23.01, abs=0.1)
    for quiet in (0.0, 0.03):
        passage = np.concatenate([tone, np.float32(quiet) * tone])
        assert analyse_frames(passage).loudness_db == pytest.approx(-3.0, abs=0.3)


@pytest.mark.parametrize("n_samples", [1, 511, 512, 2_048, 5_000])
def test_short_and_silent_audio_gives_finite_frames(n_samples: int) -> None:
    for value in (0.0, 0.5):
        frames = analyse_frames(np.full(n_samples, value, dtype=np.float32))
        assert frames.n_frames == 1 + n_samples // HOP_LENGTH
        for name in FrameFeatures.__dataclass_fields__:
            assert np.isfinite(getattr(frames, name)).all(), name
    assert analyse_frames(np.zeros(n_samples, dtype=np.float32)).loudness_db == -70.0


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

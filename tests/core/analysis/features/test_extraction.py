"""Features per beat are means of what sounds in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.analysis.features.columns import FEATURE_NAMES, N_FEATURES
from editorbot_core.analysis.features.extraction import analyse, extract_features
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.errors import AudioError, ParameterError
from tests.core.analysis.features.conftest import beat_grid, column, song


def test_there_are_121_named_features() -> None:
    assert N_FEATURES == len(set(FEATURE_NAMES)) == 121
    assert FEATURE_NAMES[:4] == ("onset_strength", "rms", "spectral_centroid", "zero_crossing_rate")
    assert FEATURE_NAMES[52] == "onset_strength_diff"
    assert FEATURE_NAMES[-12:-9] == ("drums_energy", "drums_centroid", "drums_energy_share")


def test_rows_are_means_over_the_beat(features: BeatFeatures) -> None:
    frames = analyse_frames(song().samples[0])
    times = np.arange(frames.n_frames) * HOP_LENGTH / SAMPLE_RATE
    for i, (start, end) in enumerate(zip(beat_grid().times, [*beat_grid().times[1:], 99.0], strict=True)):
        inside = (times >= start) & (times < end)
        assert column(features, "rms")[i] == pytest.approx(frames.rms[inside].mean(), rel=1e-5)
        assert column(features, "mfcc_02")[i] == pytest.approx(frames.mfcc[inside, 1].mean(), rel=1e-4, abs=1e-3)
        assert column(features, "chroma_a")[i] == pytest.approx(frames.chroma[inside, 9].mean(), rel=1e-5)


def test_differences_are_between_beats(features: BeatFeatures) -> None:
    for name in ("rms", "spectral_contrast_7", "chroma_b"):
        difference = column(features, f"{name}_diff")
        assert difference[0] == 0
        np.testing.assert_allclose(difference[1:], np.diff(column(features, name)), rtol=1e-4, atol=5e-3)


def test_the_grid_is_described() -> None:
    times = np.array([0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 3.5, 4.0])
    grid = BeatGrid(times, [4, 1, 2, 3, 4, 1, 2, 3], duration=6.0)
    features = extract_features(song(6.0), grid)
    np.testing.assert_allclose(column(features, "beat_phase"), np.array([3, 0, 1, 2, 3, 0, 1, 2]) / 4)
    np.testing.assert_allclose(column(features, "beat_phase_sin")[:3], [-1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(column(features, "beat_phase_cos")[:3], [0, 1, 0], atol=1e-6)
    # The last beat is followed by the end of the audio, not by a beat: it takes the interval before.
    np.testing.assert_allclose(column(features, "tempo_deviation"), np.log([1, 1, 1, 2, 1, 1, 1, 1]), atol=1e-6)
    np.testing.assert_allclose(column(features, "inter_beat_interval_ratio"), [1, 1, 1, 2, 0.5, 1, 1, 1], atol=1e-6)


def test_stem_shares_sum_to_one(features: BeatFeatures) -> None:
    shares = [column(features, f"{stem}_energy_share") for stem in ("drums", "bass", "vocals", "other")]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1.0, atol=1e-5)
    energies = [column(features, f"{stem}_energy") ** 2 for stem in ("drums", "bass", "vocals", "other")]
    assert np.sqrt(np.sum(energies, axis=0)).mean() == pytest.approx(column(features, "rms").mean(), rel=0.15)


@pytest.mark.parametrize("n_beats", [1, 2, 3])
def test_few_beats_have_features(n_beats: int) -> None:
    grid = BeatGrid(0.1 + 0.001 * np.arange(n_beats), np.arange(n_beats) + 1, duration=5.0)
    assert extract_features(song(5.0), grid).values.shape == (n_beats, 121)


def test_beats_are_tracked_if_none_are_given() -> None:
    features = extract_features(song(sample_rate=44_100, n_channels=2))
    assert features.grid.tempo == pytest.approx(120, rel=0.02)
    assert features.grid.duration == 12.0


def test_a_file_and_its_samples_have_the_same_features(tmp_path: Path) -> None:
    clip = song(sample_rate=44_100, n_channels=2)
    write_audio(tmp_path / "a.wav", clip)
    analysed = analyse(tmp_path / "a.wav")
    assert (analysed.sample_rate, analysed.n_channels, analysed.duration_s) == (44_100, 2, 12.0)
    assert analysed.features.grid.duration == 12.0
    expected = extract_features(clip, analysed.features.grid)
    scale = np.abs(expected.values).max(axis=0) + 1e-6
    np.testing.assert_allclose(analysed.features.values / scale, expected.values / scale, atol=5e-3)


@pytest.mark.parametrize("value", [0.0, 1e-5])
def test_silence_is_refused(tmp_path: Path, value: float) -> None:
    clip = AudioClip(np.full((1, 8 * SAMPLE_RATE), value, dtype=np.float32), SAMPLE_RATE)
    with pytest.raises(AudioError, match="silent"):
        extract_features(clip)
    write_audio(tmp_path / "a.wav", clip)
    with pytest.raises(AudioError, match=r"a\.wav: silent"):
        analyse(tmp_path / "a.wav")


def test_channels_that_cancel_are_silence() -> None:
    samples = song().samples
    with pytest.raises(AudioError, match="silent: no sample of the mean of its channels"):
        extract_features(AudioClip(np.concatenate([samples, -samples]), SAMPLE_RATE))


def test_a_file_without_beats_is_refused(tmp_path: Path) -> None:
    samples = np.zeros((1, 20 * SAMPLE_RATE), dtype=np.float32)
    samples[0, 10 * SAMPLE_RATE] = 0.9
    write_audio(tmp_path / "a.wav", AudioClip(samples, SAMPLE_RATE))
    with pytest.raises(AudioError, match=r"a\.wav: 1 beats found; a song has at least 4"):
        analyse(tmp_path / "a.wav")


def test_short_audio_is_refused() -> None:
    with pytest.raises(AudioError, match=re.escape("lasts 3.50 s; a song lasts at least 4 s")):
        extract_features(song(3.5))


def test_samples_that_are_no_numbers_are_refused() -> None:
    clip = AudioClip(np.full((1, 8 * SAMPLE_RATE), np.nan, dtype=np.float32), SAMPLE_RATE)
    with pytest.raises(AudioError, match="not finite"):
        extract_features(clip)


def test_the_grid_of_another_song_is_refused() -> None:
    with pytest.raises(ParameterError, match=re.escape("the grid covers 20.000 s of audio; this lasts 12.000 s")):
        extract_features(song(), beat_grid(20.0))


def test_features_need_no_torch() -> None:
    modules = "editorbot_core.analysis.features.extraction, editorbot_core.songs.ingestion"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


_WARM = """
import sys
from pathlib import Path
from editorbot_core.analysis.features.extraction import analyse, warm_up
warm_up()
cache, song = map(Path, sys.argv[1:])
compiled = {path.name for path in cache.rglob("*.nbc")}
analyse(song)
print(len(compiled), *sorted({path.name for path in cache.rglob("*.nbc")} - compiled))
"""


@pytest.mark.slow
def test_the_first_song_finds_everything_compiled(tmp_path: Path) -> None:
    cache, path = tmp_path / "cache", tmp_path / "song.wav"
    write_audio(path, song(30.0, sample_rate=44_100, n_channels=2))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", _WARM, str(cache), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    n_compiled, *late = done.stdout.split()
    assert int(n_compiled) > 10
    assert late == []

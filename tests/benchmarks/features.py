"""Speed and correctness of the 121 features, against librosa and against the least that must be done."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import soundfile
import soxr

from editorbot_core.audio import mono_blocks, open_audio
from editorbot_core.features import analyse, mix_columns, warm_up
from editorbot_core.filterbanks import SAMPLE_RATE
from editorbot_core.spectral import FrameAnalyser, FrameFeatures, analyse_frames
from editorbot_core.tracking import track_beats
from tests.benchmarks import plain
from tests.benchmarks.material import write_song
from tests.benchmarks.registry import Bench, Row, at_least, at_most, benchmark, interleaved, on_one_core, timed

DURATION_S = 180.0
_CONTRAST_DB = 0.01
_RELATIVE = 1e-5
_GROUPS = {
    "onset": "onset_strength",
    "rms": "rms",
    "centroid": "centroid",
    "zcr": "zero_crossing_rate",
    "rolloff": "rolloff",
    "bandwidth": "bandwidth",
    "flatness": "flatness",
    "contrast": "contrast",
    "mfcc": "mfcc",
    "mfcc_delta": "mfcc_delta",
    "chroma": "chroma",
}


def _without_stems(path: Path) -> np.ndarray:
    """The 109 features that need no stems, from a file."""
    analyser = FrameAnalyser()
    with open_audio(path) as stream:
        for block in mono_blocks(stream, SAMPLE_RATE):
            analyser.push(block)
    frames = analyser.finish()
    return mix_columns(frames, track_beats(frames))


def _least(path: Path) -> None:
    """Decode, mix down, resample, and one windowed float32 FFT pass."""
    samples, rate = soundfile.read(path, dtype="float32")
    mono = samples @ np.full(samples.shape[1], 1.0 / samples.shape[1], dtype=np.float32)
    mono = soxr.resample(mono, rate, plain.SR, quality="HQ")
    window = np.hanning(2_049)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(mono, 1_024), 2_048)[::512]
    for start in range(0, len(frames), 64):
        scipy.fft.rfft(frames[start : start + 64] * window)


@benchmark("features")
def features(bench: Bench) -> Sequence[Row]:
    """From a file to features, one song."""
    path = write_song(bench.folder / "song.wav", DURATION_S)
    bench.say("warming up")
    warm_up()
    short = write_song(bench.folder / "short.wav", 10.0)
    for function in (analyse, _without_stems, plain.beat_features, _least):
        function(short)
    ours = partial(analyse, path)
    ours_fast = partial(_without_stems, path)
    bound = partial(_least, path)
    bench.say("EditorBot and the bound, 9 rounds")
    all_121, only_109, least = interleaved([ours, ours_fast, bound], 9)
    with on_one_core():
        core_121, core_109, core_least = interleaved([ours, ours_fast, bound], 5)
    bench.say("plain librosa with HPSS, 2 runs")
    librosa_121 = timed(partial(plain.beat_features, path), 2)
    bench.say("plain librosa without HPSS, 3 runs")
    librosa_109 = timed(partial(plain.beat_features, path, stems=False), 3)
    rows = []
    for name, times, core, theirs, other, least_ratio in (
        ("121 features, 180 s stereo WAV", all_121, core_121, librosa_121, "plain librosa + HPSS", 50.0),
        ("109 features (no stems)", only_109, core_109, librosa_109, "plain librosa", 9.0),
    ):
        ratio = theirs.best / times.best
        details = {"ours": times.details(), "theirs": theirs.details(), "one_core": core.details()}
        rows.append(
            Row(name, times.best, "s", other, theirs.best, ratio, **at_least(ratio, least_ratio), details=details)
        )
        ratio = theirs.best / core.best
        rows.append(Row(f"{name}, decoder on the same core", core.best, "s", other, theirs.best, ratio))
    for name, times, floor, target in (
        ("121 features over the bound", all_121, least, True),
        ("121 features over the bound, decoder on the same core", core_121, core_least, False),
    ):
        over = times.best / floor.best
        rows.append(
            Row(
                name,
                times.best,
                "s",
                "decode, mono, resample, float32 FFT",
                floor.best,
                1 / over,
                **(at_most(over, 3.5, "total / bound") if target else {}),
                details={"ours": times.details(), "bound": floor.details(), "total_over_bound": over},
            )
        )
    return rows


def _expected(frames: dict[str, np.ndarray], name: str) -> np.ndarray:
    rows = frames[name]
    return rows[0] if len(rows) == 1 else rows.T


@benchmark("agreement")
def agreement(bench: Bench) -> Sequence[Row]:
    """Largest difference from librosa on the same samples, per group of features."""
    y = plain.load(write_song(bench.folder / "song.wav", DURATION_S))
    bench.say("librosa")
    theirs = plain.frame_features(y)
    ours: FrameFeatures = analyse_frames(y)
    rows = []
    for name, attribute in _GROUPS.items():
        expected, got = _expected(theirs, name), getattr(ours, attribute)
        difference = np.abs(got - expected)
        if name == "contrast":
            worst = float(difference.max())
            rows.append(Row("contrast, largest difference", worst, "dB", "librosa", **at_most(worst, _CONTRAST_DB)))
        elif name == "rolloff":
            bin_hz = plain.SR / 2_048
            share = float((difference > 0.5 * bin_hz).mean())
            details = {"largest_bins": float(difference.max() / bin_hz)}
            rows.append(Row("rolloff, frames that differ by a bin", share, "share", "librosa", details=details))
        else:
            worst = float(difference.max() / np.abs(expected).max())
            limit = at_most(worst, _RELATIVE)
            rows.append(Row(f"{name}, largest difference over the maximum", worst, "", "librosa", **limit))
    power = np.abs(librosa.stft(y)) ** 2
    tuning = float(librosa.estimate_tuning(S=power, sr=plain.SR))
    rows.append(Row("tuning", ours.tuning, "semitones", "librosa", tuning))
    return rows

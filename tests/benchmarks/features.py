"""Speed and correctness of the 121 features, against librosa and against the least that must be done."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import soundfile
import soxr
from numba import njit

from editorbot_core.analysis.beats.tracking import track_beats
from editorbot_core.analysis.dsp import fourier
from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_BINS, N_FFT, SAMPLE_RATE, hann_window
from editorbot_core.analysis.dsp.frames import FrameAnalyser, FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.lanes import LANES
from editorbot_core.analysis.features.extraction import analyse, mix_columns, warm_up
from editorbot_core.audio.files import open_audio
from tests.benchmarks import plain
from tests.benchmarks.material import write_song
from tests.benchmarks.registry import (
    Bench,
    Row,
    Times,
    at_least,
    at_most,
    benchmark,
    in_fresh_process,
    on_one_core,
    taking_turns,
)

DURATION_S = 180.0
_N_ROUNDS = 3
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
    with open_audio(path, mono=True, sample_rate=SAMPLE_RATE) as stream:
        for block in stream:
            analyser.push(block[:, 0])
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
    functions = {
        "ours_121": partial(analyse, path),
        "ours_109": partial(_without_stems, path),
        "bound": partial(_least, path),
        "plain_121": partial(plain.beat_features, path),
        "plain_109": partial(plain.beat_features, path, stems=False),
    }
    # Ours are short: several before and after each of the long ones, so that a busy machine slows all alike.
    short_ones = ["ours_121", "ours_109", "bound"] * 3
    turns = [*short_ones, "plain_109", *short_ones, "plain_121", *short_ones]
    rounds = []
    for i in range(_N_ROUNDS):
        bench.say(f"round {i + 1} of {_N_ROUNDS}")
        rounds.append(taking_turns(functions, turns))
    with on_one_core():
        bench.say("decoder on the same core")
        one_core = taking_turns({name: functions[name] for name in set(short_ones)}, short_ones)
    return [
        *_comparison("121 features, 180 s stereo WAV", rounds, "ours_121", "plain_121", 50.0),
        *_comparison("109 features (no stems)", rounds, "ours_109", "plain_109", 9.0),
        *(
            _over_bound(name, found, most)
            for name, found, most in (("", rounds, 3.5), (", decoder on the same core", [one_core], None))
        ),
    ]


_ALTERNATIVES = {"plain_121": "plain librosa + HPSS", "plain_109": "plain librosa"}


def _comparison(what: str, rounds: list[dict[str, Times]], ours: str, theirs: str, least: float) -> list[Row]:
    """The median over rounds of their time over the median of ours in the same round; and the best over the best."""
    ratio = float(np.median([found[theirs].median / found[ours].median for found in rounds]))
    figures = [float(np.median([found[name].median for found in rounds])) for name in (ours, theirs)]
    best = [min(found[name].best for found in rounds) for name in (ours, theirs)]
    details = {name: [found[name].details() for found in rounds] for name in (ours, theirs)}
    other, target = _ALTERNATIVES[theirs], at_least(ratio, least)
    return [
        Row(what, figures[0], "s", other, figures[1], ratio, **target, details=details),
        Row(f"{what}, best run", best[0], "s", other, best[1], best[1] / best[0]),
    ]


def _over_bound(where: str, rounds: list[dict[str, Times]], most: float | None) -> Row:
    over = float(np.median([found["ours_121"].median / found["bound"].median for found in rounds]))
    figures = [float(np.median([found[name].median for found in rounds])) for name in ("ours_121", "bound")]
    details = {name: [found[name].details() for found in rounds] for name in ("ours_121", "bound")}
    target = at_most(over, most, "total / bound") if most else {}
    what = f"121 features, total / bound = {over:.2f}{where}"
    return Row(
        what, figures[0], "s", "decode, mono, resample, float32 FFT", figures[1], 1 / over, **target, details=details
    )


@njit(nogil=True)
def _own_transform(hops: np.ndarray, tables: tuple[np.ndarray, ...], power: np.ndarray) -> None:
    """Power spectra of all frames, eight at a time; each group replaces the one before."""
    for first in range(0, hops.shape[1] - N_FFT // HOP_LENGTH, LANES):
        fourier.power_of_frames(hops, first, tables, power)


def _scipy_transform(frames: np.ndarray, window: np.ndarray) -> None:
    """The same by `scipy.fft`, in blocks of as many frames, laid out as what follows needs them: a frame per lane."""
    for start in range(0, len(frames), _BLOCK):
        spectrum = scipy.fft.rfft(frames[start : start + _BLOCK] * window)
        power = spectrum.real**2 + spectrum.imag**2
        np.ascontiguousarray(power.reshape(-1, LANES, N_BINS).transpose(0, 2, 1))


_BLOCK = 64
_COMPILE_TRANSFORM = """
import json, time
import numpy as np
from editorbot_core.analysis.dsp import fourier
from editorbot_core.analysis.dsp.filterbanks import N_BINS
start = time.process_time()
tables = (*fourier.tables(), *fourier.workspace())
fourier.power_of_frames(np.zeros((512, 12), dtype=np.float32), 0, tables, np.empty(8 * N_BINS))
print(json.dumps({"cpu_s": time.process_time() - start}))
"""


@benchmark("transform")
def transform(bench: Bench) -> Sequence[Row]:
    """The own transform of eight frames in vector lanes against `scipy.fft`, both in double precision."""
    path = write_song(bench.folder / "song.wav", DURATION_S)
    n_frames = int(DURATION_S * SAMPLE_RATE) // HOP_LENGTH // _BLOCK * _BLOCK
    samples = np.random.default_rng(0).standard_normal((n_frames + N_FFT // HOP_LENGTH) * HOP_LENGTH)
    samples = (0.1 * samples).astype(np.float32)
    hops = np.ascontiguousarray(samples.reshape(-1, HOP_LENGTH).T)
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH][:n_frames]
    window, tables, power = hann_window(), (*fourier.tables(), *fourier.workspace()), np.empty(N_BINS * LANES)
    functions = {
        "own": partial(_own_transform, hops, tables, power),
        "scipy": partial(_scipy_transform, frames, window),
        "analyse": partial(analyse, path),
    }
    bench.say("warming up")
    warm_up()
    for function in functions.values():
        function()
    bench.say("taking turns")
    times = taking_turns(functions, [*functions] * 7)
    own, theirs, whole = (times[name].median for name in functions)
    bench.say("compiling")
    compiling = float(in_fresh_process(_COMPILE_TRANSFORM, environment={"NUMBA_CACHE_DIR": str(bench.folder)})["cpu_s"])
    with_theirs = whole - own + theirs
    return [
        Row(f"power spectra of {DURATION_S:.0f} s, float64", own, "s", "scipy.fft", theirs, theirs / own),
        Row(
            f"analysis of {DURATION_S:.0f} s with the own transform",
            whole,
            "s",
            "the same with scipy.fft's time in its place",
            with_theirs,
            with_theirs / whole,
            **at_least(with_theirs / whole, 1.2),
            details={name: times[name].details() for name in functions},
        ),
        Row("compiling the own transform, once per installation", compiling, "CPU-s"),
    ]


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

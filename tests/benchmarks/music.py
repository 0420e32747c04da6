"""How well beats and bars are found, and how far pseudo-stems follow true ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import mir_eval
import numpy as np

from editorbot_core.analysis.beats.annotations import find_annotation, load_annotation
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.beats.tracking import track_beats
from editorbot_core.analysis.dsp.filterbanks import FRAME_RATE, N_FFT, SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import analyse_frames
from editorbot_core.analysis.dsp.stems import STEM_NAMES
from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.analysis.features.extraction import extract_features
from editorbot_core.audio.clip import AudioClip, resample
from editorbot_core.audio.files import find_audio, read_audio
from editorbot_core.songs.demo.songs import compose_demo_songs, compose_song
from tests.benchmarks.registry import Bench, Row, benchmark

_N_DEMO_SONGS = 12
_SCORES = ("F", "CMLt", "AMLt", "downbeat F")


def _scores(truth: BeatGrid, times: np.ndarray, downbeats: np.ndarray) -> dict[str, float]:
    trim = mir_eval.beat.trim_beats
    reference, estimated = trim(truth.times), trim(times)
    _, correct, _, any_level = mir_eval.beat.continuity(reference, estimated)
    return {
        "F": mir_eval.beat.f_measure(reference, estimated),
        "CMLt": correct,
        "AMLt": any_level,
        "downbeat F": mir_eval.beat.f_measure(trim(truth.downbeats), trim(downbeats)),
    }


def _kind(path: Path) -> str:
    return next((kind for kind in ("band", "plain") if f".{kind}." in path.name), "songs")


@benchmark("beats")
def beats(bench: Bench) -> Sequence[Row]:
    """Beats and bars of annotated songs (mir_eval); librosa's bars are every fourth of its beats."""
    if bench.songs is None:
        compose_demo_songs(bench.folder, n_songs=_N_DEMO_SONGS, seed=0)
    annotated = [(path, found) for path in find_audio(bench.songs or bench.folder) if (found := find_annotation(path))]
    if not annotated:
        raise RuntimeError(f"{bench.songs} holds no audio with an annotation (.json) beside it")
    per_song: dict[str, list[dict[str, Any]]] = {}
    for done, (path, annotation) in enumerate(annotated, 1):
        bench.say(f"song {done} of {len(annotated)}")
        truth = load_annotation(annotation).grid
        samples = read_audio(path, sample_rate=SAMPLE_RATE, mono=True).samples[0]
        grid = track_beats(analyse_frames(samples))
        _, theirs = librosa.beat.beat_track(y=samples, sr=SAMPLE_RATE, units="time")
        scores = {
            "song": path.name,
            "ours": _scores(truth, grid.times, grid.downbeats),
            "librosa": _scores(truth, theirs, theirs[::4]),
            "confidence": grid.confidence,
        }
        per_song.setdefault(_kind(path), []).append(scores)
    rows = []
    for kind, songs in sorted(per_song.items()):
        for name in _SCORES:
            ours, theirs = (float(np.mean([song[who][name] for song in songs])) for who in ("ours", "librosa"))
            details = {"songs": songs} if name == "F" else {}
            what = f"{name}, {len(songs)} {kind}" + (" files" if kind != "songs" else "")
            rows.append(Row(what, ours, "", "librosa beat_track", theirs, details=details))
    return rows


def _true_energy(part: AudioClip, grid: BeatGrid) -> np.ndarray:
    """Root mean square per beat of a true stem, over the frames that features average."""
    mono = AudioClip(part.samples.mean(axis=0, dtype=np.float32)[None], part.sample_rate)
    samples = np.pad(resample(mono, SAMPLE_RATE).samples[0], N_FFT // 2)
    sums = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    starts = np.arange(0, len(samples) - N_FFT + 1, 512)
    power = (sums[starts + N_FFT] - sums[starts]) / N_FFT
    first = np.minimum(np.ceil(grid.times * FRAME_RATE - 1e-6).astype(np.int64), len(power) - 1)
    counts = np.maximum(np.diff(np.append(first, len(power))), 1)
    return np.sqrt(np.add.reduceat(power, first) / counts)


@benchmark("stems")
def stems(bench: Bench) -> Sequence[Row]:
    """Correlation per beat of each pseudo-stem's energy with that of the true stem, mean over the demo songs."""
    found: dict[str, list[float]] = {stem: [] for stem in STEM_NAMES}
    mixed: dict[str, list[float]] = {stem: [] for stem in STEM_NAMES}
    for index in range(_N_DEMO_SONGS):
        bench.say(f"song {index + 1} of {_N_DEMO_SONGS}")
        song = compose_song(index, seed=0)
        features = extract_features(song.clip)
        for stem in STEM_NAMES:
            truth = _true_energy(song.parts[stem], features.grid)
            for column, kept in ((f"{stem}_energy", found), ("rms", mixed)):
                estimated = features.values[:, FEATURE_INDEX[column]]
                kept[stem].append(float(np.corrcoef(estimated, truth)[0, 1]))
    return [
        Row(
            f"{stem}, correlation with the true stem",
            float(np.mean(found[stem])),
            "",
            "the mix's RMS",
            float(np.mean(mixed[stem])),
            details={"songs": found[stem], "mix": mixed[stem]},
        )
        for stem in STEM_NAMES
    ]

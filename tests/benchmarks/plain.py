"""The 121 features as a competent user of librosa writes them: each by its function, stems by HPSS."""

from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np

SR, HOP = 22_050, 512


def load(path: Path) -> np.ndarray:
    """Mono samples at 22,050 Hz."""
    samples, _ = librosa.load(path, sr=SR, mono=True)
    return samples


def frame_features(y: np.ndarray) -> dict[str, np.ndarray]:
    """Features per frame, each (rows, F), in the order of the columns."""
    mfcc = librosa.feature.mfcc(y=y, sr=SR, n_mfcc=13)
    return {
        "onset": librosa.onset.onset_strength(y=y, sr=SR)[None],
        "rms": librosa.feature.rms(y=y),
        "centroid": librosa.feature.spectral_centroid(y=y, sr=SR),
        "zcr": librosa.feature.zero_crossing_rate(y),
        "rolloff": librosa.feature.spectral_rolloff(y=y, sr=SR),
        "bandwidth": librosa.feature.spectral_bandwidth(y=y, sr=SR),
        "flatness": librosa.feature.spectral_flatness(y=y),
        "contrast": librosa.feature.spectral_contrast(y=y, sr=SR),
        "mfcc": mfcc,
        "mfcc_delta": librosa.feature.delta(mfcc),
        "chroma": librosa.feature.chroma_stft(y=y, sr=SR),
    }


def _per_beat(rows: np.ndarray, beats: np.ndarray) -> np.ndarray:
    edges = [*beats, rows.shape[1]]
    means = [rows[:, start : max(end, start + 1)].mean(axis=1) for start, end in pairwise(edges)]
    return np.array(means)


def _grid_columns(beats: np.ndarray) -> np.ndarray:
    phase = np.arange(len(beats)) % 4 / 4
    intervals = np.diff(librosa.frames_to_time(beats, sr=SR, hop_length=HOP))
    intervals = np.append(intervals, intervals[-1])
    ratio = np.append(1.0, intervals[1:] / intervals[:-1])
    deviation = np.log(intervals / np.median(intervals))
    return np.stack([phase, np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase), deviation, ratio], axis=1)


def _stem_columns(y: np.ndarray, beats: np.ndarray) -> np.ndarray:
    harmonic, percussive = librosa.decompose.hpss(np.abs(librosa.stft(y)))
    frequencies = librosa.fft_frequencies(sr=SR)[:, None]
    low, voice = frequencies < 200, (frequencies >= 200) & (frequencies < 5_000)
    stems = [percussive, harmonic * low, harmonic * voice, harmonic * ~(low | voice)]
    energies = [_per_beat(librosa.feature.rms(S=stem), beats) for stem in stems]
    centroids = [_per_beat(librosa.feature.spectral_centroid(S=stem, sr=SR), beats) for stem in stems]
    total = np.sum([energy**2 for energy in energies], axis=0) + 1e-12
    columns = [
        column
        for energy, centroid in zip(energies, centroids, strict=True)
        for column in (energy, centroid, energy**2 / total)
    ]
    return np.concatenate(columns, axis=1)


def beat_features(path: Path, *, stems: bool = True) -> np.ndarray:
    """From file to features per beat, (n_beats, 121), or (n_beats, 109) without stems."""
    y = load(path)
    _, beats = librosa.beat.beat_track(y=y, sr=SR)
    spectral = _per_beat(np.concatenate(list(frame_features(y).values())), beats)
    difference = np.diff(spectral, axis=0, prepend=spectral[:1])
    columns = [spectral, difference, _grid_columns(beats)]
    if stems:
        columns.append(_stem_columns(y, beats))
    return np.concatenate(columns, axis=1)

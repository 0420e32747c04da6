"""Pseudo-stems: drums, bass, vocals and other, as masks on the mel spectrogram.

These are proxies, not separated audio: *drums* is what is louder across frequency than it is along time (median
filters: Fitzgerald 2010); of the rest, *bass* is below about 200 Hz; *vocals* is what rises above the slowly changing
background of the middle bands (the idea of REPET: Rafii and Pardo 2013); *other* is what remains. The four masks sum to
one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from editorbot_core.filterbanks import N_FFT, N_MELS, mel_edges

STEM_NAMES = ("drums", "bass", "vocals", "other")

_TIME_WIDTH = 17
_BAND_WIDTH = 13
_BACKGROUND_STEP = 8
_BACKGROUND_WIDTH = 13
_CHUNK_FRAMES = 4_096
_REACH_FRAMES = _BACKGROUND_STEP * (_BACKGROUND_WIDTH // 2 + 1)
_BASS_HZ = 200.0
_VOICE_HZ = (150.0, 5_000.0)


class StemFrames(NamedTuple):
    """Pseudo-stems per frame, columns in the order of `STEM_NAMES`.

    Attributes:
        power: float32 (F, 4), mean power, full scale 1.
        centroid_power: float32 (F, 4), power times frequency, Hz; over `power` it is the spectral centroid.
    """

    power: np.ndarray
    centroid_power: np.ndarray


@njit(cache=True, nogil=True)
def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Median over `width` rows (odd) around each row, per column; rows beyond the ends repeat the end rows.

    The windows of all columns stay sorted side by side, so that a step is the same few operations on every column:
    without the leaving value, `w[j]` moves up where it is not below it; the entering value then belongs between its
    neighbours, where it is the middle one of three.

    Args:
        values: float32 (n, m), finite.
        width: Rows in the window.
    """
    n, m = values.shape
    half = width // 2
    out = np.empty_like(values)
    window = np.empty((width + 1, m), dtype=values.dtype)
    window[:width] = values[0]
    window[width] = np.inf
    for t in range(1 - half, n + half):
        leaving = values[min(max(t - width, 0), n - 1)]
        entering = values[min(max(t, 0), n - 1)]
        below = np.full(m, -np.inf, dtype=values.dtype)
        for j in range(width):
            row, above = window[j], window[j + 1]
            for k in range(m):
                kept = row[k] if row[k] < leaving[k] else above[k]
                low = kept if kept < entering[k] else entering[k]
                row[k] = low if low > below[k] else below[k]
                below[k] = kept
        if t >= half:
            out[t - half] = window[half]
    return out


def _median_across_bands(energy: np.ndarray) -> np.ndarray:
    """Running median over neighbouring bands, float32 of the shape of `energy`, in blocks that stay in cache."""
    out = np.empty_like(energy)
    for start in range(0, len(energy), 256):
        block = np.ascontiguousarray(energy[start : start + 256].T)
        out[start : start + 256] = running_median(block, _BAND_WIDTH).T
    return out


def _background(energy: np.ndarray) -> np.ndarray:
    """Slowly changing level of every band: medians of 2.4 s over means of 0.19 s, float32 of the shape of `energy`."""
    n = len(energy)
    starts = np.arange(0, n, _BACKGROUND_STEP)
    means = np.add.reduceat(energy, starts, axis=0)
    means /= np.diff(np.append(starts, n)).astype(np.float32)[:, None]
    return np.repeat(running_median(means, _BACKGROUND_WIDTH), _BACKGROUND_STEP, axis=0)[:n]


def _masked_sums(energy: np.ndarray) -> np.ndarray:
    """Power and power times frequency of the four stems, float32 (F, 4, 2), of power per mel band (F, 128)."""
    centres = mel_edges()[1:-1]
    along_time = running_median(energy, _TIME_WIDTH)
    across_bands = _median_across_bands(energy)
    tiny = np.float32(1e-20)
    drums = energy * (across_bands / (across_bands + along_time + tiny))
    rest = energy - drums
    bass = rest * (1.0 / (1.0 + (centres / _BASS_HZ) ** 4)).astype(np.float32)
    rest -= bass
    voice_band = 1.0 / (1.0 + (_VOICE_HZ[0] / centres) ** 4) / (1.0 + (centres / _VOICE_HZ[1]) ** 4)
    above = np.maximum(energy - _background(energy), 0.0) / (energy + tiny)
    vocals = rest * (above * voice_band.astype(np.float32))
    rest -= vocals
    frequencies = np.stack([np.ones(N_MELS), centres], axis=1).astype(np.float32)
    return np.stack([stem @ frequencies for stem in (drums, bass, vocals, rest)], axis=1)


def stem_frames(mel: np.ndarray) -> StemFrames:
    """Pseudo-stems of a mel power spectrogram, float32 (F, 128), made with a Hann window of 2,048 samples."""
    edges = mel_edges()
    # The filters have unit area: half their width, Hz, turns a band into the power summed over its triangle, and
    # 2 / (N * sum of the squared window) = 16 / (3 N^2) turns that into the mean power of the samples.
    to_power = ((edges[2:] - edges[:-2]) / 2 * 16.0 / (3.0 * N_FFT**2)).astype(np.float32)
    sums = np.empty((len(mel), len(STEM_NAMES), 2), dtype=np.float32)
    for start in range(0, len(mel), _CHUNK_FRAMES):
        # Neighbours as far as the medians look, so that blocks do not show.
        low, high = max(start - _REACH_FRAMES, 0), min(start + _CHUNK_FRAMES + _REACH_FRAMES, len(mel))
        block = _masked_sums(mel[low:high] * to_power)
        sums[start : start + _CHUNK_FRAMES] = block[start - low : start - low + _CHUNK_FRAMES]
    return StemFrames(np.ascontiguousarray(sums[:, :, 0]), np.ascontiguousarray(sums[:, :, 1]))

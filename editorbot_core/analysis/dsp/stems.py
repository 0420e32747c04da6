"""Pseudo-stems: drums, bass, vocals and other, as masks on the mel spectrogram.

These are proxies, not separated audio: *drums* is energy that is smooth across frequency rather than along time (median
filters: Fitzgerald 2010); of the rest, *bass* is below about 200 Hz; *vocals* is energy above the slowly changing
background of the middle bands (the idea of REPET: Rafii and Pardo 2013); *other* is the remainder. The four masks sum
to one. Shapes: F frames, 128 mel bands.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from editorbot_core.analysis.dsp.filterbanks import N_FFT, mel_edges
from editorbot_core.analysis.dsp.lanes import WIDE_LANES, choose_if_less, fill_many, load_many, maximum, minimum, store

STEM_NAMES = ("drums", "bass", "vocals", "other")

_TIME_WIDTH = 17
_BAND_WIDTH = 13
_BACKGROUND_STEP = 8
_BACKGROUND_WIDTH = 13
_CHUNK_FRAMES = 2_048
_REACH_FRAMES = _BACKGROUND_STEP * (_BACKGROUND_WIDTH // 2 + 1)
_BASS_HZ = 200.0
_VOICE_HZ = (150.0, 5_000.0)


class StemFrames(NamedTuple):
    """Stems per frame, columns in the order of `STEM_NAMES`.

    Attributes:
        power: float32 (F, 4), mean power, full scale 1.
        centroid_power: float32 (F, 4), power times frequency, Hz; over `power` it is the spectral centroid.
    """

    power: np.ndarray
    centroid_power: np.ndarray


@njit(cache=True, nogil=True)
def _running_median(values: np.ndarray, width: int, out: np.ndarray) -> None:
    """`running_median` into `out`, for a number of columns that fills whole vectors."""
    n, m = values.shape
    window = np.empty((width + 1, WIDE_LANES), dtype=np.float32)
    for column in range(0, m, WIDE_LANES):
        window[:width] = values[0, column : column + WIDE_LANES]
        window[width] = np.inf
        for t in range(1 - width // 2, n + width // 2):
            leaving = load_many(values, min(max(t - width, 0), n - 1) * m + column)
            entering = load_many(values, min(max(t, 0), n - 1) * m + column)
            below = fill_many(np.float32(-np.inf))
            here = load_many(window, 0)
            for j in range(width):
                above = load_many(window, (j + 1) * WIDE_LANES)
                kept = choose_if_less(here, leaving, here, above)
                store(window, j * WIDE_LANES, maximum(minimum(kept, entering), below))
                below, here = kept, above
            if t >= width // 2:
                store(out, (t - width // 2) * m + column, load_many(window, width // 2 * WIDE_LANES))


def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Median over `width` rows (odd) around each row, per column; rows beyond the ends repeat the end rows.

    The windows of all columns stay sorted side by side, so that a step is the same few operations on every column:
    without the leaving value, `w[j]` moves up where it is not below it; the entering value then belongs between its
    neighbours, where it is the middle one of three.

    Args:
        values: float32 (n, m), finite.
        width: Rows in the window.

    Examples:
        >>> values = np.array([[1.0], [9.0], [2.0], [3.0]], dtype=np.float32)
        >>> running_median(values, width=3)[:, 0]
        array([1., 2., 3., 3.], dtype=float32)
    """
    m = values.shape[1]
    whole = np.ascontiguousarray(np.pad(values, ((0, 0), (0, -m % WIDE_LANES))) if m % WIDE_LANES else values)
    out = np.empty_like(whole)
    _running_median(whole, width, out)
    return out[:, :m]


def _median_across_bands(energy: np.ndarray) -> np.ndarray:
    """Running median over neighbouring bands, float32 of the shape of `energy`, in blocks that stay in cache."""
    out = np.empty_like(energy)
    for start in range(0, len(energy), 256):
        out[start : start + 256] = running_median(np.ascontiguousarray(energy[start : start + 256].T), _BAND_WIDTH).T
    return out


@njit(cache=True, nogil=True)
def _means(rows: np.ndarray, n_averaged: int) -> np.ndarray:
    """Means over blocks of `n_averaged` rows, float32; the last block may be shorter."""
    n, m = rows.shape
    means = np.zeros(((n + n_averaged - 1) // n_averaged, m), dtype=np.float32)
    for i in range(len(means)):
        start, end = i * n_averaged, min((i + 1) * n_averaged, n)
        for t in range(start, end):
            for k in range(m):
                means[i, k] += rows[t, k]
        means[i] /= np.float32(end - start)
    return means


def _background(energy: np.ndarray) -> np.ndarray:
    """Slowly changing level of every band, a row per eight frames: medians of 2.4 s over means of 0.19 s, float32."""
    return running_median(_means(energy, _BACKGROUND_STEP), _BACKGROUND_WIDTH)


@njit(cache=True, nogil=True)
def _masked_sums(
    energy: np.ndarray,
    along_time: np.ndarray,
    across_bands: np.ndarray,
    background: np.ndarray,
    band_gains: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Power and power times frequency of the four stems, into float32 (F, 4, 2), from power per mel band (F, 128).

    The rows of band_gains (3, 128) are the share of bass in a band, the share of vocals, and the band's frequency, Hz.
    """
    n_frames, n_bands = energy.shape
    tiny = np.float32(1e-20)
    lanes = np.empty((8, WIDE_LANES), dtype=np.float32)
    for t in range(n_frames):
        lanes[:] = 0.0
        for band in range(0, n_bands, WIDE_LANES):
            place = t * n_bands + band
            all_of_it, across = load_many(energy, place), load_many(across_bands, place)
            drums = all_of_it * (across / (across + load_many(along_time, place) + tiny))
            rest = all_of_it - drums
            bass = rest * load_many(band_gains, band)
            rest = rest - bass
            slow = load_many(background, t // _BACKGROUND_STEP * n_bands + band)
            above = maximum(all_of_it - slow, np.float32(0.0)) / (all_of_it + tiny)
            vocals = rest * (above * load_many(band_gains, n_bands + band))
            stems = (drums, bass, vocals, rest - vocals)
            hz = load_many(band_gains, 2 * n_bands + band)
            for i in range(len(stems)):
                at = 2 * i * WIDE_LANES
                store(lanes, at, load_many(lanes, at) + stems[i])
                store(lanes, at + WIDE_LANES, load_many(lanes, at + WIDE_LANES) + stems[i] * hz)
        for i in range(4):
            for j in range(2):
                total = np.float32(0.0)
                for k in range(WIDE_LANES):
                    total += lanes[2 * i + j, k]
                sums[t, i, j] = total


def _stem_sums(energy: np.ndarray) -> np.ndarray:
    """Power and power times frequency of the four stems, float32 (F, 4, 2), from power per mel band (F, 128)."""
    centres = mel_edges()[1:-1]
    bass = 1.0 / (1.0 + (centres / _BASS_HZ) ** 4)
    voice = 1.0 / (1.0 + (_VOICE_HZ[0] / centres) ** 4) / (1.0 + (centres / _VOICE_HZ[1]) ** 4)
    gains = np.stack([bass, voice, centres]).astype(np.float32)
    sums = np.empty((len(energy), len(STEM_NAMES), 2), dtype=np.float32)
    along_time, across_bands = running_median(energy, _TIME_WIDTH), _median_across_bands(energy)
    _masked_sums(energy, along_time, across_bands, _background(energy), gains, sums)
    return sums


def _to_power() -> np.ndarray:
    """Factors that turn mel bands into the mean power of the samples in them, full scale 1, float32 (128,)."""
    edges = mel_edges()
    # The filters have unit area: half their width, Hz, turns a band into the power summed over its triangle, and
    # 2 / (N * sum of the squared window) = 16 / (3 N^2) turns that into the mean power of the samples.
    return ((edges[2:] - edges[:-2]) / 2 * 16.0 / (3.0 * N_FFT**2)).astype(np.float32)


def mel_stem(mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power and power times frequency, as in `StemFrames`, float32 (F,), of a stem that was separated as audio.

    Args:
        mel: Its mel power spectrogram, float32 (F, 128), made with a Hann window of 2,048 samples.
    """
    energy = mel * _to_power()
    return energy.sum(axis=1), energy @ mel_edges()[1:-1].astype(np.float32)


def stem_frames(mel: np.ndarray) -> StemFrames:
    """Pseudo-stems of a mel power spectrogram, float32 (F, 128), made with a Hann window of 2,048 samples."""
    to_power = _to_power()
    sums = np.empty((len(mel), len(STEM_NAMES), 2), dtype=np.float32)
    for start in range(0, len(mel), _CHUNK_FRAMES):
        # With as many neighbouring frames as the medians reach, so that results do not depend on the blocks.
        low, high = max(start - _REACH_FRAMES, 0), min(start + _CHUNK_FRAMES + _REACH_FRAMES, len(mel))
        block = _stem_sums(mel[low:high] * to_power)
        sums[start : start + _CHUNK_FRAMES] = block[start - low : start - low + _CHUNK_FRAMES]
    return StemFrames(np.ascontiguousarray(sums[:, :, 0]), np.ascontiguousarray(sums[:, :, 1]))

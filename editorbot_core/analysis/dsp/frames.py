"""Frame features: one pass over the mono mix, in blocks, with bounded memory.

Conventions: 22,050 Hz, hop 512, frames of 2,048 samples centred on multiples of the hop (zeros before the start and
after the end), periodic Hann window, double-precision FFT. Frame `i` is at `i * 512 / 22050` s. Every quantity that
librosa 0.11 defines has librosa's default definition (McFee et al. 2015); RMS is `rms(y=)`, MFCCs come from the mel
spectrogram. The one difference: the tuning of the chroma filters is estimated on the first ten minutes of longer audio.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from editorbot_core.analysis.dsp.filterbanks import (
    FRAME_RATE,
    HOP_LENGTH,
    N_BINS,
    N_CONTRAST,
    N_FFT,
    N_MELS,
    N_MFCC,
    REGISTERS,
    SAMPLE_RATE,
    chroma_filters,
    contrast_bands,
    dct_matrix,
    integrated_loudness,
    loudness_weights,
    register_filters,
    sparse_mel,
)
from editorbot_core.analysis.dsp.fourier import power_of_frames, tables, workspace
from editorbot_core.analysis.dsp.lanes import (
    LANES,
    WIDE_LANES,
    bits_if_greater,
    exponent,
    fill,
    load,
    load_many,
    mantissa,
    maximum,
    minimum,
    narrow,
    one_if_less,
    square_root,
    store,
    widen,
)

_HALF = N_FFT // 2
_BLOCK_FRAMES = 64
_HELD_BLOCKS = 64
_OVERLAP_HOPS = N_FFT // HOP_LENGTH - 1
_TUNING_FRAMES = int(600 * FRAME_RATE)
_ONSET_DELAY = 1 + N_FFT // (2 * HOP_LENGTH)
_POWER_FLOOR = 1e-10
_TOP_DB = 80.0
_CHUNK_FRAMES = 1_024
_GROWTH_ROWS = 2_048
_TUNING_BINS = 100
_TUNING_LEVELS = 4_096
_N_SCALARS = 5
_MOST_AVERAGED = 16
# Fast-math flags without `ninf` and `afn`; `nnan` holds because samples are finite.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


@dataclass(frozen=True)
class FrameFeatures:
    """Features per frame of one song; F frames.

    Attributes:
        onset_strength: float32 (F,), mean over mel bands of the rise in dB, librosa's alignment.
        rms: float32 (F,), root mean square of the samples of the frame.
        zero_crossing_rate: float32 (F,), sign changes over samples of the frame.
        centroid: float32 (F,), Hz.
        bandwidth: float32 (F,), Hz.
        rolloff: float32 (F,), Hz, 85 % of the magnitude below.
        flatness: float32 (F,), geometric over arithmetic mean of the power spectrum, in [0, 1].
        contrast: float32 (F, 7), dB between peaks and valleys per octave band.
        mfcc: float32 (F, 13).
        mfcc_delta: float32 (F, 13), slope over nine frames.
        chroma: float32 (F, 12), power per pitch class from C, largest = 1.
        registers: float32 (F, 3, 12), power per pitch class in bass, middle and treble (`filterbanks.REGISTERS`).
        mel: float32 (F, 128), mel power spectrogram (Slaney).
        duration_s: Length of the audio, s.
        peak: Largest absolute sample.
        tuning: Deviation from A = 440 Hz, fractions of a semitone.
        loudness_db: Integrated loudness of the mono mix, LUFS, at least -70 (ITU-R BS.1770-4, from the spectra).
    """

    onset_strength: np.ndarray
    rms: np.ndarray
    zero_crossing_rate: np.ndarray
    centroid: np.ndarray
    bandwidth: np.ndarray
    rolloff: np.ndarray
    flatness: np.ndarray
    contrast: np.ndarray
    mfcc: np.ndarray
    mfcc_delta: np.ndarray
    chroma: np.ndarray
    registers: np.ndarray
    mel: np.ndarray
    duration_s: float
    peak: float
    tuning: float
    loudness_db: float

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.rms)


@njit(cache=True, nogil=True)
def _frame_statistics(
    spectra: np.ndarray,
    n_frames: int,
    place: int,
    loudness_weights: np.ndarray,
    power: np.ndarray,
    magnitudes: np.ndarray,
    scalars: np.ndarray,
) -> None:
    """Statistics of the power spectra of up to eight frames, float64 (1025 * 8,), a frame in every lane.

    Fills power and magnitudes (1025, 64) from column `place` on, and scalars (n_frames, 5: centroid, bandwidth,
    rolloff, flatness, K-weighted power) from row `place` on.
    """
    bin_hz = SAMPLE_RATE / N_FFT
    total, moment, square, loudness, mean, exponents = fill(0.0), fill(0.0), fill(0.0), fill(0.0), fill(0.0), fill(0.0)
    product = fill(1.0)
    for k in range(N_BINS):
        p = load(spectra, k * LANES)
        # Scaled, so that the powers of digital silence stay in the range of single precision.
        m32 = square_root(narrow(p * 2.0**64)) * 2.0**-32
        store(power, k * _BLOCK_FRAMES + place, narrow(p))
        store(magnitudes, k * _BLOCK_FRAMES + place, m32)
        m = widen(m32)
        total = total + m
        moment = moment + m * k
        square = square + m * (k * k)
        loudness = loudness + p * loudness_weights[k]
        audible = maximum(p, 1e-10)
        mean = mean + audible
        # A product of 16 clamped powers stays within the range of doubles.
        product = product * minimum(audible, 1e16)
        if k % 16 == 15:
            exponents = exponents + exponent(product)
            product = mantissa(product)
    threshold, reached, below = total * 0.85, fill(0.0), fill(0.0)
    for k in range(N_BINS - 1):
        reached = reached + widen(load(magnitudes, k * _BLOCK_FRAMES + place))
        below = below + one_if_less(reached, threshold)
    sums = np.empty((8, LANES))
    results = (total, moment, square, below, product, exponents, mean, loudness)
    for i in range(len(results)):
        store(sums, i * LANES, results[i])
    for i in range(n_frames):
        row = scalars[place + i]
        row[:2] = 0.0
        if sums[0, i] > 0.0:
            centre = sums[1, i] / sums[0, i]
            row[0] = centre * bin_hz
            row[1] = np.sqrt(max(sums[2, i] / sums[0, i] - centre * centre, 0.0)) * bin_hz
        row[2] = sums[3, i] * bin_hz
        log_sum = np.log(sums[4, i]) + sums[5, i] * np.log(2.0)
        row[3] = np.exp(log_sum / N_BINS) / (sums[6, i] / N_BINS)
        row[4] = sums[7, i]


@njit(cache=True, nogil=True)
def _mel_energies(
    spectra: np.ndarray, place: int, first: np.ndarray, end: np.ndarray, weights: np.ndarray, mel: np.ndarray
) -> None:
    """Mel power of eight frames, into mel (128, 64) from column `place` on."""
    for band in range(first.shape[0]):
        start = first[band]
        energy = fill(0.0)
        for k in range(end[band] - start):
            energy = energy + load(spectra, (start + k) * LANES) * weights[band, k]
        store(mel, band * _BLOCK_FRAMES + place, narrow(energy))


@njit(cache=True, nogil=True)
def _count_peaks(spectra: np.ndarray, n_frames: int, tuning: np.ndarray) -> None:
    """Add spectral peaks to tuning (levels, 100), by log power and by their deviation from the tempered scale.

    Peaks lie between 150 and 4000 Hz above a tenth of the largest power of the frame, and are refined by a parabola
    (Smith 2011).
    """
    bin_hz = SAMPLE_RATE / N_FFT
    largest = fill(0.0)
    for k in range(N_BINS):
        largest = maximum(largest, load(spectra, k * LANES))
    floor = largest * 0.1
    for k in range(int(np.ceil(150.0 / bin_hz)), int(np.ceil(4000.0 / bin_hz))):
        here, after = load(spectra, k * LANES), load(spectra, (k + 1) * LANES)
        peaks = bits_if_greater(here, floor) & bits_if_greater(here, load(spectra, (k - 1) * LANES))
        peaks &= ~bits_if_greater(after, here) & ((1 << n_frames) - 1)
        for i in range(LANES):
            if peaks >> i & 1 == 0:
                continue
            below, top, above = spectra[(k - 1) * LANES + i], spectra[k * LANES + i], spectra[(k + 1) * LANES + i]
            curve = above + below - 2.0 * top
            slope = 0.5 * (above - below)
            shift = -slope / curve if abs(slope) < abs(curve) else 0.0
            height = top + 0.5 * slope * shift
            residual = (12.0 * np.log2((k + shift) * bin_hz / 27.5)) % 1.0
            if residual >= 0.5:
                residual -= 1.0
            column = min(int((residual + 0.5) * tuning.shape[1]), tuning.shape[1] - 1)
            level = int((np.log10(max(height, 1e-20)) + 20.0) * (tuning.shape[0] / 32.0))
            tuning[min(max(level, 0), tuning.shape[0] - 1), column] += 1


@njit(cache=True, nogil=True)
def _peaks_and_valleys(magnitudes: np.ndarray, bands: np.ndarray, peaks: np.ndarray, valleys: np.ndarray) -> None:
    """Means of the greatest and of the smallest magnitudes (1025, 64) per band, into peaks and valleys (7, 64).

    The greatest and the smallest so far are kept sorted in every lane, by insertion.
    """
    greatest = np.empty((_MOST_AVERAGED, WIDE_LANES), dtype=np.float32)
    least = np.empty((_MOST_AVERAGED, WIDE_LANES), dtype=np.float32)
    for place in range(0, _BLOCK_FRAMES, WIDE_LANES):
        for band in range(bands.shape[0]):
            first, end, count = bands[band, 0], bands[band, 1], bands[band, 2]
            greatest[:count] = -1.0
            least[:count] = np.inf
            for k in range(first, end):
                high = low = load_many(magnitudes, k * _BLOCK_FRAMES + place)
                for i in range(count):
                    kept, kept_low = load_many(greatest, i * WIDE_LANES), load_many(least, i * WIDE_LANES)
                    store(greatest, i * WIDE_LANES, maximum(kept, high))
                    store(least, i * WIDE_LANES, minimum(kept_low, low))
                    high, low = minimum(kept, high), maximum(kept_low, low)
            top, bottom = load_many(greatest, 0), load_many(least, 0)
            for i in range(1, count):
                top, bottom = top + load_many(greatest, i * WIDE_LANES), bottom + load_many(least, i * WIDE_LANES)
            store(peaks, band * _BLOCK_FRAMES + place, top * (1.0 / count))
            store(valleys, band * _BLOCK_FRAMES + place, bottom * (1.0 / count))


@njit(cache=True, nogil=True)
def _analyse_block(
    hops: np.ndarray,
    n_frames: int,
    transform: tuple[np.ndarray, ...],
    mel_filters: tuple[np.ndarray, ...],
    loudness_weights: np.ndarray,
    contrast_bands: np.ndarray,
    block: tuple[np.ndarray, ...],
    scalars: np.ndarray,
    tuning: np.ndarray,
) -> None:
    """All statistics of the spectra of a block of frames, computed while the spectra are in cache.

    Fills the arrays of the block, which hold a frame per column (see `_Block`), and scalars (n_frames, 5), a row per
    frame, and adds to tuning; that may be empty.
    """
    power, magnitudes, mel, peaks, valleys = block
    first, end, weights = mel_filters
    spectra = np.empty(N_BINS * LANES)
    for place in range(0, n_frames, LANES):
        n = min(n_frames - place, LANES)
        power_of_frames(hops, place, transform, spectra)
        _frame_statistics(spectra, n, place, loudness_weights, power, magnitudes, scalars)
        _mel_energies(spectra, place, first, end, weights, mel)
        if tuning.shape[0] > 0:
            _count_peaks(spectra, n, tuning)
    _peaks_and_valleys(magnitudes, contrast_bands, peaks, valleys)


@njit(cache=True, nogil=True)
def _hops(samples: np.ndarray, hops: np.ndarray) -> None:
    """Write the samples in columns of 512 into hops (512, n); columns beyond the last sample stay unchanged."""
    for i in range(len(samples) // HOP_LENGTH):
        for k in range(HOP_LENGTH):
            hops[k, i] = samples[i * HOP_LENGTH + k]


class _Block(NamedTuple):
    """Arrays that a block of frames is analysed into, float32, a frame per column (64)."""

    power: np.ndarray
    magnitudes: np.ndarray
    mel: np.ndarray
    peaks: np.ndarray
    valleys: np.ndarray


def _new_block() -> _Block:
    heights = (N_BINS, N_BINS, N_MELS, N_CONTRAST, N_CONTRAST)
    return _Block(*(np.zeros((height, _BLOCK_FRAMES), dtype=np.float32) for height in heights))


def _tuning_of_histogram(histogram: np.ndarray) -> float:
    """Most frequent deviation among the peaks above the median height, fractions of a semitone (librosa's rule)."""
    per_level = histogram.sum(axis=1)
    n_peaks = int(per_level.sum())
    if n_peaks == 0:
        return 0.0
    median_level = int(np.searchsorted(np.cumsum(per_level), n_peaks / 2))
    counts = histogram[median_level:].sum(axis=0)
    return float(np.linspace(-0.5, 0.5, _TUNING_BINS + 1)[int(counts.argmax())])


def power_to_db(power: np.ndarray, *, loudest: float | None = None) -> np.ndarray:
    """10 log10, at least -100 dB and at most 80 dB below the loudest; the array's type.

    Args:
        power: Any shape, float32 or float64.
        loudest: Power that the 80 dB count from; None for the largest of the array.
    """
    loudest = float(power.max()) if loudest is None else loudest
    decibels = np.maximum(power, power.dtype.type(_POWER_FLOOR))
    # numpy vectorises the natural logarithm, but not log10.
    np.log(decibels, out=decibels)
    decibels *= power.dtype.type(10.0 / np.log(10.0))
    floor = 10.0 * np.log10(max(loudest, _POWER_FLOOR)) - _TOP_DB
    return np.maximum(decibels, power.dtype.type(floor), out=decibels)


def _onsets_and_mfcc(mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Onset strength (F,) and MFCCs (F, 13) of a mel spectrogram, in blocks."""
    loudest = float(mel.max())
    matrix = dct_matrix().T.astype(np.float32)
    onsets = np.zeros(len(mel) + _ONSET_DELAY, dtype=np.float32)
    mfcc = np.empty((len(mel), N_MFCC), dtype=np.float32)
    for start in range(0, len(mel), _CHUNK_FRAMES):
        # With the last frame of the block before, for the first rise.
        before = min(start, 1)
        decibels = power_to_db(mel[start - before : start + _CHUNK_FRAMES], loudest=loudest)
        mfcc[start : start + _CHUNK_FRAMES] = decibels[before:] @ matrix
        rise = np.diff(decibels, axis=0)
        np.maximum(rise, 0.0, out=rise)
        first = start - before + _ONSET_DELAY
        onsets[first : first + len(rise)] = rise.mean(axis=1)
    return onsets[: len(mel)], mfcc


def _slope(values: np.ndarray) -> np.ndarray:
    """Least-squares slope over nine frames, per column; the ends repeat the first and the last full window."""
    out = np.zeros_like(values)
    n = len(values)
    if n < 9:
        return out
    middle = np.zeros((n - 8, values.shape[1]), dtype=values.dtype)
    for lag in range(1, 5):
        middle += lag * (values[4 + lag : n - 4 + lag] - values[4 - lag : n - 4 - lag])
    out[4:-4] = middle / 60.0
    out[:4], out[-4:] = out[4], out[-5]
    return out


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sample_statistics(samples: np.ndarray, n_frames: int, start: int, n_samples: int, scalars: np.ndarray) -> None:
    """Root mean square and zero-crossing rate of frames that begin `start` samples into the padded audio.

    Fills scalars (n_frames, 2). Crossings are counted within the audio only, never into the padding.
    """
    n_hops = n_frames + N_FFT // HOP_LENGTH - 1
    energy = np.empty(n_hops)
    inner = np.empty(n_hops, dtype=np.int64)
    edge = np.empty(n_hops, dtype=np.int64)
    for j in range(n_hops):
        hop = samples[j * HOP_LENGTH : (j + 1) * HOP_LENGTH]
        total = 0.0
        crossings = 0
        for k in range(HOP_LENGTH):
            total += np.float64(hop[k]) * np.float64(hop[k])
        first = start + j * HOP_LENGTH - N_FFT // 2
        for k in range(1, min(n_samples - first, HOP_LENGTH)):
            crossings += (hop[k] < -1e-10) != (hop[k - 1] < -1e-10)
        energy[j] = total
        inner[j] = crossings
        edge[j] = 0
        if j > 0 and first > 0 and first < n_samples:
            edge[j] = (hop[0] < -1e-10) != (samples[j * HOP_LENGTH - 1] < -1e-10)
    for t in range(n_frames):
        total = energy[t]
        crossings = inner[t]
        for j in range(t + 1, t + N_FFT // HOP_LENGTH):
            total += energy[j]
            crossings += inner[j] + edge[j]
        scalars[t, 0] = np.sqrt(total / N_FFT)
        scalars[t, 1] = crossings / N_FFT


@njit(cache=True, nogil=True)
def _sums_from(rows: np.ndarray, first: np.ndarray, sums: np.ndarray) -> None:
    for i in range(len(first)):
        end = max(first[i + 1] if i + 1 < len(first) else len(rows), first[i] + 1)
        for t in range(first[i], end):
            for k in range(rows.shape[1]):
                sums[i, k] += rows[t, k]


def sums_from(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sums of the rows from each of `first` up to the next, the last up to the end; each sums at least one row.

    Args:
        rows: float32 or float64 (n, ...).
        first: int64 (k,), in order, from 0 to n - 1.

    Returns:
        float64 (k, ...).

    Examples:
        >>> sums_from(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 3]))
        array([6., 4.])
    """
    sums = np.zeros((len(first), rows[0].size))
    _sums_from(np.ascontiguousarray(rows).reshape(len(rows), -1), first, sums)
    return sums.reshape(len(first), *rows.shape[1:])


class _Rows:
    """An array that grows by rows in place, without a second copy in memory."""

    def __init__(self, width: int, dtype: type[np.floating]) -> None:
        self._array = np.empty((0, width), dtype=dtype)
        self._used = 0

    def extend(self, n: int) -> np.ndarray:
        """A view of `n` new rows, to be filled before the next call."""
        if self._used + n > len(self._array):
            more = max(n, self._used // 8, _GROWTH_ROWS)
            self._array.resize((self._used + more, self._array.shape[1]), refcheck=False)
        self._used += n
        return self._array[self._used - n : self._used]

    def take(self) -> np.ndarray:
        """All rows; the object is empty afterwards."""
        array = self._array
        self._array = np.empty((0, array.shape[1]), dtype=array.dtype)
        array.resize((self._used, array.shape[1]), refcheck=False)
        self._used = 0
        return array


class FrameAnalyser:
    """Computes `FrameFeatures` from mono samples at 22,050 Hz that arrive in pieces of any length."""

    def __init__(self) -> None:
        # Samples of the next block of frames; the first half frame lies before the start of the audio.
        self._pending = np.zeros((_BLOCK_FRAMES + _OVERLAP_HOPS) * HOP_LENGTH, dtype=np.float32)
        self._n_pending = _HALF
        self._n_samples = 0
        self._n_frames = 0
        self._peak = 0.0
        self._samples, self._scalars = _Rows(2, np.float64), _Rows(_N_SCALARS, np.float64)
        self._peaks, self._valleys = _Rows(N_CONTRAST, np.float32), _Rows(N_CONTRAST, np.float32)
        self._mel, self._chroma = _Rows(N_MELS, np.float32), _Rows(12, np.float32)
        self._registers = _Rows(12 * len(REGISTERS), np.float32)
        self._hops = np.zeros((HOP_LENGTH, _BLOCK_FRAMES + _OVERLAP_HOPS), dtype=np.float32)
        self._transform = (*tables(), *workspace())
        self._block = _new_block()
        # Power spectra of blocks that wait until the tuning is known.
        self._held_power: list[np.ndarray] = []
        self._room = np.empty((0, N_BINS, _BLOCK_FRAMES), dtype=np.float32)
        self._tuning_histogram = np.zeros((_TUNING_LEVELS, _TUNING_BINS), dtype=np.int64)
        self._tuning: float | None = None
        self._chroma_filters = np.empty((0, 0), dtype=np.float32)
        self._register_filters: list[tuple[int, np.ndarray]] = []

    def push(self, samples: np.ndarray) -> None:
        """Take the next samples, float32 (n,)."""
        if len(samples) == 0:
            return
        self._peak = max(self._peak, float(samples.max()), -float(samples.min()))
        self._n_samples += len(samples)
        while len(samples):
            taken = samples[: len(self._pending) - self._n_pending]
            self._pending[self._n_pending : self._n_pending + len(taken)] = taken
            self._n_pending += len(taken)
            samples = samples[len(taken) :]
            if self._n_pending == len(self._pending):
                self._process_block(_BLOCK_FRAMES)

    def finish(self, *, duration_s: float | None = None) -> FrameFeatures:
        """The features of all samples pushed, at least one.

        Args:
            duration_s: Length of the audio before it was resampled, s; None for that of the samples pushed.
        """
        self._pending[self._n_pending :] = 0.0
        # If the block is nearly full, the zeros after the end reach into another block.
        while (n_frames := 1 + self._n_samples // HOP_LENGTH - self._n_frames) > 0:
            self._process_block(min(n_frames, _BLOCK_FRAMES))
        if self._tuning is None:
            self._tuning = self._settle_tuning()
        scalars, samples, mel = self._scalars.take(), self._samples.take(), self._mel.take()
        onset_strength, mfcc = _onsets_and_mfcc(mel)
        return FrameFeatures(
            onset_strength=onset_strength,
            rms=samples[:, 0].astype(np.float32),
            zero_crossing_rate=samples[:, 1].astype(np.float32),
            centroid=scalars[:, 0].astype(np.float32),
            bandwidth=scalars[:, 1].astype(np.float32),
            rolloff=scalars[:, 2].astype(np.float32),
            flatness=scalars[:, 3].astype(np.float32),
            contrast=(power_to_db(self._peaks.take()) - power_to_db(self._valleys.take())).astype(np.float32),
            mfcc=mfcc,
            mfcc_delta=_slope(mfcc),
            chroma=self._chroma.take(),
            registers=self._registers.take().reshape(-1, len(REGISTERS), 12),
            mel=mel,
            duration_s=self._n_samples / SAMPLE_RATE if duration_s is None else duration_s,
            peak=self._peak,
            tuning=self._tuning,
            loudness_db=integrated_loudness(scalars[:, 4]),
        )

    def _process_block(self, n: int) -> None:
        """Analyse the first `n` frames of the pending samples, and remove the samples of a whole block."""
        start = self._n_frames * HOP_LENGTH
        _sample_statistics(self._pending, n, start, self._n_samples, self._samples.extend(n))
        _hops(self._pending, self._hops)
        block = self._block if self._tuning is not None else self._block._replace(power=self._room_for_power())
        _analyse_block(
            self._hops,
            n,
            self._transform,
            sparse_mel(),
            loudness_weights(),
            contrast_bands(),
            tuple(block),
            self._scalars.extend(n),
            self._tuning_histogram if self._tuning is None else self._tuning_histogram[:0],
        )
        self._mel.extend(n)[:] = block.mel[:, :n].T
        self._peaks.extend(n)[:] = block.peaks[:, :n].T
        self._valleys.extend(n)[:] = block.valleys[:, :n].T
        self._n_frames += n
        kept = _OVERLAP_HOPS * HOP_LENGTH
        self._pending[:kept] = self._pending[-kept:]
        self._pending[kept:] = 0.0
        self._n_pending = kept
        power = block.power[:, :n]
        if self._tuning is not None:
            self._add_chroma(power)
            return
        self._held_power.append(power)
        if self._n_frames >= _TUNING_FRAMES:
            self._tuning = self._settle_tuning()

    def _room_for_power(self) -> np.ndarray:
        """An array for the power spectra of a block, (1025, 64)."""
        place = len(self._held_power) % _HELD_BLOCKS
        if place == 0:
            # Allocated many at a time: large arrays get large pages, which the system provides far faster.
            self._room = np.empty((_HELD_BLOCKS, N_BINS, _BLOCK_FRAMES), dtype=np.float32)
        return self._room[place]

    def _settle_tuning(self) -> float:
        tuning = _tuning_of_histogram(self._tuning_histogram)
        self._chroma_filters = chroma_filters(tuning).astype(np.float32)
        self._register_filters = register_filters(tuning)
        self._room = self._room[:0].copy()
        self._held_power.reverse()
        while self._held_power:
            self._add_chroma(self._held_power.pop())
        return tuning

    def _add_chroma(self, power: np.ndarray) -> None:
        """Append the chroma of a block of frames, from their power spectra (1025, n)."""
        n = power.shape[1]
        raw = self._chroma_filters @ power
        largest = raw.max(axis=0)
        raw /= np.where(largest > np.finfo(np.float32).tiny, largest, np.float32(1.0))
        self._chroma.extend(n)[:] = raw.T
        registers = self._registers.extend(n)
        for i, (first, weights) in enumerate(self._register_filters):
            registers[:, 12 * i : 12 * (i + 1)] = (weights @ power[first : first + weights.shape[1]]).T


def analyse_frames(samples: np.ndarray) -> FrameFeatures:
    """Frame features of mono samples at 22,050 Hz, float32 (n,).

    Examples:
        One second of A (440 Hz): a frame every 512 samples, and pitch class 9 is the strongest.

        >>> tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
        >>> frames = analyse_frames(tone)
        >>> frames.n_frames, frames.chroma.shape, frames.mel.shape
        (44, (44, 12), (44, 128))
        >>> int(frames.chroma[22].argmax()), round(float(frames.rms[22]), 2)
        (9, 0.71)
    """
    analyser = FrameAnalyser()
    analyser.push(samples)
    return analyser.finish()

"""Filter banks of the frame features: mel, pitch classes, octave bands, loudness; and the shared constants of frames.

Filters are weights over the 1,025 bins of an FFT of 2,048 samples at 22,050 Hz, with the defaults of librosa 0.11.
"""

from functools import cache

import numpy as np

SAMPLE_RATE = 22_050
HOP_LENGTH = 512
N_FFT = 2_048
N_BINS = N_FFT // 2 + 1
N_MELS = 128
N_MFCC = 13
N_CONTRAST = 7
# Frames per second.
FRAME_RATE = SAMPLE_RATE / HOP_LENGTH


@cache
def fft_frequencies() -> np.ndarray:
    """Centre frequencies of the FFT bins, Hz, float64 (1025,)."""
    return np.arange(N_BINS) * (SAMPLE_RATE / N_FFT)


@cache
def mel_edges() -> np.ndarray:
    """Corner frequencies of the mel filters, Hz, float64 (130,): linear to 1 kHz, logarithmic above (Slaney 1998).

    Examples:
        >>> mel_edges()[:4].round(1)
        array([ 0. , 25.8, 51.6, 77.4])
    """
    linear_step, log_start, log_step = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
    top = log_start / linear_step + np.log(SAMPLE_RATE / 2 / log_start) / log_step
    mels = np.linspace(0.0, top, N_MELS + 2)
    above = log_start * np.exp(log_step * (mels - log_start / linear_step))
    return np.where(mels < log_start / linear_step, mels * linear_step, above)


@cache
def mel_filters() -> np.ndarray:
    """Triangular mel filters of unit area, float64 (128, 1025)."""
    edges = mel_edges()
    ramps = edges[:, None] - fft_frequencies()[None]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    return triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]


@cache
def sparse_mel() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mel filters without their zeros: first and end bins, int64 (128,), and weights, float64 (128, widest)."""
    filters = mel_filters()
    used = filters > 0
    first = used.argmax(axis=1)
    end = np.where(used.any(axis=1), N_BINS - used[:, ::-1].argmax(axis=1), first)
    weights = np.zeros((N_MELS, int((end - first).max())))
    for band in range(N_MELS):
        weights[band, : end[band] - first[band]] = filters[band, first[band] : end[band]]
    return first, end, weights


def chroma_filters(tuning: float) -> np.ndarray:
    """Weights of the FFT bins per pitch class from C, float64 (12, 1025) (Ellis 2007, as in librosa).

    Args:
        tuning: Deviation from A = 440 Hz, fractions of a semitone.

    Examples:
        The bin nearest to A (440 Hz) counts most for pitch class 9, counted from C:

        >>> bin_440 = round(440 / SAMPLE_RATE * N_FFT)
        >>> int(chroma_filters(tuning=0.0)[:, bin_440].argmax())
        9
    """
    a0 = 440.0 * 2.0 ** (tuning / 12) / 16
    frequencies = np.arange(1, N_FFT) * (SAMPLE_RATE / N_FFT)
    bins = 12 * np.log2(frequencies / a0)
    bins = np.concatenate([[bins[0] - 1.5 * 12], bins])
    widths = np.concatenate([np.maximum(np.diff(bins), 1.0), [1.0]])
    distance = np.remainder(bins[None] - np.arange(12)[:, None] + 6 + 120, 12) - 6
    weights = np.exp(-0.5 * (2 * distance / widths) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=0, keepdims=True))
    weights *= np.exp(-0.5 * ((bins / 12 - 5.0) / 2.0) ** 2)
    return np.ascontiguousarray(np.roll(weights, -3, axis=0)[:, :N_BINS])


REGISTERS = ("bass", "middle", "treble")
_REGISTER_EDGES_HZ = ((25.0, 45.0, 200.0, 280.0), (180.0, 250.0, 700.0, 950.0), (700.0, 950.0, 3600.0, 4400.0))


def register_filters(tuning: float) -> list[tuple[int, np.ndarray]]:
    """Chroma filters of the registers in `REGISTERS`: first FFT bin and weights, float32 (12, n_bins), of each.

    Args:
        tuning: Deviation from A = 440 Hz, fractions of a semitone.
    """
    filters, frequencies = chroma_filters(tuning), fft_frequencies()
    registers = []
    for edges in _REGISTER_EDGES_HZ:
        gain = np.interp(frequencies, edges, (0.0, 1.0, 1.0, 0.0), left=0.0, right=0.0)
        used = np.flatnonzero(gain)
        weights = (filters * gain)[:, used[0] : used[-1] + 1]
        registers.append((int(used[0]), np.ascontiguousarray(weights, dtype=np.float32)))
    return registers


@cache
def contrast_bands() -> np.ndarray:
    """First bin, end bin and number of averaged bins of the seven octave bands, int64 (7, 3) (Jiang et al. 2002)."""
    frequencies = fft_frequencies()
    edges = np.concatenate([[0.0], 200.0 * 2.0 ** np.arange(N_CONTRAST)])
    rows = []
    for band in range(N_CONTRAST):
        inside = np.flatnonzero((frequencies >= edges[band]) & (frequencies <= edges[band + 1]))
        first, end = int(inside[0]), int(inside[-1]) + 1
        if band > 0:
            first -= 1
        if band == N_CONTRAST - 1:
            end = N_BINS
        n_averaged = max(int(np.rint(0.02 * (end - first))), 1)
        rows.append((first, end if band == N_CONTRAST - 1 else end - 1, n_averaged))
    return np.array(rows)


@cache
def loudness_weights() -> np.ndarray:
    """Weights that turn a power spectrum into K-weighted mean power (ITU-R BS.1770), float64 (1025,)."""
    z = np.exp(-2j * np.pi * fft_frequencies() / SAMPLE_RATE)
    # The analogue prototypes of BS.1770, transformed for this rate (De Man 2014).
    rate_ratio = np.tan(np.pi * 1681.974450955533 / SAMPLE_RATE)
    quality, gain = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    norm = 1 + rate_ratio / quality + rate_ratio**2
    shelf = (
        (gain + middle * rate_ratio / quality + rate_ratio**2)
        + 2 * (rate_ratio**2 - gain) * z
        + (gain - middle * rate_ratio / quality + rate_ratio**2) * z**2
    ) / (norm + 2 * (rate_ratio**2 - 1) * z + (1 - rate_ratio / quality + rate_ratio**2) * z**2)
    low, low_quality = np.tan(np.pi * 38.13547087602444 / SAMPLE_RATE), 0.5003270373238773
    low_norm = 1 + low / low_quality + low**2
    highpass = (1 - 2 * z + z**2) / (
        1 + 2 * (low**2 - 1) / low_norm * z + (1 - low / low_quality + low**2) / low_norm * z**2
    )
    weights = np.abs(shelf * highpass) ** 2 * 2.0
    weights[[0, -1]] /= 2.0
    return weights / (N_FFT * (hann_window() ** 2).sum())


def integrated_loudness(power: np.ndarray) -> float:
    """Gated loudness, LUFS, of K-weighted mean powers per frame; means over runs of frames replace the 400 ms blocks.

    Examples:
        Constant power, full scale, for ten seconds, and the same after five minutes of silence, which the gate ignores:

        >>> loud = np.ones(round(10 * FRAME_RATE))
        >>> round(integrated_loudness(loud), 2)
        -0.69
        >>> silence = np.zeros(round(300 * FRAME_RATE))
        >>> abs(integrated_loudness(np.append(silence, loud)) - integrated_loudness(loud)) < 0.2
        True
    """
    width = max(round(0.4 * FRAME_RATE), 1)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    blocks = (sums[width:] - sums[:-width]) / width if len(power) > width else power
    loudness = -0.691 + 10 * np.log10(np.maximum(blocks, 1e-20))
    loud = blocks[loudness > -70.0]
    if len(loud) == 0:
        return -70.0
    relative = -0.691 + 10 * np.log10(loud.mean()) - 10.0
    return float(-0.691 + 10 * np.log10(blocks[loudness > max(relative, -70.0)].mean()))


@cache
def hann_window() -> np.ndarray:
    """Periodic Hann window, float64 (2048,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


@cache
def dct_matrix() -> np.ndarray:
    """Orthonormal DCT-II of 128 mel bands, first 13 rows, float64 (13, 128)."""
    rows = np.arange(N_MFCC)[:, None]
    matrix = np.cos(np.pi * rows * (2 * np.arange(N_MELS)[None] + 1) / (2 * N_MELS)) * np.sqrt(2.0 / N_MELS)
    matrix[0] /= np.sqrt(2.0)
    return matrix

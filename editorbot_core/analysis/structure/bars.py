"""Features of bars for the structure model: similarity to the other bars, and change around the start of the bar.

Bars are compared in five respects, each a matrix of cosine similarities: harmony in the middle register, bass, melody
(treble), onset pattern, timbre. From each matrix come, per bar, the similarities at lags of 1-16 bars both ways, how
well the following bars repeat others and where such a repetition starts and ends (Serra et al. 2014), and the novelty
around the bar (Foote 2000). Similarities are (n, n) over n units.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.dsp.vectors import standardised
from editorbot_core.analysis.features.columns import span
from editorbot_core.analysis.features.context import N_BANDS, split_context
from editorbot_core.base.errors import ParameterError

BEATS_PER_BAR = 4
KINDS = ("harmony", "bass", "melody", "rhythm", "timbre")
MAX_LAG = 16
_NOVELTY_WIDTHS = (1, 2, 4, 8)
_REPEAT_WIDTHS = (2, 4, 8)
_MIN_LAG = 2
_SHARPNESS = 8.0
# Key profiles of major and minor, from the tonic upwards (Krumhansl and Kessler 1982).
_KEY_PROFILES = (
    (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
)
_MFCC = span("MFCC")
_N_PER_MATRIX = 2 * MAX_LAG + len(_NOVELTY_WIDTHS) + 5 * len(_REPEAT_WIDTHS) + 1
_N_OTHER = 3 * N_BANDS + 24 + 7
N_BAR_FEATURES = 2 * len(KINDS) * _N_PER_MATRIX + 2 * _N_OTHER
N_PAIR_FEATURES = 2 * len(KINDS)


@dataclass(frozen=True)
class BarFeatures:
    """Features of the units of one song, normally bars.

    Attributes:
        values: float32 (n_units, N_BAR_FEATURES): raw, then standardised over the song.
        pairs: float32 (n_units, n_units, N_PAIR_FEATURES): similarity of every two units, and its mean over the next
            four units of both.
    """

    values: np.ndarray
    pairs: np.ndarray


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Cosine similarity of every two rows, after the mean row is subtracted."""
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(axis=0)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.where(norm > 1e-6, rows / np.maximum(norm, 1e-6), 0.0)
    return rows @ rows.T


def novelty(similarity: np.ndarray, width: int) -> np.ndarray:
    """Checkerboard novelty per unit, (n,): similarity within the `width` units before and after, minus that across.

    See Foote 2000.

    Examples:
        Two units of one material and two of another; the change is at unit 2:

        >>> similarity = np.kron(np.eye(2), np.ones((2, 2)))
        >>> novelty(similarity, width=2)
        array([ 0. , -0.5,  1. , -0.5])
    """
    n = len(similarity)
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = similarity.cumsum(axis=0).cumsum(axis=1)
    here = np.arange(n)
    low, high = np.maximum(here - width, 0), np.minimum(here + width, n)

    def block_sum(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        return sums[b, d] - sums[a, d] - sums[b, c] + sums[a, c]

    before, after = here - low, high - here
    diagonal = np.concatenate([[0.0], np.diagonal(similarity).cumsum()])
    within = [
        (block_sum(a, b, a, b) - (diagonal[b] - diagonal[a])) / np.maximum(count * (count - 1), 1)
        for a, b, count in ((low, here, before), (here, high, after))
    ]
    between = block_sum(low, here, here, high) / np.maximum(before * after, 1)
    return np.where(before > 0, 0.5 * (within[0] + within[1]) - between, 0.0)


def mean_ahead(similarity: np.ndarray, width: int) -> np.ndarray:
    """Mean similarity of the `width` units from i on to those from j on, (n, n); fewer at the end of the song."""
    n = len(similarity)
    total = np.zeros_like(similarity)
    for step in range(min(width, n)):
        total[: n - step, : n - step] += similarity[step:, step:]
    left = n - np.arange(n)
    return total / np.minimum(width, np.minimum(left[:, None], left[None]))


def later(matrix: np.ndarray, steps: int) -> np.ndarray:
    """`matrix` moved `steps` down and right: (i, j) holds the value of (i - steps, j - steps), or 0."""
    out = np.zeros_like(matrix)
    if steps < len(matrix):
        out[steps:, steps:] = matrix[: len(matrix) - steps, : len(matrix) - steps]
    return out


def weigh_matches(
    likeness: np.ndarray, gain: np.ndarray, *, sharpness: float, min_lag: int, min_left: int = 1, min_past: int = 0
) -> np.ndarray:
    """Mean of `gain` over the other units, weighted by exp(sharpness * likeness), for every unit; (n,).

    Only pairs count that are at least `min_lag` apart, each with `min_past` units before it and `min_left` from it on.
    """
    unit = np.arange(len(likeness))
    usable = (unit >= min_past) & (len(likeness) - unit >= min_left)
    pairs = (np.abs(unit[:, None] - unit[None]) >= min_lag) & usable[:, None] & usable[None]
    weights = np.exp(sharpness * likeness) * pairs
    return (weights * gain).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)


def _of_matrix(similarity: np.ndarray) -> np.ndarray:
    """Columns per unit from one similarity matrix, (n, _N_PER_MATRIX)."""
    n = len(similarity)
    unit = np.arange(n)
    columns = []
    for lag in (*range(-MAX_LAG, 0), *range(1, MAX_LAG + 1)):
        other = unit + lag
        inside = (other >= 0) & (other < n)
        columns.append(np.where(inside, similarity[unit, np.clip(other, 0, n - 1)], 0.0))
    columns += [novelty(similarity, width) for width in _NOVELTY_WIDTHS]
    before = later(similarity, 1)
    far = np.abs(unit[:, None] - unit[None]) >= _MIN_LAG
    for width in _REPEAT_WIDTHS:
        ahead = mean_ahead(similarity, width)
        behind = later(ahead, width)

        def weigh(likeness: np.ndarray, gain: np.ndarray, **limits: int) -> np.ndarray:
            return weigh_matches(likeness, gain, sharpness=_SHARPNESS, min_lag=_MIN_LAG, **limits)

        columns += [
            np.where(far, ahead, -1.0).max(axis=1),
            weigh(ahead, ahead),
            # A repetition starts here: the units before the matches differ.
            weigh(ahead, ahead - before, min_left=2),
            # A repetition ended before here: the matches continue differently.
            weigh(behind, behind - mean_ahead(similarity, 1), min_past=width),
            weigh(ahead, before, min_left=2),
        ]
    columns.append(similarity.mean(axis=1))
    return np.stack(columns, axis=1)


def _tonic(chroma: np.ndarray) -> int:
    """Likeliest tonic of the song, a pitch class, by correlation with key profiles (Krumhansl 1990)."""
    profile = chroma - chroma.mean()
    scores = [
        max(float(np.dot(np.roll(np.array(key) - np.mean(key), shift), profile)) for key in _KEY_PROFILES)
        for shift in range(12)
    ]
    return int(np.argmax(scores))


def bar_features(values: np.ndarray, context: np.ndarray, units: Units) -> BarFeatures:
    """Features of every unit.

    Args:
        values: The 121 features per beat, (n_beats, 121).
        context: Result of `features.context.beat_context`, (n_beats, 102).
        units: How the beats are grouped; units of more or fewer than four beats are stretched to four.

    Raises:
        ParameterError: If the rows do not match the units.
    """
    if len(values) != len(units.unit_id) or len(context) != len(units.unit_id):
        raise ParameterError(f"{len(units.unit_id)} beats, {len(values)} rows of features, {len(context)} of context")
    parts = split_context(context.astype(np.float64))
    offsets = np.arange(BEATS_PER_BAR)[None] * units.lengths[:, None] // BEATS_PER_BAR
    beats = units.first_beats[:, None] + offsets
    chroma = parts.chroma / np.maximum(np.linalg.norm(parts.chroma, axis=(1, 3), keepdims=True), 1e-6)
    onsets = np.log1p(parts.onsets)
    timbre = standardised(values[:, _MFCC].astype(np.float64))
    matrices = [_cosines(chroma[beats][:, :, :, register]) for register in (1, 0, 2)]
    matrices += [_cosines(onsets[beats]), _cosines(timbre[beats])]

    n = units.n_units
    level = standardised(parts.level)
    bar_level = np.add.reduceat(level, units.first_beats, axis=0) / units.lengths[:, None]
    last = np.maximum(units.first_beats - 1, 0)
    whole = parts.chroma.sum(axis=(1, 2))
    whole = whole / np.maximum(whole.sum(axis=1, keepdims=True), 1e-9)
    whole = np.roll(whole, -_tonic(whole.mean(axis=0)), axis=1)
    place = np.arange(n)
    other = np.concatenate(
        [
            bar_level,
            np.diff(bar_level, axis=0, prepend=bar_level[:1]),
            onsets[last, 2:].mean(axis=1),
            whole[units.first_beats] * 12,
            whole[last] * 12,
            np.stack(
                [
                    place / n,
                    (n - place) / n,
                    np.exp(-place / 4.0),
                    np.exp(-(n - 1 - place) / 4.0),
                    units.lengths == np.median(units.lengths),
                    onsets[units.first_beats].sum(axis=(1, 2)) / N_BANDS,
                    np.full(n, np.log(n / 80.0)),
                ],
                axis=1,
            ),
        ],
        axis=1,
    )
    raw = np.concatenate([*(_of_matrix(matrix) for matrix in matrices), other], axis=1)
    pairs = np.stack([*matrices, *(mean_ahead(matrix, 4) for matrix in matrices)], axis=2)
    return BarFeatures(
        np.concatenate([raw, np.clip(standardised(raw), -5, 5)], axis=1).astype(np.float32), pairs.astype(np.float32)
    )

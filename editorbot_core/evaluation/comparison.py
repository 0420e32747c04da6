"""Comparison of editors song by song: paired bootstrap over songs (Efron 1979).

Songs differ more than editors do, so differences are taken per song and songs are resampled. Qualities are points of
100; intervals are 95 % percentile intervals.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from editorbot_core.base.errors import ParameterError

N_RESAMPLES = 2000
# Differences in quality below this are ties.
_TIE = 1e-9


class WinRate(NamedTuple):
    """How often one editor is better than another.

    Attributes:
        share: Share of songs won, ties counting half.
        low: Lower end of the 95 % bootstrap interval.
        high: Its upper end.
        n_songs: Songs compared.
    """

    share: float
    low: float
    high: float
    n_songs: int


class Interval(NamedTuple):
    """A mean over songs and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def _resampled_means(values: np.ndarray, seed: int, n_resamples: int) -> np.ndarray:
    """Means of `n_resamples` samples of values (n,), drawn with replacement."""
    if len(values) == 0:
        raise ParameterError("a mean needs at least one value")
    rng = np.random.default_rng(seed)
    return np.asarray(values[rng.integers(len(values), size=(n_resamples, len(values)))].mean(axis=1))


def _won(difference: np.ndarray) -> np.ndarray:
    """1 where the difference is positive, 1/2 where it is a tie, 0 where it is negative."""
    return np.where(np.abs(difference) < _TIE, 0.5, (difference > 0).astype(float))


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Interval:
    """Mean and 95 % percentile bootstrap interval (Efron 1979) of values (n,), one per song.

    >>> bootstrap_mean(np.array([2.0, 2.0, 2.0]))
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    low, high = np.percentile(_resampled_means(values, seed, n_resamples), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def win_rate(difference: np.ndarray, *, seed: int = 0) -> WinRate:
    """How often one editor beats another, given by how much in every song.

    Args:
        difference: Quality of the one less that of the other, (n_songs,), or (n_songs, n_seeds) where editors were
            trained with several seeds; seeds are averaged within a song.
        seed: Of the resampling.

    >>> win_rate(np.array([3.0, 0.0, -1.0, 2.0])).share
    0.625
    """
    won = _won(difference).reshape(len(difference), -1).mean(axis=1)
    return WinRate(*bootstrap_mean(won, seed=seed), len(won))


class Gain(NamedTuple):
    """How much better one editor is than another.

    Attributes:
        mean: Mean difference in quality over songs, points of 100.
        probability: Share of resamples of the songs in which the mean is positive, ties counting half.
        n_songs: Songs compared.
    """

    mean: float
    probability: float
    n_songs: int


def paired_gain(rows: pd.DataFrame, challenger: str, opponent: str, *, seed: int = 0) -> Gain:
    """Paired bootstrap over songs (Efron 1979) of the difference in quality.

    Args:
        rows: Rows of an `Evaluation`, with columns `track_id`, `editor`, `quality`.
        challenger: Name of one editor.
        opponent: Name of the other.
        seed: Seed of the resampling.

    Raises:
        ParameterError: If one of them was not evaluated.

    Examples:
        Better by 20 points in one song, by 5 in the other, and so in every resample of the two:

        >>> rows = pd.DataFrame(
        ...     {
        ...         "track_id": ["a", "b", "a", "b"],
        ...         "editor": ["new", "new", "old", "old"],
        ...         "quality": [80.0, 70.0, 60.0, 65.0],
        ...     }
        ... )
        >>> gain = paired_gain(rows, "new", "old")
        >>> gain
        Gain(mean=12.5, probability=1.0, n_songs=2)
        >>> is_better(gain, min_gain=5.0, min_probability=0.9)
        True
    """
    per_song = rows.pivot_table(index="track_id", columns="editor", values="quality", aggfunc="mean")
    missing = [name for name in (challenger, opponent) if name not in per_song]
    if missing:
        raise ParameterError(
            f"no editor {missing[0]!r} was evaluated; there are {', '.join(map(str, per_song.columns))}"
        )
    difference = (per_song[challenger] - per_song[opponent]).to_numpy(dtype=float)
    positive = _won(_resampled_means(difference, seed, N_RESAMPLES))
    return Gain(float(difference.mean()), float(positive.mean()), len(difference))


def is_better(gain: Gain, *, min_gain: float, min_probability: float) -> bool:
    """Whether the gain is above `min_gain` points and its probability is at least `min_probability`."""
    return gain.mean > min_gain and gain.probability >= min_probability

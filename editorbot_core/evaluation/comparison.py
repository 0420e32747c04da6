"""Comparison of editors song by song: paired bootstrap over songs (Efron 1979).

Songs differ more than editors do, so differences are taken per song, and songs are resampled.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from editorbot_core.base.errors import ParameterError

N_BOOTSTRAP = 2000


class WinRate(NamedTuple):
    """How often one editor is better than another.

    Attributes:
        share: Share of songs won, ties counting half.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
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


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, n_resamples: int = N_BOOTSTRAP) -> Interval:
    """Mean and 95 % percentile bootstrap interval (Efron 1979) of values (n,), one per song."""
    if len(values) == 0:
        raise ParameterError("a mean needs at least one value")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(n_resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


_N_RESAMPLES = 2000


class Gain(NamedTuple):
    """How much better one editor is than another.

    Attributes:
        mean: Mean difference in quality over songs, points of 100.
        probability: Share of resamples of the songs in which it is positive, ties counting half.
        n_songs: Songs compared.
    """

    mean: float
    probability: float
    n_songs: int


def paired_gain(rows: pd.DataFrame, challenger: str, opponent: str, *, seed: int = 0) -> Gain:
    """Paired bootstrap over songs (Efron 1979) of the difference in quality.

    Args:
        rows: An `Evaluation`'s rows: `track_id`, `editor`, `quality`.
        challenger: Name of one editor.
        opponent: Name of the other.
        seed: Of the resampling.

    Raises:
        ParameterError: If one of them was not evaluated.
    """
    per_song = rows.pivot_table(index="track_id", columns="editor", values="quality", aggfunc="mean")
    missing = [name for name in (challenger, opponent) if name not in per_song]
    if missing:
        raise ParameterError(
            f"no editor {missing[0]!r} was evaluated; there are {', '.join(map(str, per_song.columns))}"
        )
    difference = (per_song[challenger] - per_song[opponent]).to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(len(difference), size=(_N_RESAMPLES, len(difference)))].mean(1)
    positive = np.where(np.abs(means) < 1e-9, 0.5, (means > 0).astype(float))
    return Gain(float(difference.mean()), float(positive.mean()), len(difference))


def is_better(gain: Gain, *, min_gain: float, min_probability: float) -> bool:
    """Whether the gain is more than `min_gain` points, with at least `min_probability`."""
    return gain.mean > min_gain and gain.probability >= min_probability

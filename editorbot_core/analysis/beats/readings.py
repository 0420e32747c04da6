"""Which of several readings of a song's beats and bars is right, by a small trained model.

A tracker rarely misses the pulse, but it takes double or half the tempo, or the third beat of the bar for the first.
So every reading is described by what happens at its bar positions and between its beats, and a network scores the
readings of one song against each other (a conditional logit, McFadden 1974, with one hidden layer; several networks
are averaged). The weights ship with the package.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.weights import load_weights

RANKER = "grid_ranker"
METRES = (4, 3)

_LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
_N_LOW_BANDS = 8
# The error function of every element; the one of SciPy would have to be imported for every song.
_erf = np.frompyfunc(math.erf, 1, 1)


class Instants(NamedTuple):
    """What is known at the tracker's beats and midway between them, n instants.

    Attributes:
        times: s, (n,).
        chroma: Power per pitch class up to the next instant, (n, 12).
        timbre: Compressed mel spectrogram, summed up to the next instant, (n, 128).
        onsets: Largest onset near each instant, per band, (n, 6).
    """

    times: np.ndarray
    chroma: np.ndarray
    timbre: np.ndarray
    onsets: np.ndarray


@dataclass(frozen=True)
class Reading:
    """A choice of beats among the instants, and their places in the bar.

    Attributes:
        chosen: Indices of the beats, int64 (n_beats,), rising.
        positions: int64 (n_beats,), from 1.
        metre: Beats in a bar.
        level: Beats per beat of the tracker; 1.5 stands for the midpoints alone, the off-beat.
        score: Evidence for the bars, in deviations, less the cost of what is unusual.
    """

    chosen: np.ndarray
    positions: np.ndarray
    metre: int
    level: float
    score: float


def _standardise(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)


def cosine_novelty(rows: np.ndarray) -> np.ndarray:
    """Cosine distance of every row from the one before; the first row's is 0."""
    unit = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
    return np.concatenate([[0.0], 1.0 - (unit[1:] * unit[:-1]).sum(axis=1)])


def _lag_similarity(rows: np.ndarray) -> list[float]:
    """Mean inner product of rows that are 1-16 beats apart."""
    return [float((rows[lag:] * rows[:-lag]).sum(axis=1).mean()) if len(rows) > lag else 0.0 for lag in _LAGS]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)


class _Pulse(NamedTuple):
    """What does not depend on the bars: columns per beat (n_beats, 10), and a row of the reading as a whole."""

    per_beat: np.ndarray
    whole: np.ndarray


def _pulse(instants: Instants, chosen: np.ndarray) -> _Pulse:
    chroma = np.add.reduceat(instants.chroma, chosen, axis=0)
    timbre = np.add.reduceat(instants.timbre, chosen, axis=0)
    onsets = _standardise(instants.onsets)
    on_beat = onsets[chosen]
    step = int(np.median(np.diff(chosen))) if len(chosen) > 1 else 1
    between = onsets[np.minimum(chosen + step // 2, len(onsets) - 1)] if step > 1 else np.zeros_like(on_beat)
    per_beat = np.column_stack(
        [
            _standardise(on_beat),
            _standardise(cosine_novelty(chroma)),
            _standardise(cosine_novelty(timbre - timbre.mean(axis=0))),
            _standardise(np.diff(timbre.sum(axis=1), prepend=timbre[:1].sum())),
            _standardise(np.diff(timbre[:, :_N_LOW_BANDS].sum(axis=1), prepend=timbre[:1, :_N_LOW_BANDS].sum())),
        ]
    )
    harmony = _unit(chroma)
    harmony = _unit(harmony - harmony.mean(axis=0))
    alternate = np.array([on_beat[i::2].mean(axis=0) if len(on_beat) > i else on_beat[0] for i in range(2)])
    whole = [
        *on_beat.mean(axis=0),
        *between.mean(axis=0),
        *(on_beat - between).mean(axis=0),
        *alternate.std(axis=0),
        *_lag_similarity(harmony),
        *_lag_similarity(_unit(on_beat)),
    ]
    return _Pulse(per_beat, np.array(whole))


def reading_features(instants: Instants, readings: list[Reading]) -> np.ndarray:
    """A row per reading, float32 (n_readings, 92)."""
    pulses: dict[tuple[float, int], _Pulse] = {}
    rows = []
    for reading in readings:
        key = (reading.level, int(reading.chosen[0]))
        if key not in pulses:
            pulses[key] = _pulse(instants, reading.chosen)
        pulse, positions = pulses[key], reading.positions
        at_position = np.zeros((max(METRES), pulse.per_beat.shape[1]))
        for place in range(1, reading.metre + 1):
            if (positions == place).any():
                at_position[place - 1] = pulse.per_beat[positions == place].mean(axis=0)
        first = positions == 1
        cut_short = np.count_nonzero(first[1:] & (positions[:-1] != reading.metre)) / len(positions)
        beats = instants.times[reading.chosen]
        tempo = np.log(0.6 / np.median(np.diff(beats))) if len(beats) > 1 else 0.0
        general = [
            tempo,
            tempo**2,
            abs(tempo),
            max(tempo - 0.3, 0.0),
            max(-tempo - 0.3, 0.0),
            reading.metre == 3,
            *(reading.level == level for level in (1.0, 2.0, 0.5, 1.5)),
            reading.score,
            10 * cut_short,
        ]
        rows.append(np.concatenate([at_position.ravel(), pulse.whole, general]))
    return np.array(rows, dtype=np.float32)


@cache
def _networks() -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in load_weights(RANKER).items()}


def reading_probabilities(features: np.ndarray, networks: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Probability of each reading of one song, float64 (n_readings,), sum 1; the mean over the networks.

    Args:
        features: Of all readings of a song, as `reading_features`.
        networks: Weights of `n` networks, each array with a leading axis of `n`: mean, scale (n, d), hidden_weight
            (n, h, d), hidden_bias (n, h), out_weight (n, h), skip_weight (n, d); None for those of the package.
    """
    net = networks or _networks()
    x = (features[None] - net["mean"][:, None]) / net["scale"][:, None]
    hidden = np.einsum("nrd,nhd->nrh", x, net["hidden_weight"]) + net["hidden_bias"][:, None]
    hidden = 0.5 * hidden * (1.0 + _erf(hidden / np.sqrt(2.0)).astype(np.float64))
    logits = np.einsum("nrh,nh->nr", hidden, net["out_weight"]) + np.einsum("nrd,nd->nr", x, net["skip_weight"])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((odds / odds.sum(axis=1, keepdims=True)).mean(axis=0))

"""Concatenation costs: the cost of a join between two places of a song.

A *join* leaves the song at an *exit*, the beat or unit that would have followed, and continues at an *entry* instead.
There are two sets of weights: `DPWeights` compares the sound around the join and is used by dynamic programming over
all units (`editing.retargeting`); `SearchWeights` also uses the structure, for the exhaustive search over few joins
(`editing.search`, which defines its terms). The unit of cost is the mean squared difference between two random places
of the same song, so that one setting serves quiet and busy songs alike.
"""

from dataclasses import dataclass

import numba
import numpy as np

from editorbot_core.analysis.dsp.vectors import squared_distances, standardised
from editorbot_core.analysis.features.columns import SOUND_GROUPS, columns_of
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.song import Song

# Places between which joins of every kind are compared, and at which they are compared to choose those.
MAX_SEARCH_PLACES = 420
MAX_COMPARED = 1500
# Relative error of distances.
_ROUNDING = 1e-6

_TIMBRE = columns_of("MFCC")
_HARMONY = columns_of("chroma")
_LEVEL = columns_of("level", "stem energy")


@dataclass(frozen=True)
class DPWeights:
    """Weights of the cost of a join. The default uses the sound only, neither bars nor phrases.

    Attributes:
        timbre: Weight of the MFCC difference.
        harmony: Weight of the chroma difference.
        level: Weight of the difference in loudness, onset strength and stem energies.
        context_beats: Beats compared on either side of a join.
        jump: Cost of any join.
        length: Cost of the length error as a share of the target, so a hundredth of it per percent.
        bar_position: Cost of a join at which the position in the bar does not continue.
        phrase: Cost of a join away from phrase starts, by `Structure.phrase_start`.
        phase: Cost of a join at which the position mod 4 in the phrase does not continue, by `Structure.phase`.
        noise: Standard deviation of the logarithm of a random factor of the sound term; needs an `rng`.
    """

    timbre: float = 1.0
    harmony: float = 1.0
    level: float = 1.0
    context_beats: int = 2
    jump: float = 0.02
    length: float = 20.0
    bar_position: float = 0.0
    phrase: float = 0.0
    phase: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check that every weight is a non-negative number and that some sound is compared."""
        values = [getattr(self, name) for name in self.__dataclass_fields__]
        if not np.isfinite(values).all() or min(values) < 0 or self.context_beats < 1:
            raise ParameterError(f"weights must be non-negative numbers and context_beats at least 1; got {self}")
        if self.timbre + self.harmony + self.level <= 0:
            raise ParameterError("at least one of timbre, harmony and level must be positive")

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "DPWeights":
        """Random weights: different edits, all of them defensible, for imitation and for pairs to compare."""
        timbre, harmony, level = np.exp(rng.normal(0.0, 0.5, 3))
        return cls(
            timbre=float(timbre),
            harmony=float(harmony),
            level=float(level),
            context_beats=int(rng.integers(1, 5)),
            jump=float(np.exp(rng.uniform(np.log(0.005), np.log(0.3)))),
            length=float(np.exp(rng.uniform(np.log(10.0), np.log(50.0)))),
            bar_position=float(rng.choice([0.0, 0.5])),
            phrase=float(rng.choice([0.0, rng.uniform(0.2, 3.0)])),
            phase=float(rng.choice([0.0, rng.uniform(0.2, 3.0)])),
            noise=float(rng.uniform(0.0, 0.25)),
        )


@dataclass(frozen=True)
class SearchWeights:
    """Weights of the cost of an edit, whose terms `editing.search` defines.

    Attributes:
        context: Change of sound around a join.
        step: Percentile of the feature step at a join.
        harmony: Novelty of the change of harmony at a join.
        bar_position: Position in the bar does not continue.
        phase: Position mod 4 in the phrase does not continue.
        phrase: Exit or entry away from phrase starts.
        join: Every join.
        length: Length error beyond `length_free`, as a share of the target, so a hundredth of it per percent.
        length_free: Length error that costs nothing, as a share of the target.
        coverage: Share of the clusters of which no phrase is at least half played.
        context_beats: Beats compared on either side of a join.
        sharpness: Power to which the odds of phrase starts and of positions in the phrase are raised first. Above 1,
            likely phrase starts count nearly as much as certain ones, and unlikely ones hardly at all.
    """

    context: float = 0.25
    step: float = 0.125
    harmony: float = 0.125
    bar_position: float = 3.0
    phase: float = 4.0
    phrase: float = 6.0
    join: float = 0.0125
    length: float = 15.0
    length_free: float = 0.005
    coverage: float = 3.0
    context_beats: int = 4
    sharpness: float = 3.0

    def __post_init__(self) -> None:
        """Check that every weight is a non-negative number."""
        values = [getattr(self, name) for name in self.__dataclass_fields__]
        if not np.isfinite(values).all() or min(values) < 0 or self.context_beats < 1:
            raise ParameterError(f"weights must be non-negative numbers and context_beats at least 1; got {self}")

    @property
    def worst_join(self) -> float:
        """Cost of a join at which no term fits; also of a start or an end that is not the song's own."""
        terms = (self.context, self.step, self.harmony, self.bar_position, self.phase, self.phrase, self.join)
        return float(sum(terms))

    @classmethod
    def full(cls) -> "SearchWeights":
        """Phrases first; for structure that a trained model estimated."""
        return cls()

    @classmethod
    def light(cls) -> "SearchWeights":
        """Smoothness first; structure decides between joins that are about equally smooth."""
        return cls(phase=0.375, phrase=0.25, coverage=0.25)

    @classmethod
    def acoustic(cls) -> "SearchWeights":
        """Sound and bar position only, without phrases, phase and clusters."""
        return cls(phase=0.0, phrase=0.0, coverage=0.0)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "SearchWeights":
        """Random weights: different edits, all of them defensible, for imitation and for pairs to compare."""
        names = ("context", "step", "harmony", "bar_position", "phase", "phrase", "join", "length", "coverage")
        factors = dict(zip(names, np.exp(rng.normal(0.0, 0.7, len(names))).tolist(), strict=True))
        structure = 0.0 if rng.random() < 0.15 else float(np.exp(rng.uniform(np.log(0.01), np.log(1.5))))
        for name in ("phase", "phrase", "coverage"):
            factors[name] *= structure
        weights = {name: getattr(cls.full(), name) * factor for name, factor in factors.items()}
        return cls(
            **weights,
            context_beats=int(rng.integers(2, 6)),
            sharpness=float(np.exp(rng.uniform(0.0, np.log(4.0)))),
        )


def _weighted_features(values: np.ndarray, weights: DPWeights) -> np.ndarray:
    """Features scaled so that the mean squared distance of two random beats is 1, float32 (n_beats, n_columns)."""
    groups = ((_TIMBRE, weights.timbre), (_HARMONY, weights.harmony), (_LEVEL, weights.level))
    total = sum(weight for _, weight in groups)
    # Two independent draws of a standardised column differ by 2 in the mean square.
    scaled = [standardised(values[:, g]) * np.sqrt(weight / (2 * total * len(g))) for g, weight in groups]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def context_distances(values: np.ndarray, exits: np.ndarray, entries: np.ndarray, *, weights: DPWeights) -> np.ndarray:
    """Audible change at every join from `exits` to `entries`, float32 (n_exits, n_entries).

    The beats after the join are compared with those that would have followed the exit, and the beats before the join
    with those that precede the entry in the source; weights fall as 1 / distance from the join. Differences are
    squared, so that two barely audible joins are cheaper than one clearly audible one. The mean over random places is
    1.

    Args:
        values: Features, (n_beats, 121).
        exits: Beats that would have followed, int64 (n_exits,).
        entries: Beats that follow instead, int64 (n_entries,).
        weights: Only `timbre`, `harmony`, `level` and `context_beats` are used.
    """
    x = _weighted_features(values, weights)
    last_row = len(x) - 1
    distances = np.zeros((len(exits), len(entries)), dtype=np.float32)
    share = 1.0 / np.arange(1, weights.context_beats + 1)
    share /= 2 * share.sum()
    for k, part in enumerate(share):
        after = squared_distances(x[np.minimum(exits + k, last_row)], x[np.minimum(entries + k, last_row)])
        before = squared_distances(x[np.maximum(exits - 1 - k, 0)], x[np.maximum(entries - 1 - k, 0)])
        distances += np.float32(part) * (after + before)
    return distances


@numba.njit(cache=True)
def _nearest_pair(before: np.ndarray, after: np.ndarray) -> np.ndarray:  # pragma: no cover - compiled
    """Smallest sum before[i, k] + after[j, k] over k, (n_i, n_j)."""
    out = np.empty((len(before), len(after)), dtype=np.float32)
    for i in range(len(before)):
        for j in range(len(after)):
            best = np.float32(np.inf)
            for k in range(before.shape[1]):
                value = before[i, k] + after[j, k]
                best = min(best, value)
            out[i, j] = best
    return out


def sound_of_beats(values: np.ndarray) -> np.ndarray:
    """What is heard at every beat, each column standardised over the song, float64 (n_beats, 64).

    Args:
        values: Features, (n_beats, 121).
    """
    return standardised(values[:, columns_of(*SOUND_GROUPS)])


def step_percentiles(sound: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Share of the song's own steps from beat to beat that are smaller than `steps`, in [0, 1], their shape.

    This is how the judge measures smoothness (`evaluation.metrics.smoothness`), at joins as they are heard, and a part
    of what the search minimises (`SearchWeights.step`), at bounds of units: the search optimises it knowingly.

    Args:
        sound: As `sound_of_beats`.
        steps: Distances between the sound of two beats.

    >>> sound = np.array([[0.0], [1.0], [3.0], [6.0]])  # steps of 1, 2 and 3
    >>> step_percentiles(sound, np.array([0.5, 2.0, 9.0])).round(2).tolist()
    [0.0, 0.33, 1.0]
    """
    own = np.sort(np.linalg.norm(np.diff(sound, axis=0), axis=1))
    # Distances are rounded: steps of the song that are as large count as no larger.
    # Distances are rounded: a step is not larger than one of the song that is as large.
    return np.asarray(np.searchsorted(own, steps * (1 - _ROUNDING)) / max(len(own), 1))


def _step_percentiles(song: Song, exits: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """`step_percentiles` of every join from `exits` to `entries`, (n_exits, n_entries)."""
    sound = sound_of_beats(song.features.values)
    return step_percentiles(sound, np.sqrt(squared_distances(sound[np.maximum(exits - 1, 0)], sound[entries])))


def _harmony_novelty(song: Song, exits: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Distance of the change of chroma at each join to the nearest one between units, (n_exits, n_entries)."""
    chroma = np.abs(song.features.values[:, _HARMONY].astype(np.float64))
    chroma /= np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-9)
    lines = song.units.first_beats[1:]
    if not len(lines):
        return np.zeros((len(exits), len(entries)))
    # The mean distance of two pairs of independent beats.
    scale = 4 * float(((chroma - chroma.mean(0)) ** 2).sum(1).mean())
    before = squared_distances(chroma[np.maximum(exits - 1, 0)], chroma[lines - 1])
    after = squared_distances(chroma[entries], chroma[lines])
    return _nearest_pair(before.astype(np.float32), after.astype(np.float32)) / max(scale, 1e-9)


def cost_of_joins(song: Song, places: np.ndarray, weights: SearchWeights, *, harmony: bool = True) -> np.ndarray:
    """Cost of every join between `places`, float64 (n_places, n_places): exits in rows, entries in columns.

    Args:
        song: Features and structure.
        places: Units at which edits may leave and enter the song, int64, rising.
        weights: Weights of the terms.
        harmony: False to leave out the harmony term, the slowest.
    """
    beats = song.units.first_beats[places]
    cost = np.full((len(places), len(places)), weights.join)
    if weights.context > 0:
        listening = DPWeights(context_beats=weights.context_beats)
        cost += weights.context * context_distances(song.features.values, beats, beats, weights=listening)
    if weights.step > 0:
        cost += weights.step * _step_percentiles(song, beats, beats)
    if weights.harmony > 0 and harmony:
        cost += weights.harmony * _harmony_novelty(song, beats, beats)
    positions = song.grid.positions[beats]
    cost += weights.bar_position * (positions[:, None] != positions[None])
    phase = song.structure.phase[places].astype(np.float64) ** weights.sharpness
    phase /= phase.sum(axis=1, keepdims=True)
    cost += weights.phase * (1.0 - phase @ phase.T)
    likely = song.structure.phrase_start.astype(np.float64)
    start = likely**weights.sharpness
    start /= start + (1.0 - likely) ** weights.sharpness
    # A phrase ends where one starts, unless it is the first.
    end = start * (1.0 - np.append(1.0, np.cumprod(1.0 - start)[:-1]))
    cost += weights.phrase * (1.0 - np.sqrt(end[places][:, None] * start[places][None]))
    return cost


def cheapest_join(cost: np.ndarray) -> np.ndarray:
    """Cost of the cheapest forward join that leaves or enters at each place, float64 (n_places,)."""
    forward = np.where(np.triu(np.ones(cost.shape, dtype=bool), 1), cost, np.inf)
    return np.minimum(forward.min(axis=0, initial=np.inf), forward.min(axis=1, initial=np.inf))


def choose_places(song: Song, weights: SearchWeights) -> np.ndarray:
    """Units at which removed ranges may begin and end, int64, rising: all but the first, fewer in long songs."""
    places = np.arange(1, song.units.n_units)
    if len(places) <= MAX_SEARCH_PLACES:
        return places
    step = -(-len(places) // MAX_COMPARED)
    if step > 1:
        starts = song.structure.phrase_start
        places = np.array([block[int(starts[block].argmax())] for block in np.split(places, places[step::step] - 1)])
    cheapest = cheapest_join(cost_of_joins(song, places, weights, harmony=False))
    return np.sort(places[np.argsort(cheapest, kind="stable")[:MAX_SEARCH_PLACES]])

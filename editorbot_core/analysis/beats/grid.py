"""The beat grid: times of the beats, their positions in the bar, and their grouping into units.

Times are seconds from the start of the audio file. Positions count beats in a bar from 1, the downbeat; indices count
beats and units from 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from editorbot_core.base.errors import ParameterError

# Fewest beats of a usable song.
MIN_BEATS = 4
# More beats than this are read from no file: some 28 hours at 120 beats per minute.
MAX_BEATS = 200_000
REGION_S = 10.0


class GridRegion(NamedTuple):
    """A part `[start_s, end_s)` of a song, s, and the confidence of the grid in it, in [0, 1]."""

    start_s: float
    end_s: float
    confidence: float


def region_bounds(duration_s: float) -> np.ndarray:
    """Edges of the regions of a song, s, (n_regions + 1,), every ten seconds; the last region is at most 15 s long.

    Examples:
        >>> region_bounds(34.0)
        array([ 0., 10., 20., 34.])
    """
    bounds = REGION_S * np.arange(max(1, round(duration_s / REGION_S)) + 1)
    bounds[-1] = duration_s
    return bounds


def positions_from_downbeats(downbeats: np.ndarray, n_beats: int, *, metre: int) -> np.ndarray:
    """Positions in the bar, int64 (n_beats,), counted up from each downbeat.

    Args:
        downbeats: Indices of the beats that start bars, rising, at least one.
        n_beats: Number of beats.
        metre: Beats per bar before the first downbeat.

    Examples:
        Two pick-up beats, a bar of three, and the rest in one bar:

        >>> positions_from_downbeats(np.array([2, 5]), 9, metre=3)
        array([2, 3, 1, 2, 3, 1, 2, 3, 4])
    """
    index = np.arange(n_beats)
    bar = np.searchsorted(downbeats, index, side="right") - 1
    since = index - np.asarray(downbeats)[np.maximum(bar, 0)]
    return np.asarray(np.where(bar >= 0, since, since % metre) + 1, dtype=np.int64)


@dataclass(frozen=True)
class BeatGrid:
    """The beats of one song.

    Beat `i` owns the half-open interval from `bounds[i]` to `bounds[i + 1]`. The intervals tile the whole file: the
    first starts at 0 (it owns the lead-in before the first beat) and the last ends with the audio.

    Attributes:
        times: float64, shape (n_beats,), strictly increasing, in [0, duration).
        positions: int64, shape (n_beats,), position in the bar, 1 = downbeat.
        duration: Length of the audio, s.
        confidence: How far to trust the grid, in [0, 1].
        region_confidence: The same for every region (see `region_bounds`), float64 (n_regions,), or None if only the
            confidence of the whole is known.

    Examples:
        A pick-up beat and two bars of three at 120 beats per minute:

        >>> grid = BeatGrid(np.arange(1.0, 4.5, 0.5), np.array([3, 1, 2, 3, 1, 2, 3]), duration=5.0)
        >>> grid.n_beats, grid.tempo, grid.metre
        (7, 120.0, 3)
        >>> grid.downbeats
        array([1.5, 3. ])

        The first beat owns the lead-in, the last one the final decay:

        >>> grid.bounds
        array([0. , 1.5, 2. , 2.5, 3. , 3.5, 4. , 5. ])

        >>> BeatGrid(np.array([500.0, 1000.0]), np.array([1, 2]), duration=2.0)
        Traceback (most recent call last):
        editorbot_core.base.errors.ParameterError: beat times reach 1000.000 but the clip lasts 2.000 s; were they ...
    """

    times: np.ndarray
    positions: np.ndarray
    duration: float
    confidence: float = 1.0
    region_confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that times rise within the file and positions count from 1."""
        times = np.asarray(self.times, dtype=np.float64)
        positions = np.asarray(self.positions, dtype=np.int64)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "positions", positions)
        if times.ndim != 1 or len(times) < 1 or positions.shape != times.shape:
            raise ParameterError(f"a grid needs one position per beat; got {times.shape} times, {positions.shape}")
        if not np.isfinite(times).all() or not np.isfinite(self.duration):
            raise ParameterError("beat times and duration must be finite")
        if times[0] < 0 or (np.diff(times) <= 0).any():
            raise ParameterError("beat times must be non-negative and strictly increasing")
        if times[-1] >= self.duration:
            slip = "; were they given in milliseconds?" if times[-1] > 100 * self.duration else ""
            raise ParameterError(f"beat times reach {times[-1]:.3f} but the clip lasts {self.duration:.3f} s{slip}")
        if (positions < 1).any():
            raise ParameterError(f"positions count from 1; got {positions.min()}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ParameterError(f"confidence must be in [0, 1]; got {self.confidence}")
        if self.region_confidence is not None:
            regions = np.asarray(self.region_confidence, dtype=np.float64)
            object.__setattr__(self, "region_confidence", regions)
            expected = (len(region_bounds(self.duration)) - 1,)
            if regions.shape != expected or not ((regions >= 0.0) & (regions <= 1.0)).all():
                raise ParameterError(f"region_confidence must be {expected} values in [0, 1]; got {regions.tolist()}")

    @property
    def n_beats(self) -> int:
        """Number of beats."""
        return len(self.times)

    @property
    def bounds(self) -> np.ndarray:
        """Edges of the beat intervals, s, float64 (n_beats + 1,): 0, the second beat, ..., the end of the audio."""
        return np.concatenate([[0.0], self.times[1:], [self.duration]])

    @property
    def downbeats(self) -> np.ndarray:
        """Times of the beats at position 1, s."""
        return self.times[self.positions == 1]

    @property
    def metre(self) -> int:
        """The commonest number of beats in a bar; the highest position where there is no whole bar."""
        lengths = np.diff(np.flatnonzero(self.positions == 1))
        return int(np.bincount(lengths).argmax()) if len(lengths) else int(self.positions.max())

    @property
    def regions(self) -> tuple[GridRegion, ...]:
        """The regions of the song, in order, each with its confidence."""
        bounds = region_bounds(self.duration)
        trust = np.full(len(bounds) - 1, self.confidence) if self.region_confidence is None else self.region_confidence
        return tuple(GridRegion(*map(float, row)) for row in zip(bounds[:-1], bounds[1:], trust, strict=True))

    @property
    def tempo(self) -> float:
        """Beats per minute, from the median interval between beats; 0 for a single beat."""
        return float(60.0 / np.median(np.diff(self.times))) if self.n_beats > 1 else 0.0


@dataclass(frozen=True)
class Units:
    """How the beats of a song are grouped into units.

    Attributes:
        unit_id: int64, shape (n_beats,), starting at 0 and rising by 0 or 1.

    Examples:
        A pick-up beat and two bars of three, as bars and as the seconds that they last:

        >>> grid = BeatGrid(np.arange(1.0, 4.5, 0.5), np.array([3, 1, 2, 3, 1, 2, 3]), duration=5.0)
        >>> units = Units.bars(grid)
        >>> units.unit_id
        array([0, 1, 1, 1, 2, 2, 2])
        >>> units.first_beats, units.lengths
        (array([0, 1, 4]), array([1, 3, 3]))
        >>> units.durations(grid)
        array([1.5, 1.5, 2. ])
    """

    unit_id: np.ndarray

    def __post_init__(self) -> None:
        """Check that ids count up without gaps."""
        unit_id = np.asarray(self.unit_id, dtype=np.int64)
        object.__setattr__(self, "unit_id", unit_id)
        steps = np.diff(unit_id)
        if unit_id.ndim != 1 or len(unit_id) == 0 or unit_id[0] != 0 or ((steps != 0) & (steps != 1)).any():
            raise ParameterError("unit ids must start at 0 and rise by 0 or 1 from beat to beat")

    @classmethod
    def bars(cls, grid: BeatGrid) -> "Units":
        """A unit per bar; a pick-up before the first downbeat is a unit of its own."""
        starts = grid.positions == 1
        starts[0] = True
        return cls(np.cumsum(starts) - 1)

    @classmethod
    def beats(cls, n_beats: int) -> "Units":
        """A unit per beat."""
        return cls(np.arange(n_beats))

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.unit_id[-1]) + 1

    @property
    def first_beats(self) -> np.ndarray:
        """Index of the first beat of every unit, int64 (n_units,)."""
        return np.flatnonzero(np.diff(self.unit_id, prepend=-1))

    @property
    def lengths(self) -> np.ndarray:
        """Beats in every unit, int64 (n_units,)."""
        return np.bincount(self.unit_id)

    def bounds(self, grid: BeatGrid) -> np.ndarray:
        """Edges of the units in seconds, float64 (n_units + 1,), from 0 to the end of the audio."""
        return np.append(grid.bounds[self.first_beats], grid.duration)

    def durations(self, grid: BeatGrid) -> np.ndarray:
        """Length of every unit in seconds, float64 (n_units,); they sum to the duration of the audio."""
        return np.diff(self.bounds(grid))

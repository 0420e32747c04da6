"""Beats: where they are, and which of them start a bar.

Times are seconds from the start of the audio file. Positions count beats in a bar from 1, the downbeat.
"""

from dataclasses import dataclass

import numpy as np

from editorbot_core.errors import ParameterError


@dataclass(frozen=True)
class BeatGrid:
    """The beats of one song.

    Beat `i` owns the half-open interval from `bounds[i]` to `bounds[i + 1]`. The intervals tile the whole file: the
    first starts at 0 (it owns the lead-in before the first beat) and the last ends with the audio.

    Attributes:
        times: float64, shape (n_beats,), strictly increasing, in [0, duration).
        positions: int64, shape (n_beats,), place in the bar, 1 = downbeat.
        duration: Length of the audio, s.
        confidence: How far to trust the grid, in [0, 1].
    """

    times: np.ndarray
    positions: np.ndarray
    duration: float
    confidence: float = 1.0

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
    def tempo(self) -> float:
        """60 over the median beat length, beats per minute; 0 for a single beat."""
        return float(60.0 / np.median(np.diff(self.times))) if self.n_beats > 1 else 0.0

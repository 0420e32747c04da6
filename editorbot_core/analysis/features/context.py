"""Context of a beat: 102 numbers, finer in time and pitch than the 121 features, for the structure model.

| columns | content |
|---|---|
| 0-71 | chroma of each half of the beat, in bass, middle and treble: square root of the mean power per pitch class |
| 72-95 | onsets in six bands, low to high, at each quarter of the beat |
| 96-101 | level in the same six bands: natural logarithm of the mean power |

The last beat is taken to be as long as the one before it.
"""

from typing import NamedTuple

import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.beats.tracking import BAND_EDGES
from editorbot_core.analysis.dsp.filterbanks import FRAME_RATE, REGISTERS
from editorbot_core.analysis.dsp.frames import FrameFeatures, sums_from

N_HALVES = 2
N_QUARTERS = 4
N_REGISTERS = len(REGISTERS)
N_BANDS = len(BAND_EDGES) - 1
N_CHROMA = N_HALVES * N_REGISTERS * 12
N_ONSETS = N_QUARTERS * N_BANDS
N_CONTEXT = N_CHROMA + N_ONSETS + N_BANDS

_LEVEL_FLOOR = 1e-8


class BeatContext(NamedTuple):
    """A context by the meaning of its columns.

    Attributes:
        chroma: (n_beats, 2, 3, 12), half of the beat, register, pitch class from C.
        onsets: (n_beats, 4, 6), quarter of the beat, band.
        level: (n_beats, 6), band.
    """

    chroma: np.ndarray
    onsets: np.ndarray
    level: np.ndarray


def split_context(context: np.ndarray) -> BeatContext:
    """A context, (n_beats, 102), split by the meaning of its columns.

    Examples:
        >>> parts = split_context(np.zeros((8, N_CONTEXT), dtype=np.float32))
        >>> parts.chroma.shape, parts.onsets.shape, parts.level.shape
        ((8, 2, 3, 12), (8, 4, 6), (8, 6))
    """
    n = len(context)
    return BeatContext(
        context[:, :N_CHROMA].reshape(n, N_HALVES, N_REGISTERS, 12),
        context[:, N_CHROMA : N_CHROMA + N_ONSETS].reshape(n, N_QUARTERS, N_BANDS),
        context[:, N_CHROMA + N_ONSETS :],
    )


def _parts(grid: BeatGrid, n_parts: int) -> np.ndarray:
    """Starts of `n_parts` equal parts of every beat, and the end of the last, s, (n_parts * n_beats + 1,)."""
    last = grid.times[-1] + (grid.times[-1] - grid.times[-2] if grid.n_beats > 1 else 0.5)
    edges = np.append(grid.times, min(last, grid.duration))
    place = np.arange(n_parts * grid.n_beats + 1) / n_parts
    return np.interp(place, np.arange(grid.n_beats + 1), edges)


def _mean_between(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the rows from each edge to the next, at least one row each, float64 (len(edges) - 1, ...)."""
    first = np.clip(np.ceil(edges * FRAME_RATE - 1e-6).astype(np.int64), 0, len(rows) - 1)
    end = int(max(first[-1], first[-2] + 1))
    counts = np.maximum(np.diff(np.append(first[:-1], end)), 1)
    sums = sums_from(rows[:end], first[:-1])
    return sums / counts.reshape(-1, *[1] * (rows.ndim - 1))


def beat_context(frames: FrameFeatures, grid: BeatGrid, onsets: np.ndarray) -> np.ndarray:
    """The context of every beat, float32 (n_beats, 102).

    Args:
        frames: Frame features of the song.
        grid: Its beats.
        onsets: Result of `beats.tracking.band_onsets` for the same frames, (F, 6).
    """
    n = grid.n_beats
    chroma = np.sqrt(_mean_between(frames.registers, _parts(grid, N_HALVES)))
    at = np.round(_parts(grid, N_QUARTERS)[:-1] * FRAME_RATE).astype(np.int64)
    around = np.clip(at[:, None] + np.arange(-1, 3), 0, frames.n_frames - 1)
    bands = np.add.reduceat(frames.mel, BAND_EDGES[:-1], axis=1)
    level = np.log(_mean_between(bands, _parts(grid, 1)) + _LEVEL_FLOOR)
    columns = (chroma, onsets[around].max(axis=1), level)
    rows = np.concatenate([column.reshape(n, -1) for column in columns], axis=1)
    # Rounded to the stored precision, so that a context read from a file equals the computed one.
    return rows.astype(np.float16).astype(np.float32)

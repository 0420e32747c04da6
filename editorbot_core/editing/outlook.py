"""What finishing an edit would cost: what a policy sees of the rest of a song.

A join is only as good as where it leads: leaving at the end of a phrase is worth nothing if no entry that fits meets
the length. The *outlook* of a song holds what every join costs (`joins.SearchWeights.full`) and, for every unit and
every *surplus* (by how much what is left of the song is longer than what is still to be heard), what the cheapest way
on costs, by backward induction (Bellman 1957):

    after[u, x] = the least of     play on:    after[u + 1, x]
                                   jump:       join[u + 1, w] + after[w, x - (t_w - t_{u + 1})]    for all w > u + 1
    after[last, x] = length * max(0, |x| / half the song - length_free), nothing beyond the tolerance of the mask

so that `after[u]` is what follows once unit `u` has been played. It is a prior, not a reward: it knows nothing of what
listeners answered or of coverage, and the policy learns how far to follow it (a residual policy: Silver et al. 2018).

Shapes: U units, X steps of surplus of `step_s` each, from `-MARGIN_STEPS` steps on. Unit U stands for the end of the
song: entering there leaves its end out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch

from editorbot_core.editing.edits import TOLERANCE_RATIO, TOLERANCE_UNITS
from editorbot_core.editing.joins import SearchWeights, choose_places, cost_of_joins
from editorbot_core.songs.song import Song

# What no way leads to costs this; half precision holds it.
UNREACHABLE = 60.0

# Steps of surplus below 0: what is already missing.
MARGIN_STEPS = 24
_STEPS_PER_UNIT = 8
_MAX_STEPS = 2048
_outlooks: "WeakKeyDictionary[Song, Outlook]" = WeakKeyDictionary()


class Outlook(NamedTuple):
    """What may lie ahead in one song.

    Attributes:
        join: float32 (U, U + 1), cost of entering at the column instead of playing on at the row; 0 where they are the
            same.
        after: float16 (U + 1, X), cost of the cheapest way on once a unit has been played; row U: nothing follows.
        leaving: float16 (U, X), the same if this unit is the first that is left out.
        step_s: Seconds per step of surplus.
    """

    join: np.ndarray
    after: np.ndarray
    leaving: np.ndarray
    step_s: float


@numba.njit(cache=True)
def _induction(
    join: np.ndarray, times: np.ndarray, is_place: np.ndarray, final: np.ndarray, after: np.ndarray, leaving: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Fill `after` (U + 1, X) and `leaving` (U, X), both float32; times in steps, float64 (U + 1,)."""
    n, n_steps = leaving.shape
    after[n], after[n - 1] = final, final
    for u in range(n - 1, -1, -1):
        leaving[u] = UNREACHABLE
        if is_place[u]:
            for w in range(u + 1, n + 1):
                if not is_place[w]:
                    continue
                shift = round(times[w] - times[u])
                cost = join[u, w]
                for x in range(shift, n_steps):
                    leaving[u, x] = min(leaving[u, x], cost + after[w, x - shift])
        if u > 0:
            for x in range(n_steps):
                after[u - 1, x] = min(after[u, x], leaving[u, x])


def outlook_of(song: Song) -> Outlook:
    """The outlook of a song, worked out once for every `Song`; milliseconds for a hundred units, about n^3."""
    outlook = _outlooks.get(song)
    if outlook is None:
        outlook = _outlooks[song] = _song_outlook(song)
    return outlook


def _song_outlook(song: Song) -> Outlook:
    weights = SearchWeights.full()
    n = song.units.n_units
    times_s = song.units.bounds(song.grid)
    places = choose_places(song, weights)
    join = np.full((n, n + 1), weights.worst_join, dtype=np.float32)
    join[np.ix_(places, places)] = cost_of_joins(song, places, weights)
    unit = np.arange(n)
    join[unit, unit] = 0.0
    median_s = float(np.median(song.unit_durations))
    step_s = max(median_s / _STEPS_PER_UNIT, song.duration / _MAX_STEPS)
    n_steps = int(np.ceil(song.duration / step_s)) + 1 + MARGIN_STEPS
    missed_s = np.abs(np.arange(n_steps) - MARGIN_STEPS) * step_s
    half_s = 0.5 * song.duration
    final = weights.length * np.maximum(missed_s / half_s - weights.length_free, 0.0)
    final[missed_s > TOLERANCE_RATIO * half_s + TOLERANCE_UNITS * median_s] = UNREACHABLE
    # Where every unit is a place, so are the start and the end, at the cost of the worst join.
    is_place = np.isin(np.arange(n + 1), np.append(places, (0, n)))
    after = np.empty((n + 1, n_steps), dtype=np.float32)
    leaving = np.empty((n, n_steps), dtype=np.float32)
    final = np.minimum(final, UNREACHABLE).astype(np.float32)
    _induction(join, times_s / step_s, is_place, final, after, leaving)
    return Outlook(
        join,
        np.minimum(after, UNREACHABLE).astype(np.float16),
        np.minimum(leaving, UNREACHABLE).astype(np.float16),
        step_s,
    )


@dataclass(frozen=True)
class OutlookBatch:
    """The outlooks of S songs, padded to one shape; what does not exist is unreachable.

    Attributes:
        join: float32 (S, U, U + 1).
        after: float16 (S, U + 1, X).
        leaving: float16 (S, U, X).
        step_us: float64 (S,), microseconds per step of surplus.
    """

    join: torch.Tensor
    after: torch.Tensor
    leaving: torch.Tensor
    step_us: torch.Tensor

    def to(self, device: torch.device | str) -> "OutlookBatch":
        """The same on `device`."""
        return OutlookBatch(*(table.to(device) for table in (self.join, self.after, self.leaving, self.step_us)))

    def select(self, rows: torch.Tensor) -> "OutlookBatch":
        """The songs at `rows`."""
        return OutlookBatch(self.join[rows], self.after[rows], self.leaving[rows], self.step_us[rows])

    def trimmed(self, n_units: int) -> "OutlookBatch":
        """The first `n_units` units; no song may have more."""
        return OutlookBatch(
            self.join[:, :n_units, : n_units + 1],
            self.after[:, : n_units + 1],
            self.leaving[:, :n_units],
            self.step_us,
        )


def stack_outlooks(outlooks: Sequence[Outlook]) -> OutlookBatch:
    """Pad outlooks to one batch."""
    n_units = max(len(outlook.join) for outlook in outlooks)
    n_steps = max(outlook.after.shape[1] for outlook in outlooks)

    def pad(tables: list[np.ndarray], height: int, width: int) -> torch.Tensor:
        out = np.full((len(tables), height, width), UNREACHABLE, dtype=tables[0].dtype)
        for i, table in enumerate(tables):
            out[i, : table.shape[0], : table.shape[1]] = table
        return torch.from_numpy(out)

    return OutlookBatch(
        pad([outlook.join for outlook in outlooks], n_units, n_units + 1),
        pad([outlook.after for outlook in outlooks], n_units + 1, n_steps),
        pad([outlook.leaving for outlook in outlooks], n_units, n_steps),
        torch.tensor([outlook.step_s * 1e6 for outlook in outlooks], dtype=torch.float64),
    )

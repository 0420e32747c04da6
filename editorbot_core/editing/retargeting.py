"""Music retargeting by dynamic programming: the cheapest path through the units of a song that lasts as long as asked.

Playing on is free; a *join* from unit `i` to unit `j != i + 1` has a concatenation cost, the audible change (Schoedl et
al. 2000, video textures; Wenner et al. 2013, scalable music). The unit of cost is the mean squared difference between
two random places of the same song, so that one setting serves quiet and busy songs alike.
"""

from typing import NamedTuple

import numba
import numpy as np

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, LOOP_RATIO, MAX_REPEATS, TOLERANCE_RATIO, TOLERANCE_UNITS
from editorbot_core.editing.joins import DPWeights, context_distances
from editorbot_core.songs.song import Song

# Places between which joins are looked for; longer songs are searched in blocks of several units.
MAX_DP_PLACES = 1200

# Fewest and most steps into which the target duration is divided; between them, four to a unit.
DURATION_STEPS = (1000, 4000)

# Cost of a length error beyond the tolerance, per target: above that of any number of joins.
_OUT_OF_TOLERANCE = 1e6


@numba.njit(cache=True)
def _cheapest_paths(
    jump: np.ndarray,
    loop: np.ndarray,
    edges: np.ndarray,
    lengths_s: np.ndarray,
    n_target: int,
    slack: int,
    max_repeats: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # pragma: no cover - compiled
    """Dynamic programming over (place, steps of duration so far).

    `cost[j, t]` is the cost of the cheapest path of `t` steps that ends with place `j`; `heard[j, t]` is its exact
    duration, s, `before` the place played before `j` on it, and `repeats` how often `j` is played. Durations in
    steps are differences of the rounded `edges`, so that rounding errors do not add up along a run.
    """
    n, n_steps = len(loop), n_target + slack + 1
    cost = np.full((n, n_steps), np.inf, dtype=np.float32)
    heard = np.zeros((n, n_steps), dtype=np.float32)
    before = np.full((n, n_steps), -1, dtype=np.int32)
    repeats = np.zeros((n, n_steps), dtype=np.int8)
    cost[0, edges[1]] = 0.0
    heard[0, edges[1]] = lengths_s[0]
    repeats[0, edges[1]] = 1
    for j in range(1, n):
        best = np.full(n_steps, np.inf, dtype=np.float32)
        origin = np.full(n_steps, -1, dtype=np.int32)
        # With fewer steps than this, the rest of the song is too short to reach the target.
        low = 0 if max_repeats > 1 else max(0, n_target - slack - (edges[n] - edges[j]))
        for i in range(j):
            step = jump[i, j]
            row = cost[i]
            high = n_steps if max_repeats > 1 else min(n_steps, edges[i + 1] + 1)
            for t in range(low, high):
                value = row[t] + step
                better = value < best[t]
                best[t] = value if better else best[t]
                origin[t] = i if better else origin[t]
        length = edges[j + 1] - edges[j]
        for r in range(1, (max_repeats if j < n - 1 else 1) + 1):
            extra = (r - 1) * loop[j]
            shift = r * length
            for t in range(shift, n_steps):
                value = best[t - shift] + extra
                if value < cost[j, t]:
                    cost[j, t] = value
                    heard[j, t] = heard[origin[t - shift], t - shift] + r * lengths_s[j]
                    before[j, t] = origin[t - shift]
                    repeats[j, t] = r
    return cost, heard, before, repeats


def _blocks(n_units: int) -> np.ndarray:
    """First unit of every place of the search: every unit, or every few in a very long song."""
    return np.arange(0, n_units, -(-n_units // MAX_DP_PLACES))


def retarget(
    song: Song, units: Units, target_s: float, weights: DPWeights, rng: np.random.Generator | None
) -> np.ndarray:
    """Action ids per unit of the cheapest edit that starts and ends like the song, int64 (n_units,)."""
    if not np.isfinite(target_s) or target_s <= 0:
        raise ParameterError(f"target_s must be positive; got {target_s}")
    if units.n_units < 3:
        return np.full(units.n_units, KEEP, dtype=np.int64)
    costs = join_costs(song, units, weights=weights, rng=rng)
    firsts = _blocks(units.n_units)
    lasts = np.append(firsts[1:], units.n_units) - 1
    bounds = np.append(units.bounds(song.grid)[firsts], song.duration)
    unit_s = float(np.median(np.diff(bounds)))
    reach_s = min(target_s, MAX_REPEATS * song.duration)
    n_target = int(np.clip(4 * reach_s / unit_s, *DURATION_STEPS))
    edges = np.round(bounds / reach_s * n_target).astype(np.int64)
    lengths = np.diff(edges)
    with_loops = target_s > LOOP_RATIO * song.duration
    # Wide enough for one unit more or less, and for the rounding errors of many repeats.
    slack = int(max(lengths.max(), lengths[0] + lengths[-1] - n_target, n_target // 10 if with_loops else 0)) + 1
    cost, heard, before, repeats = _cheapest_paths(
        np.ascontiguousarray(costs.jump[np.ix_(lasts, firsts)]),
        np.add.reduceat(costs.loop, firsts).astype(np.float32),
        edges,
        np.diff(bounds),
        n_target,
        slack,
        MAX_REPEATS if with_loops else 1,
    )
    missed = np.abs(heard[-1].astype(np.float64) / target_s - 1.0)
    tolerance = TOLERANCE_RATIO + TOLERANCE_UNITS * unit_s / reach_s
    total = cost[-1] + weights.length * missed + _OUT_OF_TOLERANCE * np.maximum(missed - tolerance, 0)
    assert np.isfinite(total).any(), "some run from the start and the last unit lasts as long, to one unit"
    place, t = len(firsts) - 1, int(np.argmin(total))
    counts = np.zeros(len(firsts), dtype=np.int64)
    while place >= 0:
        counts[place] = repeats[place, t]
        origin = int(before[place, t])
        t -= int(counts[place] * lengths[place])
        place = origin
    actions = np.select([counts == 0, counts == 1], [CUT, KEEP], LOOP_2 + counts - 2)
    return np.repeat(actions, lasts - firsts + 1)


def dp_unit_actions(
    song: Song, target_s: float, *, weights: DPWeights | None = None, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Retargeting by dynamic programming over the song's units.

    The first and the last unit are kept, nothing is played backwards, and units are repeated only if the target is
    above `LOOP_RATIO` of the song.

    Args:
        song: What to edit.
        target_s: Requested duration, s; if it is out of reach, the edit gets as near as it can.
        weights: Costs of joins; the default uses the sound only.
        rng: Needed if `weights.noise` is not 0.

    Returns:
        Action ids KEEP, CUT and LOOP, int64 (n_units,).
    """
    return retarget(song, song.units, target_s, weights or DPWeights(), rng)


class JoinCosts(NamedTuple):
    """Concatenation costs between the units of a song.

    Attributes:
        jump: float32 (n_units, n_units), cost of playing unit `j` after unit `i`; 0 where `j = i + 1`.
        loop: float32 (n_units,), cost of playing unit `i` after itself.
    """

    jump: np.ndarray
    loop: np.ndarray


def join_costs(song: "Song", units: Units, *, weights: DPWeights, rng: np.random.Generator | None = None) -> JoinCosts:
    """Cost of every join between `units` of `song`: the audible change, and the terms that `weights` add to it.

    Args:
        song: Features and structure.
        units: Any grouping of the song's beats; structure terms are read at the song's own unit of each beat.
        weights: Weights of the terms.
        rng: Generator of the noise, needed if `weights.noise` is not 0.
    """
    entry = units.first_beats
    # The beat that follows each unit in the source; for the last unit, the last beat.
    follow = np.append(entry[1:], song.grid.n_beats - 1)
    jump = context_distances(song.features.values, follow, entry, weights=weights)
    if weights.noise > 0:
        if rng is None:
            raise ParameterError("weights.noise is not 0, so an rng is needed")
        jump *= np.exp(rng.normal(0.0, weights.noise, jump.shape)).astype(np.float32)
    jump += np.float32(weights.jump)
    if weights.bar_position > 0:
        positions = song.grid.positions
        jump += np.float32(weights.bar_position) * (positions[follow][:, None] != positions[entry][None])
    own_unit = song.units.unit_id
    exit_unit, entry_unit = own_unit[follow], own_unit[entry]
    if weights.phrase > 0:
        start = np.sqrt(song.structure.phrase_start.astype(np.float32))
        jump += np.float32(weights.phrase) * (1 - start[exit_unit][:, None] * start[entry_unit][None])
    if weights.phase > 0:
        phase = song.structure.phase.astype(np.float32)
        jump += np.float32(weights.phase) * (1 - phase[exit_unit] @ phase[entry_unit].T)
    loop = jump.diagonal().copy()
    following = np.arange(units.n_units - 1)
    jump[following, following + 1] = 0.0
    return JoinCosts(jump, loop)

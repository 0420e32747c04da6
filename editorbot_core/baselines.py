"""Editors that learn nothing: what every learned editor is compared with, and what a warm start imitates.

An `Editor` takes a song and a target duration in seconds and returns an `EditDecisionList`. The retargeting editors
search for the cheapest path through the units of a song (Schoedl et al. 2000, video textures; Wenner et al. 2013,
scalable music): playing on costs nothing, a *join* from unit `i` to unit `j != i + 1` costs what the listener would
hear change, and the path has to last as long as was asked for. Costs are in units of the mean squared difference
between two random places of the same song, so that one setting serves quiet and busy songs alike.
"""

from collections.abc import Callable
from dataclasses import replace

import numba
import numpy as np

from editorbot_core.edits import (
    CUT,
    KEEP,
    LOOP_2,
    LOOP_RATIO,
    MAX_REPEATS,
    REORDER_1,
    TOLERANCE_RATIO,
    TOLERANCE_UNITS,
    EditDecisionList,
    Segment,
    Units,
    edl_of,
)
from editorbot_core.errors import ParameterError
from editorbot_core.joins import DPWeights, join_costs
from editorbot_core.songs import Song

Editor = Callable[[Song, float], EditDecisionList]

FADE_OUT_S = 3.0
# Places between which joins are looked for; longer songs are searched in blocks of several units.
MAX_PLACES = 1200
# Fewest and most steps into which the target duration is divided; between them, four to a unit.
DURATION_STEPS = (1000, 4000)
# Cost per target of missing it by more than the tolerance: above that of any number of joins.
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

    `cost[j, t]` is the cheapest way to have heard `t` steps with place `j` as the last; `heard[j, t]` is how long that
    way really lasts, s, `before` the place played before `j` on it, and `repeats` how often `j` is played. Durations in
    steps are differences of the rounded `edges`, so rounding does not add up along a run.
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
        # What is left from place j on cannot make up for less than this.
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
    return np.arange(0, n_units, -(-n_units // MAX_PLACES))


def _retarget(
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
    # Wide enough for one unit more or less, and for what rounding adds up to over many repeats.
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
        target_s: Duration asked for, s. Out of reach, the nearest duration within reach is taken.
        weights: What a join costs; the default listens only.
        rng: Needed if `weights.noise` is not 0.

    Returns:
        Action ids KEEP, CUT and LOOP, int64 (n_units,).
    """
    return _retarget(song, song.units, target_s, weights or DPWeights(), rng)


def keep_all(song: Song, target_s: float) -> EditDecisionList:
    """The whole song, whatever was asked for."""
    return edl_of(song, np.full(song.units.n_units, KEEP), target_duration_s=target_s, model={"name": "keep_all"})


def truncate_and_fade(song: Song, target_s: float) -> EditDecisionList:
    """The first `target_s` seconds with a fade-out of `FADE_OUT_S`; the whole song if it is no longer than that."""
    if target_s >= song.duration:
        return replace(keep_all(song, target_s), model={"name": "truncate_fade"})
    bounds = song.units.bounds(song.grid)
    heard = (bounds[:-1] + bounds[1:]) / 2 < target_s
    heard[0] = True
    edl = edl_of(song, np.where(heard, KEEP, CUT), target_duration_s=target_s, model={"name": "truncate_fade"})
    segment = Segment(0.0, float(target_s), fade_out_s=min(FADE_OUT_S, float(target_s)))
    return replace(edl, segments=(segment,))


def one_cut(song: Song, target_s: float) -> EditDecisionList:
    """Start and end with one bar-snapped cut between: of the cuts that hit the target, the one that sounds smoothest.

    A cut hits the target if it is within half a bar of it, or else if none comes nearer. Where the whole song is
    nearest, it is kept.
    """
    model: dict[str, object] = {"name": "one_cut"}
    n = song.units.n_units
    firsts = song.units.first_beats
    on_bar = song.grid.positions[firsts] == 1
    places = np.flatnonzero(on_bar[1:]) + 1
    actions = np.full(n, KEEP, dtype=np.int64)
    if target_s >= song.duration or not len(places):
        return edl_of(song, actions, target_duration_s=target_s, model=model)
    bounds = song.units.bounds(song.grid)
    after, entry = np.meshgrid(places, places, indexing="ij")
    missed = np.abs(song.duration - (bounds[entry] - bounds[after]) - target_s)
    missed[entry < after] = np.inf
    bar_s = float(np.median(np.diff(bounds[np.append(np.flatnonzero(on_bar), n)])))
    near = missed <= max(missed.min() + 1e-9, bar_s / 2)
    cost = np.where(near, join_costs(song, song.units, weights=DPWeights()).jump[after - 1, entry], np.inf)
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    actions[after[best] : entry[best]] = CUT
    return edl_of(song, actions, target_duration_s=target_s, model=model)


def dp_bars(song: Song, target_s: float) -> EditDecisionList:
    """Dynamic-programming retargeting over the song's units, bars as a rule."""
    return edl_of(song, dp_unit_actions(song, target_s), target_duration_s=target_s, model={"name": "dp_bars"})


def dp_beats(song: Song, target_s: float) -> EditDecisionList:
    """Dynamic-programming retargeting over single beats; blind to bars."""
    units = Units.beats(song.grid.n_beats)
    return EditDecisionList.from_unit_actions(
        _retarget(song, units, target_s, DPWeights(), None),
        grid=song.grid,
        units=units,
        track_id=song.track_id,
        source_path=song.path,
        source_sha256=song.sha256,
        target_duration_s=target_s,
        model={"name": "dp_beats"},
    )


def _random_action(repeats: int, u: int, n: int, move: bool, rng: np.random.Generator) -> int:
    """The action id that plays unit `u` of `n` so many times, moved back a little if asked for and possible."""
    if repeats != 1:
        return CUT if repeats == 0 else LOOP_2 + repeats - 2
    furthest = min(4, n - 2 - u)
    if move and furthest >= 1:
        return REORDER_1 + int(rng.integers(furthest))
    return KEEP


def random_unit_actions(
    song: Song, target_s: float, *, rng: np.random.Generator, loop_share: float = 0.02, reorder_share: float = 0.02
) -> np.ndarray:
    """A random walk of keeping and cutting that can still meet the target at every step.

    Runs have a random mean length between 2 and 16 units. Units 0 and last are kept; a unit may be played more than
    once or moved with the given probabilities, more often if the target is longer than what is left.

    Args:
        song: What to edit.
        target_s: Duration asked for, s; met to 1.5 % and half a unit where that is possible.
        rng: Source of all choices.
        loop_share: Probability of repeating a kept unit.
        reorder_share: Probability of moving a kept unit by 1 to 4 units.

    Returns:
        Action ids, int64 (n_units,).
    """
    lengths = song.unit_durations
    n = len(lengths)
    actions = np.full(n, KEEP, dtype=np.int64)
    if n < 3:
        return actions
    tolerance = TOLERANCE_RATIO * target_s + TOLERANCE_UNITS * float(np.median(lengths))
    most = MAX_REPEATS if target_s > LOOP_RATIO * song.duration else 1
    left = np.append(lengths[::-1].cumsum()[::-1], 0.0)  # from unit u to the end
    run = rng.uniform(2.0, 16.0)
    heard, keeping = float(lengths[0]), True
    for u in range(1, n - 1):
        least_after, most_after = lengths[-1], most * (left[u + 1] - lengths[-1]) + lengths[-1]
        options = np.arange(MAX_REPEATS + 1)
        after = heard + options * lengths[u]
        short = np.maximum(target_s - tolerance - (after + most_after), 0)
        over = np.maximum(after + least_after - (target_s + tolerance), 0)
        # Where the target is out of reach, the options that stay nearest to it.
        options = options[short + over <= (short + over).min() + 1e-9]
        needed = float(np.clip((target_s - heard - lengths[-1]) / max(left[u] - lengths[-1], 1e-9), 0.02, 4.0))
        change = (1 - min(needed, 0.98)) / run if keeping else min(needed, 0.98) / run
        wanted = keeping != (rng.random() < 2 * change)
        repeat = 2 + int(rng.integers(3))
        loops = wanted and rng.random() < max(loop_share, (needed - 1) / 2)
        choice = (repeat if loops else 1) if wanted else 0
        choice = int(options[np.argmin(np.abs(options - choice))])
        keeping = choice > 0
        heard += choice * float(lengths[u])
        actions[u] = _random_action(choice, u, n, bool(rng.random() < reorder_share), rng)
    return actions


def random_edit(song: Song, target_s: float, *, rng: np.random.Generator) -> EditDecisionList:
    """A random edit that meets the target, see `random_unit_actions`."""
    if not np.isfinite(target_s) or target_s <= 0:
        raise ParameterError(f"target_s must be positive; got {target_s}")
    return edl_of(
        song, random_unit_actions(song, target_s, rng=rng), target_duration_s=target_s, model={"name": "random"}
    )

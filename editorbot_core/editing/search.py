"""Exhaustive search for edits of one to three joins.

An edit keeps the first and the last unit of a song and removes one, two or three ranges of units between them. All
edits of one and two joins at any units are tried, and those of three joins among the `STARTS_OF_THREE` likeliest phrase
starts; only edits that meet the target to `edits.TOLERANCE_RATIO` and half a unit count. The cost of an edit is

    sum over its joins of (join + context * c + step * s + harmony * h + bar_position * b + phase * p + phrase * q)
    + length * max(0, |duration / target - 1| - length_free) + coverage * share of the clusters never half heard

    c  what the listener hears change, beat by beat around the join (`joins.context_distances`); 1 at random places
    s  percentile of the feature step from the last beat heard to the first beat entered among the song's own steps
    h  distance of (chroma before the exit, chroma at the entry) to the nearest such pair at a line between two units of
       the song, so that changes of harmony that were heard before are free; 1 for a random pair of pairs
    b  1 if the place in the bar does not continue, else 0
    p  1 - phase_exit . phase_entry, the probability that the place mod 4 in the phrase does not continue
    q  1 - sqrt(end_exit start_entry), from the probabilities that a phrase starts at the entry and that one starts at
       the exit and another before it

where the *exit* is the unit that would have followed and the *entry* the one that follows instead, and the odds of all
probabilities are first raised to the power `sharpness`. Where the structure is unsure, p and q hardly differ between
joins: smoothness decides, and further joins do not pay.

Durations leave few ends for the last range once the others stand, so n units take about n^3 / 6 steps of several
operations. Songs of more than `joins.MAX_SEARCH_PLACES` units are searched at that many places: of every few units the
likeliest phrase start, and among those the units of the cheapest joins.

Actions repeat single units only, so a song cannot be made longer by playing a range twice; targets beyond the song are
left to `baselines.dp_unit_actions`.
"""

from typing import NamedTuple

import numba
import numpy as np

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP, TOLERANCE_RATIO, TOLERANCE_UNITS, played_units
from editorbot_core.editing.joins import DPWeights, SearchWeights, cheapest_join, choose_places, cost_of_joins
from editorbot_core.editing.outlook import outlook_of
from editorbot_core.editing.retargeting import dp_unit_actions
from editorbot_core.songs.song import Song

STARTS_OF_THREE = 26

# A phrase starts at a unit, as far as coverage is concerned, from this probability on.
LIKELY_START = 0.5

# Cheapest edits kept besides the cheapest with each join, for a choice of different ones.
_POOL = 1024
_MAX_POOL = 2048
_CANDIDATE_DIFFERENCE = 0.04


class ScoredEdit(NamedTuple):
    """An edit and what it costs.

    Attributes:
        actions: Action ids per unit, int64 (n_units,).
        cost: The lower the better; comparable between edits of one song, target and weights only.
    """

    actions: np.ndarray
    cost: float


class _Task(NamedTuple):
    """A search, in arrays for the compiled loop.

    Attributes:
        cost: float64 (n_places, n_places), of every join.
        times_s: float64 (n_places,), where each place begins.
        few: int64, places between which three joins are tried, rising.
        phrase_start_s: float64 (n_phrases,), sorted by cluster.
        phrase_end_s: float64 (n_phrases,).
        phrase_cluster: int64 (n_phrases,), 0, 1, ....
        surplus_s: What has to go.
        tolerance_s: By how much that may be missed.
        free_s: By how much it may be missed for nothing.
        length: Cost per second beyond that.
        coverage: Cost per cluster that is never half heard.
    """

    cost: np.ndarray
    times_s: np.ndarray
    few: np.ndarray
    phrase_start_s: np.ndarray
    phrase_end_s: np.ndarray
    phrase_cluster: np.ndarray
    surplus_s: float
    tolerance_s: float
    free_s: float
    length: float
    coverage: float


@numba.njit(cache=True)
def _lost_clusters(task: _Task, places: np.ndarray, n_ranges: int) -> int:  # pragma: no cover - compiled
    """Clusters of which no phrase is at least half heard once the ranges between `places` are removed."""
    lost, heard, current = 0, True, np.int64(-1)
    for p in range(len(task.phrase_cluster)):
        if task.phrase_cluster[p] != current:
            lost += not heard
            heard, current = False, task.phrase_cluster[p]
        if heard:
            continue
        start, end = task.phrase_start_s[p], task.phrase_end_s[p]
        removed = 0.0
        for r in range(n_ranges):
            begin_s, end_s = task.times_s[places[2 * r]], task.times_s[places[2 * r + 1]]
            removed += max(0.0, min(end, end_s) - max(start, begin_s))
        heard = removed <= 0.5 * (end - start) + 1e-9
    return lost + (not heard)


@numba.njit(cache=True)
def _offer(
    task: _Task,
    base: float,
    places: np.ndarray,
    n_ranges: int,
    found: np.ndarray,
    costs: np.ndarray,
    with_join: np.ndarray,
    edit_with_join: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Put an edit among the cheapest and make it the cheapest with each of its joins, if it is cheap enough.

    `base` is its cost without coverage; `places` hold begin and end of each range, -1 where there are fewer.
    """
    wanted = base < costs[-1]
    if len(with_join):
        for r in range(n_ranges):
            wanted = wanted or base < with_join[places[2 * r], places[2 * r + 1]]
    if not wanted:
        return
    cost = base + task.coverage * _lost_clusters(task, places, n_ranges)
    if len(with_join):
        for r in range(n_ranges):
            a, b = places[2 * r], places[2 * r + 1]
            if cost < with_join[a, b]:
                with_join[a, b] = cost
                for k in range(6):
                    edit_with_join[a, b, k] = places[k]
    if cost < costs[-1]:
        at = len(costs) - 1
        while at > 0 and costs[at - 1] > cost:
            costs[at] = costs[at - 1]
            for k in range(6):
                found[at, k] = found[at - 1, k]
            at -= 1
        costs[at] = cost
        for k in range(6):
            found[at, k] = places[k]


@numba.njit(cache=True)
def _search(
    task: _Task, found: np.ndarray, costs: np.ndarray, with_join: np.ndarray, edit_with_join: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Try all edits.

    Args:
        task: What to search.
        found: int64 (n_best, 6) to be filled with the cheapest edits, cheapest first: the places of begin and end of
            each range, -1 where there are fewer.
        costs: Infinities, float64 (n_best,), to be filled with what they cost.
        with_join: Infinities, float64 (n_places, n_places), to be filled with the cost of the cheapest edit with each
            join; (0, 0) if that is not wanted, and then joins too dear for the `n_best` cheapest are passed over early.
        edit_with_join: int64 (n_places, n_places, 6), those edits.
    """
    n = len(task.times_s)
    times, cost, few = task.times_s, task.cost, task.few
    surplus, tolerance = task.surplus_s, task.tolerance_s
    places = np.full(6, -1, dtype=np.int64)
    prune = len(with_join) == 0

    # Cheapest join that leaves at a place, and at it or later.
    leaving = np.full(n + 2, np.inf)
    later = np.full(n + 2, np.inf)
    for a in range(n - 1, -1, -1):
        for b in range(a + 1, n):
            leaving[a] = min(leaving[a], cost[a, b])
        later[a] = min(later[a + 1], leaving[a])

    if abs(surplus) <= tolerance:
        base = task.length * max(0.0, abs(surplus) - task.free_s)
        _offer(task, base, places, 0, found, costs, with_join, edit_with_join)
    for a in range(n):
        for b in range(a + 1, n):
            left = surplus - (times[b] - times[a])
            if left < -tolerance:
                break
            first = cost[a, b]
            places[0], places[1] = a, b
            # c = b stands for no second range.
            low = b + 2
            for c in range(b, n):
                if c == b:
                    if left <= tolerance:
                        base = first + task.length * max(0.0, abs(left) - task.free_s)
                        places[2], places[3] = -1, -1
                        _offer(task, base, places, 1, found, costs, with_join, edit_with_join)
                    if prune and first + later[b + 1] >= costs[-1]:
                        break
                    continue
                while low < n and times[low] - times[c] < left - tolerance:
                    low += 1
                if low == n:
                    break
                if prune and first + leaving[c] >= costs[-1]:
                    continue
                for d in range(max(low, c + 1), n):
                    missed = left - (times[d] - times[c])
                    if missed < -tolerance:
                        break
                    base = first + cost[c, d] + task.length * max(0.0, abs(missed) - task.free_s)
                    if base < costs[-1] or (not prune and (base < with_join[a, b] or base < with_join[c, d])):
                        places[2], places[3] = c, d
                        _offer(task, base, places, 2, found, costs, with_join, edit_with_join)

    for i in range(len(few)):
        for j in range(i + 1, len(few)):
            left_1 = surplus - (times[few[j]] - times[few[i]])
            cost_1 = cost[few[i], few[j]]
            if left_1 < -tolerance:
                break
            if prune and cost_1 + later[few[j]] >= costs[-1]:
                continue
            for k in range(j + 1, len(few)):
                for m in range(k + 1, len(few)):
                    left_2 = left_1 - (times[few[m]] - times[few[k]])
                    cost_2 = cost_1 + cost[few[k], few[m]]
                    if left_2 < -tolerance:
                        break
                    if prune and cost_2 + later[few[m]] >= costs[-1]:
                        continue
                    for p in range(m + 1, len(few)):
                        for q in range(p + 1, len(few)):
                            missed = left_2 - (times[few[q]] - times[few[p]])
                            if missed < -tolerance:
                                break
                            if missed <= tolerance:
                                base = cost_2 + cost[few[p], few[q]]
                                base += task.length * max(0.0, abs(missed) - task.free_s)
                                places[0], places[1], places[2] = few[i], few[j], few[k]
                                places[3], places[4], places[5] = few[m], few[p], few[q]
                                _offer(task, base, places, 3, found, costs, with_join, edit_with_join)


class _Phrases(NamedTuple):
    """Predicted phrases, sorted by cluster: begin and end in seconds, float64, and cluster 0, 1, ..., int64."""

    start_s: np.ndarray
    end_s: np.ndarray
    cluster: np.ndarray


def _phrases(song: Song) -> _Phrases:
    """Runs of units of one cluster, divided where a phrase start is likely."""
    structure = song.structure
    starts = (structure.phrase_start >= LIKELY_START) | (np.diff(structure.cluster, prepend=-1) != 0)
    starts[0] = True
    first = np.flatnonzero(starts)
    bounds = song.units.bounds(song.grid)
    cluster = np.unique(structure.cluster[first], return_inverse=True)[1].astype(np.int64)
    order = np.argsort(cluster, kind="stable")
    ends = bounds[np.append(first[1:], song.units.n_units)]
    return _Phrases(bounds[first][order], ends[order], cluster[order])


def _tolerance_s(song: Song, target_s: float) -> float:
    return TOLERANCE_RATIO * target_s + TOLERANCE_UNITS * float(np.median(song.unit_durations))


def _task(song: Song, target_s: float, places: np.ndarray, weights: SearchWeights) -> _Task:
    cost = cost_of_joins(song, places, weights)
    likely = -song.structure.phrase_start[places] if weights.phrase > 0 else cheapest_join(cost)
    few = np.sort(np.argsort(likely, kind="stable")[:STARTS_OF_THREE])
    phrases = _phrases(song)
    return _Task(
        cost=cost,
        times_s=song.units.bounds(song.grid)[places],
        few=few.astype(np.int64),
        phrase_start_s=phrases.start_s,
        phrase_end_s=phrases.end_s,
        phrase_cluster=phrases.cluster,
        surplus_s=song.duration - target_s,
        tolerance_s=_tolerance_s(song, target_s),
        free_s=weights.length_free * target_s,
        length=weights.length / target_s,
        coverage=weights.coverage / (int(phrases.cluster.max()) + 1),
    )


class _Found(NamedTuple):
    """Edits by cost: places of units, int64 (n, 6) with -1 where there are fewer ranges, and costs float64 (n,)."""

    ranges: np.ndarray
    costs: np.ndarray


def _sorted(ranges: np.ndarray, costs: np.ndarray) -> _Found:
    """Cheapest first, each once; what costs the same is ordered by where it cuts."""
    order = np.lexsort((*ranges.T[::-1], costs))
    ranges, costs = ranges[order], costs[order]
    new = np.ones(len(costs), dtype=bool)
    new[1:] = (ranges[1:] != ranges[:-1]).any(axis=1)
    return _Found(ranges[new], costs[new])


def _enumerate(song: Song, target_s: float, weights: SearchWeights, n_best: int, *, every_join: bool) -> _Found:
    """The `n_best` cheapest edits, and the cheapest edit with each join if asked for; ranges in units."""
    places = choose_places(song, weights)
    task = _task(song, target_s, places, weights)
    n = len(places) if every_join else 0
    found, costs = np.full((n_best, 6), -1, dtype=np.int64), np.full(n_best, np.inf)
    with_join, edit_with_join = np.full((n, n), np.inf), np.full((n, n, 6), -1, dtype=np.int64)
    _search(task, found, costs, with_join, edit_with_join)
    filled, reached = np.isfinite(costs), np.isfinite(with_join)
    both = _sorted(
        np.concatenate([found[filled], edit_with_join[reached]]), np.concatenate([costs[filled], with_join[reached]])
    )
    return _Found(np.where(both.ranges >= 0, places[both.ranges], -1), both.costs)


def _actions(ranges: np.ndarray, n_units: int) -> np.ndarray:
    """Action ids per unit of edits given by removed ranges (n, 6), int64 (n, n_units)."""
    unit = np.arange(n_units)
    cut = np.zeros((len(ranges), n_units), dtype=bool)
    for begin, end in ((0, 1), (2, 3), (4, 5)):
        cut |= (unit >= ranges[:, begin, None]) & (unit < ranges[:, end, None])
    return np.where(cut, CUT, KEEP).astype(np.int64)


def _apart(actions: np.ndarray, n: int, min_difference: float) -> np.ndarray:
    """Rows, at most `n`, each of which treats that share of the units unlike every earlier one, int64."""
    # Units between which no edit changes its mind are one column.
    first = np.flatnonzero(np.append(True, (actions[:, 1:] != actions[:, :-1]).any(axis=0)))
    lengths = np.diff(np.append(first, actions.shape[1]))
    cut = ((actions[:, first] == CUT) * np.sqrt(lengths)).astype(np.float32)
    size = (cut * cut).sum(axis=1)
    alive = np.ones(len(actions), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < n and alive.any():
        row = int(alive.argmax())
        chosen.append(row)
        alive &= (size + size[row] - 2 * cut @ cut[row]) / actions.shape[1] >= min_difference - 1e-5
        alive[row] = False
    return np.array(chosen, dtype=np.int64)


def edit_cost(song: Song, actions: np.ndarray, target_s: float, *, weights: SearchWeights) -> float:
    """What any edit costs, by the order in which it plays the units; see the module.

    The search keeps both ends of a song. Elsewhere a lost start or end costs as much as the worst join.

    Args:
        song: The song.
        actions: Action ids per unit, int64 (n_units,), of which at least one unit is played.
        target_s: Duration asked for, s.
        weights: What counts.
    """
    played = played_units(actions)
    if not len(played):
        raise ParameterError("an edit that plays nothing has no cost; keep at least one unit")
    after, entry = played[:-1] + 1, played[1:]
    joins = after != entry
    after, entry = np.minimum(after[joins], song.units.n_units - 1), entry[joins]
    places = np.unique(np.concatenate([after, entry]))
    cost = 0.0
    if len(places):
        table = cost_of_joins(song, places, weights)
        cost = float(table[np.searchsorted(places, after), np.searchsorted(places, entry)].sum())
    n_lost = int(played[0] != 0) + int(played[-1] != song.units.n_units - 1)
    cost += n_lost * weights.worst_join
    missed = abs(float(song.unit_durations[played].sum()) / target_s - 1.0)
    cost += weights.length * max(0.0, missed - weights.length_free)
    phrases = _phrases(song)
    bounds = song.units.bounds(song.grid)
    heard: dict[int, bool] = {}
    silent = np.setdiff1d(np.arange(song.units.n_units), played)
    for start, end, cluster in zip(*phrases, strict=True):
        removed = np.clip(np.minimum(bounds[silent + 1], end) - np.maximum(bounds[silent], start), 0, None).sum()
        heard[int(cluster)] = heard.get(int(cluster), False) or bool(removed <= 0.5 * (end - start) + 1e-9)
    return cost + weights.coverage * (1.0 - sum(heard.values()) / len(heard))


def _without_ranges(song: Song, target_s: float, weights: SearchWeights, n: int) -> list[ScoredEdit]:
    """Up to `n` edits by dynamic programming, for targets that removing ranges does not meet: longer than the song."""
    rng = np.random.default_rng(0)
    structural = DPWeights(
        context_beats=weights.context_beats,
        bar_position=weights.bar_position,
        phrase=weights.phrase,
        phase=weights.phase,
        jump=weights.join,
    )
    edits: dict[bytes, ScoredEdit] = {}
    for attempt in range(n):
        dp = structural if attempt == 0 else DPWeights.sample(rng)
        actions = dp_unit_actions(song, target_s, weights=dp, rng=rng)
        cost = edit_cost(song, actions, target_s, weights=weights)
        edits.setdefault(actions.tobytes(), ScoredEdit(actions, cost))
    return sorted(edits.values(), key=lambda edit: edit.cost)


def _check(target_s: float, n: int) -> None:
    if not np.isfinite(target_s) or target_s <= 0:
        raise ParameterError(f"target_s must be positive; got {target_s}")
    if n < 1:
        raise ParameterError(f"at least one edit has to be asked for; got {n}")


def _reachable(song: Song, target_s: float) -> bool:
    """Whether the song is long enough to be cut, and to the target."""
    return song.units.n_units >= 3 and target_s <= song.duration + _tolerance_s(song, target_s)


def search_edits(
    song: Song, target_s: float, *, weights: SearchWeights, n_best: int = 1, min_difference: float = 0.0
) -> list[ScoredEdit]:
    """The cheapest edits, cheapest first; fewer than `n_best` if there are no more.

    Where no edit of up to three joins meets the target (it is longer than the song, or units are very uneven), the
    edits are those of `baselines.dp_unit_actions`, and one is tried per edit wanted, up to 16.

    Args:
        song: What to edit.
        target_s: Duration asked for, s.
        weights: What counts.
        n_best: How many, at least 1.
        min_difference: Share of the units, in [0, 1], that every edit treats unlike each cheaper one. Above 0, edits
            are chosen from the 1024 cheapest and the cheapest with each join.

    Raises:
        ParameterError: If a number is out of range.
    """
    _check(target_s, n_best)
    if not 0.0 <= min_difference <= 1.0:
        raise ParameterError(f"min_difference is a share of the units, 0 to 1; got {min_difference}")
    diverse = min_difference > 0
    if _reachable(song, target_s):
        n_kept = max(n_best, _POOL) if diverse and n_best > 1 else n_best
        found = _enumerate(song, target_s, weights, n_kept, every_join=diverse and n_best > 1)
        if len(found.costs):
            actions = _actions(found.ranges, song.units.n_units)
            rows = _apart(actions, n_best, min_difference) if diverse else np.arange(min(n_best, len(actions)))
            return [ScoredEdit(actions[row], float(found.costs[row])) for row in rows]
    edits = _without_ranges(song, target_s, weights, min(n_best, 16))
    rows = _apart(np.stack([edit.actions for edit in edits]), n_best, min_difference)
    return [edits[row] for row in rows]


def candidate_edits(
    song: Song, target_s: float, *, weights: SearchWeights, n_candidates: int = 256
) -> list[ScoredEdit]:
    """Cheap edits that differ, cheapest first, for something else to choose from.

    They come from the 1024 cheapest edits and the cheapest with each join, so that every part of the song is joined
    somewhere. Each treats 4 % of the units unlike every cheaper one; where that leaves too few, half of that, and
    so on.

    Args:
        song: What to edit.
        target_s: Duration asked for, s.
        weights: What counts.
        n_candidates: How many, at least 1; fewer come back if there are no more.

    Raises:
        ParameterError: If a number is out of range.
    """
    _check(target_s, n_candidates)
    if not _reachable(song, target_s):
        return search_edits(song, target_s, weights=weights, n_best=n_candidates)
    found = _enumerate(song, target_s, weights, max(_POOL, n_candidates), every_join=True)
    if not len(found.costs):
        return search_edits(song, target_s, weights=weights, n_best=n_candidates)
    pool = max(_MAX_POOL, n_candidates)
    actions, costs = _actions(found.ranges[:pool], song.units.n_units), found.costs[:pool]
    difference = _CANDIDATE_DIFFERENCE
    while True:
        rows = _apart(actions, n_candidates, difference)
        if len(rows) == min(n_candidates, len(actions)):
            return [ScoredEdit(actions[row], float(costs[row])) for row in rows]
        difference = difference / 2 if difference * song.units.n_units > 1 else 0.0


def warm_up() -> None:
    """Compile every kernel that searching and looking ahead use, or load it from numba's cache."""
    n_beats = 64
    grid = BeatGrid(0.5 * np.arange(n_beats), np.arange(n_beats) % 4 + 1, 0.5 * n_beats)
    units = Units.bars(grid)
    values = np.random.default_rng(0).standard_normal((n_beats, N_FEATURES)).astype(np.float32)
    structure = Structure(
        phrase_start=np.full(units.n_units, 0.5, dtype=np.float32),
        phase=np.full((units.n_units, 4), 0.25, dtype=np.float32),
        cluster=np.zeros(units.n_units, dtype=np.int64),
        confidence=1.0,
    )
    song = Song("", "", "", BeatFeatures(values, grid), units, structure)
    search_edits(song, 0.5 * song.duration, weights=SearchWeights.full())
    candidate_edits(song, 0.5 * song.duration, weights=SearchWeights.full(), n_candidates=2)
    dp_unit_actions(song, 0.5 * song.duration)
    outlook_of(song)


if __name__ == "__main__":
    # Kernels are cached under the name of their module, which is not `__main__`.
    from editorbot_core.editing import search

    search.warm_up()

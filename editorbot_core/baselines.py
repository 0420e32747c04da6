"""Editors that learn nothing: what every learned editor is compared with, and what a warm start imitates.

An `Editor` takes a song and a target duration in seconds and returns an `EditDecisionList`. The retargeting editors
search for the cheapest path through the units of a song (Schoedl et al. 2000, video textures; Wenner et al. 2013,
scalable music): playing on costs nothing, a *join* from unit `i` to unit `j != i + 1` costs what the listener would
hear change, and the path has to last as long as was asked for. Costs are in units of the mean squared difference
between two random places of the same song, so that one setting serves quiet and busy songs alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numba
import numpy as np

from editorbot_core.edits import CUT, KEEP, LOOP_2, REORDER_1, EditDecisionList, Segment, Units
from editorbot_core.errors import ParameterError
from editorbot_core.features import FEATURE_INDEX, FEATURE_NAMES
from editorbot_core.songs import Song

Editor = Callable[[Song, float], EditDecisionList]

FADE_OUT_S = 3.0
# Actions may lengthen a song only from here on: below it, repeats would have to be bought back with more cuts.
LOOP_RATIO = 0.95
MAX_REPEATS = 4
# Places between which joins are looked for; longer songs are searched in blocks of several units.
MAX_PLACES = 1200
# Fewest and most steps into which the target duration is divided; between them, four to a unit.
DURATION_STEPS = (1000, 4000)
# An edit meets its target if it misses it by no more than this share of it and half a unit.
TOLERANCE = 0.015
# Cost per target of missing it by more than the tolerance: above that of any number of joins.
_OUT_OF_TOLERANCE = 1e6

_TIMBRE = tuple(i for i, name in enumerate(FEATURE_NAMES) if name.startswith("mfcc_") and name.count("_") == 1)
_HARMONY = tuple(i for i, name in enumerate(FEATURE_NAMES) if name.startswith("chroma_") and name.count("_") == 1)
_LEVEL = tuple(
    FEATURE_INDEX[name]
    for name in ("onset_strength", "rms", "drums_energy", "bass_energy", "vocals_energy", "other_energy")
)


@dataclass(frozen=True)
class DPWeights:
    """What a join costs. The default listens only; it knows neither bars nor phrases.

    Attributes:
        timbre: Weight of the MFCC difference.
        harmony: Weight of the chroma difference.
        level: Weight of the difference in loudness, onset strength and stem energies.
        context_beats: Beats compared on either side of a join.
        jump: Cost of any join.
        length: Cost per target of missing it within the tolerance, so a hundredth of it per percent.
        bar_position: Cost of a join at which the place in the bar does not continue.
        phrase: Cost of a join away from phrase starts, by `Structure.phrase_start`.
        phase: Cost of a join at which the place in the phrase mod 4 does not continue, by `Structure.phase`.
        noise: Standard deviation of a log-normal disturbance of the join costs; needs an `rng`.
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
        """Check that every weight is a non-negative number and that something is listened to."""
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


class JoinCosts(NamedTuple):
    """What joins between the units of a song cost.

    Attributes:
        jump: float32 (n_units, n_units), cost of playing unit `j` after unit `i`; 0 where `j = i + 1`.
        loop: float32 (n_units,), cost of playing unit `i` after itself.
    """

    jump: np.ndarray
    loop: np.ndarray


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns of zero mean and unit variance; a constant column becomes 0."""
    values = values.astype(np.float64)
    spread = values.std(0)
    usable = spread > 1e-9 * (1.0 + np.abs(values).max(0))
    return np.where(usable, (values - values.mean(0)) / np.where(usable, spread, 1.0), 0.0)


def _weighted_features(values: np.ndarray, weights: DPWeights) -> np.ndarray:
    """Features scaled so that the mean squared distance of two random beats is 1, float32 (n_beats, n_columns)."""
    groups = ((_TIMBRE, weights.timbre), (_HARMONY, weights.harmony), (_LEVEL, weights.level))
    total = sum(weight for _, weight in groups)
    # Two independent draws of a standardised column differ by 2 in the mean square.
    scaled = [_standardised(values[:, list(g)]) * np.sqrt(weight / (2 * total * len(g))) for g, weight in groups]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of every row of `a` to every row of `b`."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squared, 0, out=squared)


def context_distances(values: np.ndarray, exits: np.ndarray, entries: np.ndarray, *, weights: DPWeights) -> np.ndarray:
    """How much a listener would hear change at every join from `exits` to `entries`, float32 (n_exits, n_entries).

    What is heard after the join is compared with what would have followed the exit, and what was heard before the join
    with what precedes the entry in the source, beat by beat with weight falling as 1 / distance. The differences are
    squared, so that two joins which can hardly be heard are cheaper than one that can. 1 is the mean of two random
    places.

    Args:
        values: Features, (n_beats, 121).
        exits: Beats that would have followed, int64 (n_exits,).
        entries: Beats that follow instead, int64 (n_entries,).
        weights: Of timbre, harmony and level, and how many beats of context; the rest is not read.
    """
    x = _weighted_features(values, weights)
    last_row = len(x) - 1
    distances = np.zeros((len(exits), len(entries)), dtype=np.float32)
    share = 1.0 / np.arange(1, weights.context_beats + 1)
    share /= 2 * share.sum()
    for k, part in enumerate(share):
        after = _squared_distances(x[np.minimum(exits + k, last_row)], x[np.minimum(entries + k, last_row)])
        before = _squared_distances(x[np.maximum(exits - 1 - k, 0)], x[np.maximum(entries - 1 - k, 0)])
        distances += np.float32(part) * (after + before)
    return distances


def join_costs(song: Song, units: Units, *, weights: DPWeights, rng: np.random.Generator | None = None) -> JoinCosts:
    """Cost of every join between `units` of `song`: what the listener hears change, and what `weights` add to it.

    Args:
        song: Features and structure.
        units: Any grouping of the song's beats; structure terms are read at the song's own unit of each beat.
        weights: What counts.
        rng: Source of the disturbance, needed if `weights.noise` is not 0.
    """
    entry = units.first_beats
    # The beat that would have followed each unit; after the last unit the song stays at its last beat.
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
    tolerance = TOLERANCE + 0.5 * unit_s / reach_s
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
    return song.edl(np.full(song.units.n_units, KEEP), target_duration_s=target_s, model={"name": "keep_all"})


def truncate_and_fade(song: Song, target_s: float) -> EditDecisionList:
    """The first `target_s` seconds with a fade-out of `FADE_OUT_S`; the whole song if it is no longer than that."""
    if target_s >= song.duration:
        return replace(keep_all(song, target_s), model={"name": "truncate_fade"})
    bounds = song.units.bounds(song.grid)
    heard = (bounds[:-1] + bounds[1:]) / 2 < target_s
    heard[0] = True
    edl = song.edl(np.where(heard, KEEP, CUT), target_duration_s=target_s, model={"name": "truncate_fade"})
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
        return song.edl(actions, target_duration_s=target_s, model=model)
    bounds = song.units.bounds(song.grid)
    after, entry = np.meshgrid(places, places, indexing="ij")
    missed = np.abs(song.duration - (bounds[entry] - bounds[after]) - target_s)
    missed[entry < after] = np.inf
    bar_s = float(np.median(np.diff(bounds[np.append(np.flatnonzero(on_bar), n)])))
    near = missed <= max(missed.min() + 1e-9, bar_s / 2)
    cost = np.where(near, join_costs(song, song.units, weights=DPWeights()).jump[after - 1, entry], np.inf)
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    actions[after[best] : entry[best]] = CUT
    return song.edl(actions, target_duration_s=target_s, model=model)


def dp_bars(song: Song, target_s: float) -> EditDecisionList:
    """Dynamic-programming retargeting over the song's units, bars as a rule."""
    return song.edl(dp_unit_actions(song, target_s), target_duration_s=target_s, model={"name": "dp_bars"})


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
    tolerance = TOLERANCE * target_s + 0.5 * float(np.median(lengths))
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
    return song.edl(random_unit_actions(song, target_s, rng=rng), target_duration_s=target_s, model={"name": "random"})

"""Baselines: editors that need no training, to compare learned editors with.

An `Editor` takes a song and a target duration in seconds and returns an `EditDecisionList`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import (
    CUT,
    KEEP,
    LOOP_2,
    LOOP_RATIO,
    MAX_REPEATS,
    REORDER_1,
    TOLERANCE_RATIO,
    TOLERANCE_UNITS,
    EditDecisionList,
    edl_of,
)
from editorbot_core.editing.joins import DPWeights, SearchWeights
from editorbot_core.editing.retargeting import dp_unit_actions, join_costs, retarget
from editorbot_core.editing.search import search_edits
from editorbot_core.songs.song import Song

Editor = Callable[[Song, float], EditDecisionList]
# Length of the fade-out of `truncate_and_fade`, s.
FADE_OUT_S = 3.0


def keep_all(song: Song, target_s: float) -> EditDecisionList:
    """The whole song, whatever the target."""
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
    """One cut from bar to bar: of the cuts that meet the target, the one with the cheapest join.

    A cut meets the target if the edit is within half a bar of it; if there is none, the cuts that come nearest count.
    If the whole song is nearest, it is kept.
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
    """Dynamic-programming retargeting over the song's units, usually bars."""
    return edl_of(song, dp_unit_actions(song, target_s), target_duration_s=target_s, model={"name": "dp_bars"})


def dp_beats(song: Song, target_s: float) -> EditDecisionList:
    """Dynamic-programming retargeting over single beats, which ignores bars."""
    units = Units.beats(song.grid.n_beats)
    return EditDecisionList.from_unit_actions(
        retarget(song, units, target_s, DPWeights(), None),
        grid=song.grid,
        units=units,
        track_id=song.track_id,
        source_path=song.path,
        source_sha256=song.sha256,
        target_duration_s=target_s,
        model={"name": "dp_beats"},
    )


def _random_action(repeats: int, u: int, n: int, move: bool, rng: np.random.Generator) -> int:
    """The action id that plays unit `u` of `n` `repeats` times, moved later at random if `move` is true."""
    if repeats != 1:
        return CUT if repeats == 0 else LOOP_2 + repeats - 2
    furthest = min(4, n - 2 - u)
    if move and furthest >= 1:
        return REORDER_1 + int(rng.integers(furthest))
    return KEEP


def random_unit_actions(
    song: Song, target_s: float, *, rng: np.random.Generator, loop_share: float = 0.02, reorder_share: float = 0.02
) -> np.ndarray:
    """A random walk that keeps and cuts runs of units and can still meet the target at every step.

    Runs have a random mean length between 2 and 16 units. The first and the last unit are kept; others are repeated or
    moved with the given probabilities, and repeated more often if the rest of the song is too short for the target.

    Args:
        song: What to edit.
        target_s: Requested duration, s; met to 1.5 % and half a unit if possible.
        rng: Random generator.
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
        # If the target is out of reach, the options that stay nearest to it.
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


def _edl(song: Song, target_s: float, weights: SearchWeights, name: str) -> EditDecisionList:
    actions = search_edits(song, target_s, weights=weights)[0].actions
    return edl_of(song, actions, target_duration_s=target_s, model={"name": name})


def search_acoustic(song: Song, target_s: float) -> EditDecisionList:
    """The smoothest edit of one to three joins, without regard to phrases."""
    return _edl(song, target_s, SearchWeights.acoustic(), "search_acoustic")


def search_structure(song: Song, target_s: float) -> EditDecisionList:
    """The edit of one to three joins that is smooth, keeps phrases whole and covers most of the material."""
    return _edl(song, target_s, SearchWeights.full(), "search_structure")


BASELINES: dict[str, Editor] = {
    "keep_all": keep_all,
    "truncate_fade": truncate_and_fade,
    "one_cut": one_cut,
    "dp_beats": dp_beats,
    "dp_bars": dp_bars,
    "search_acoustic": search_acoustic,
    "search_structure": search_structure,
}

"""The search finds what trying everything finds, and its edits meet the target."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP, TOLERANCE_RATIO, edl_of
from editorbot_core.editing.joins import MAX_SEARCH_PLACES, SearchWeights
from editorbot_core.editing.search import STARTS_OF_THREE, candidate_edits, edit_cost, search_edits
from tests.core.editing.conftest import guessed_song, missed_s

ROOT = Path(__file__).parents[3]
PRESETS = {"acoustic": SearchWeights.acoustic(), "light": SearchWeights.light(), "full": SearchWeights.full()}


def tolerance_s(song, target_s):
    return TOLERANCE_RATIO * target_s + 0.5 * float(np.median(song.unit_durations))


def naive_edits(song, target_s, max_ranges):
    """Every edit that removes up to so many ranges and meets the target, by trying all subsets of edges."""
    n = song.units.n_units
    for n_ranges in range(max_ranges + 1):
        for edges in combinations(range(1, n), 2 * n_ranges):
            actions = np.full(n, KEEP)
            for begin, end in zip(edges[::2], edges[1::2], strict=True):
                actions[begin:end] = CUT
            if missed_s(song, actions, target_s) <= tolerance_s(song, target_s):
                yield actions


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("preset", ["acoustic", "full"])
def test_one_and_two_joins_are_as_good_as_trying_everything(seed, preset):
    # Three joins are dear here, so that the naive edits, of one and two, hold the cheapest.
    weights = replace(PRESETS[preset], join=30.0)
    song = guessed_song(13, seed=seed, pickup=seed % 2)
    target_s = (0.35, 0.5, 0.7, 0.9)[seed] * song.duration
    naive = sorted((edit_cost(song, a, target_s, weights=weights), a.tobytes()) for a in naive_edits(song, target_s, 2))
    found = search_edits(song, target_s, weights=weights, n_best=20)
    np.testing.assert_allclose([edit.cost for edit in found], [cost for cost, _ in naive[:20]], rtol=1e-5)
    assert found[0].actions.tobytes() == naive[0][1]


def test_three_joins_are_as_good_as_trying_everything():
    # Few enough units that all of them are among the likeliest starts.
    weights = replace(SearchWeights.full(), join=0.0, length=300.0, length_free=0.0)
    song = guessed_song(11, seed=3)
    assert song.units.n_units <= STARTS_OF_THREE
    target_s = 0.45 * song.duration
    costs = [edit_cost(song, a, target_s, weights=weights) for a in naive_edits(song, target_s, 3)]
    found = search_edits(song, target_s, weights=weights, n_best=len(costs) + 1)
    np.testing.assert_allclose([edit.cost for edit in found], sorted(costs), rtol=1e-5)
    n_ranges = [int((np.diff((edit.actions == CUT).astype(int)) == 1).sum()) for edit in found]
    assert set(n_ranges) == {1, 2, 3}


def test_clusters_that_are_never_half_heard_are_paid_for():
    song = guessed_song(24, phrase_bars=[4] * 6, n_materials=3)
    weights = replace(SearchWeights(*[0.0] * 10), coverage=3.0)

    def cost(*cut):
        actions = np.full(24, KEEP)
        actions[list(cut)] = CUT
        return edit_cost(song, actions, song.duration, weights=weights)

    # Bars 4-7 and 16-19 are of one material, 8-11 and 20-23 of another.
    assert cost(*range(4, 8)) == 0.0
    assert cost(*range(4, 8), *range(16, 18)) == 0.0
    assert cost(*range(4, 8), *range(16, 19)) == pytest.approx(1.0)
    assert cost(*range(4, 11), *range(16, 23)) == pytest.approx(2.0)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("units_of_beats", [False, True])
def test_edits_start_and_end_as_the_song_and_last_as_long_as_asked(ratio, units_of_beats):
    song = guessed_song(24, pickup=2, units_of_beats=units_of_beats, seed=7)
    target_s = ratio * song.duration
    for weights in PRESETS.values():
        edits = search_edits(song, target_s, weights=weights, n_best=30)
        assert len(edits) == 30 or ratio > 0.9
        assert [edit.cost for edit in edits] == sorted(edit.cost for edit in edits)
        assert len({edit.actions.tobytes() for edit in edits}) == len(edits)
        for actions, cost in edits:
            assert actions.dtype == np.int64 and actions.shape == (song.units.n_units,)
            assert actions[0] == KEEP and actions[-1] == KEEP
            assert set(actions.tolist()) <= {KEEP, CUT}
            assert missed_s(song, actions, target_s) <= tolerance_s(song, target_s) + 1e-6
            assert cost == pytest.approx(edit_cost(song, actions, target_s, weights=weights), rel=1e-5, abs=1e-6)


def test_nothing_is_cut_where_nothing_has_to_be():
    song = guessed_song(24)
    assert (search_edits(song, song.duration, weights=SearchWeights.full())[0].actions == KEEP).all()


@pytest.mark.parametrize("ratio", [0.01, 1.2, 3.0])
@pytest.mark.parametrize("n_bars", [1, 2, 3, 20])
def test_every_target_gets_an_edit(ratio, n_bars):
    song = guessed_song(n_bars)
    target_s = ratio * song.duration
    for edits in (
        search_edits(song, target_s, weights=SearchWeights.full(), n_best=4),
        candidate_edits(song, target_s, weights=SearchWeights.full(), n_candidates=4),
    ):
        assert 1 <= len(edits) <= 4
        assert [edit.cost for edit in edits] == sorted(edit.cost for edit in edits)
        assert all((edit.actions != CUT).any() for edit in edits)
    if ratio > 1 and n_bars == 20:
        assert missed_s(song, np.where(edits[0].actions == CUT, CUT, KEEP), song.duration) >= 0
        assert edl_of(song, edits[0].actions, target_duration_s=target_s).duration_s == pytest.approx(
            target_s, rel=0.05
        )


def test_searching_twice_gives_the_same():
    song = guessed_song(40, seed=4)
    for find in (
        lambda: search_edits(song, 30.0, weights=SearchWeights.full(), n_best=50, min_difference=0.05),
        lambda: candidate_edits(song, 30.0, weights=SearchWeights.light(), n_candidates=60),
        lambda: search_edits(song, 100.0, weights=SearchWeights.full(), n_best=3),
    ):
        first, second = find(), find()
        assert [(e.actions.tobytes(), e.cost) for e in first] == [(e.actions.tobytes(), e.cost) for e in second]


def test_raising_any_weight_never_makes_the_best_edit_cheaper():
    song = guessed_song(24, seed=6, pickup=1, units_of_beats=True)
    target_s = 0.6 * song.duration
    base = SearchWeights.full()
    cheapest = search_edits(song, target_s, weights=base)[0].cost
    for name in ("context", "step", "harmony", "bar_position", "phase", "phrase", "join", "length", "coverage"):
        dearer = replace(base, **{name: 2 * getattr(base, name) + 0.1})
        assert search_edits(song, target_s, weights=dearer)[0].cost >= cheapest - 1e-9, name


def differences(edits):
    cut = np.stack([edit.actions == CUT for edit in edits])
    return (cut[:, None] != cut[None]).mean(axis=2) + np.eye(len(edits))


def test_different_edits_are_as_different_as_asked():
    song = guessed_song(50, seed=8)
    target_s = 0.5 * song.duration
    plain = search_edits(song, target_s, weights=SearchWeights.full(), n_best=12)
    apart = search_edits(song, target_s, weights=SearchWeights.full(), n_best=12, min_difference=0.2)
    assert len(apart) == 12
    assert differences(apart).min() >= 0.2
    assert apart[0].actions.tobytes() == plain[0].actions.tobytes()
    assert apart[-1].cost > plain[-1].cost


def test_candidates_differ_and_join_all_over_the_song():
    song = guessed_song(60, seed=10)
    target_s = 0.5 * song.duration
    candidates = candidate_edits(song, target_s, weights=SearchWeights.full(), n_candidates=100)
    assert len(candidates) == 100
    assert [c.cost for c in candidates] == sorted(c.cost for c in candidates)
    assert differences(candidates).min() >= 0.03
    best = search_edits(song, target_s, weights=SearchWeights.full())[0]
    assert candidates[0].actions.tobytes() == best.actions.tobytes()
    joins = {int(at) for c in candidates for at in np.flatnonzero(np.diff(c.actions)) + 1}
    assert len(joins) > 30


def test_a_long_song_is_searched_in_fewer_places():
    song = guessed_song(2 * MAX_SEARCH_PLACES, seed=12)
    target_s = 0.5 * song.duration
    search_edits(song, target_s, weights=SearchWeights.full())
    began = time.perf_counter()
    best = search_edits(song, target_s, weights=SearchWeights.full())[0]
    assert time.perf_counter() - began < 10.0
    assert missed_s(song, best.actions, target_s) <= tolerance_s(song, target_s)
    longest = guessed_song(1800, seed=13)
    edit = search_edits(longest, 0.3 * longest.duration, weights=SearchWeights.acoustic())[0]
    assert missed_s(longest, edit.actions, 0.3 * longest.duration) <= tolerance_s(longest, 0.3 * longest.duration)


def test_values_that_make_no_sense_are_refused():
    song = guessed_song(12)
    with pytest.raises(ParameterError, match="non-negative"):
        SearchWeights(phase=-1.0)
    with pytest.raises(ParameterError, match="context_beats"):
        SearchWeights(context_beats=0)
    for target_s in (0.0, np.nan, np.inf):
        with pytest.raises(ParameterError, match="target_s"):
            search_edits(song, target_s, weights=SearchWeights.full())
    with pytest.raises(ParameterError, match="at least one"):
        candidate_edits(song, 10.0, weights=SearchWeights.full(), n_candidates=0)
    with pytest.raises(ParameterError, match="0 to 1"):
        search_edits(song, 10.0, weights=SearchWeights.full(), min_difference=2.0)
    with pytest.raises(ParameterError, match="plays nothing"):
        edit_cost(song, np.full(12, CUT), 10.0, weights=SearchWeights.full())


def test_a_lost_start_or_end_costs_as_much_as_the_worst_join(synthetic_song):
    song, weights = synthetic_song(2), SearchWeights(coverage=0.0)
    actions = np.full(song.units.n_units, KEEP)
    whole = edit_cost(song, actions, song.duration, weights=weights)
    for lost in ([0], [-1], [0, -1]):
        shorter = actions.copy()
        shorter[lost] = CUT
        heard = song.unit_durations[shorter == KEEP].sum()
        found = edit_cost(song, shorter, heard, weights=weights)
        assert found == pytest.approx(whole + len(lost) * weights.worst_join)


_WARM = """
import sys
from pathlib import Path
from editorbot_core.editing.edits import KEEP
from editorbot_core.editing.joins import SearchWeights
from editorbot_core.editing.outlook import outlook_of
from editorbot_core.editing.retargeting import dp_unit_actions
from editorbot_core.editing.search import candidate_edits, search_edits, warm_up
from tests.core.editing.conftest import guessed_song
def compiled():
    return {path.name for path in Path(sys.argv[1]).rglob("*.nbc")}
warm_up()
before = compiled()
song = guessed_song(24, seed=3)
search_edits(song, 0.5 * song.duration, weights=SearchWeights.light(), n_best=4, min_difference=0.1)
candidate_edits(song, 0.6 * song.duration, weights=SearchWeights.full())
dp_unit_actions(song, 0.5 * song.duration)
outlook_of(song)
print(len(before), *sorted(compiled() - before))
"""


@pytest.mark.slow
def test_warming_up_leaves_nothing_to_compile(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _WARM, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    n_compiled, *late = done.stdout.split()
    assert int(n_compiled) >= 4
    assert late == []

"""Editors without a model: every target gets a playable edit, and each does what its name says."""

import time
from dataclasses import replace

import numpy as np
import pytest

from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.baselines import (
    BASELINES,
    dp_bars,
    dp_beats,
    keep_all,
    one_cut,
    random_edit,
    random_unit_actions,
    search_acoustic,
    search_structure,
    truncate_and_fade,
)
from editorbot_core.editing.edits import CUT, REORDER_1
from editorbot_core.editing.joins import DPWeights
from editorbot_core.editing.retargeting import dp_unit_actions
from tests.core.editing.conftest import even_song, guessed_song


def all_edits(song, target_s):
    rng = np.random.default_rng(0)
    return {
        **{name: editor(song, target_s) for name, editor in BASELINES.items()},
        "random": random_edit(song, target_s, rng=rng),
    }


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.8, 0.96, 1.0, 1.2, 3.0])
@pytest.mark.parametrize("n_bars", [1, 2, 3, 25])
def test_every_editor_gives_a_playable_edit_for_every_target(ratio, n_bars):
    song = even_song(n_bars=n_bars)
    for name, edl in all_edits(song, ratio * song.duration).items():
        assert edl.target_duration_s == ratio * song.duration, name
        assert edl.segments, name
        assert all(0 <= s.start_s < s.end_s <= song.duration for s in edl.segments), name
        assert edl.track_id == song.track_id
        assert edl.model["name"] == {"truncate_fade": "truncate_fade"}.get(name, name)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.97, 1.1, 1.25, 2.0])
def test_retargeting_and_random_edits_last_as_long_as_asked(ratio):
    song = even_song(n_bars=60, pickup=2)
    target_s = ratio * song.duration
    for name in ("dp_bars", "dp_beats", "random"):
        edl = all_edits(song, target_s)[name]
        unit_s = 0.5 if name == "dp_beats" else 2.0
        assert abs(edl.duration_s - target_s) <= 0.015 * target_s + 0.5 * unit_s + 0.05, name


@pytest.mark.parametrize("editor", [one_cut, dp_bars, dp_beats])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_start_and_end_are_kept(editor, ratio):
    song = even_song(pickup=1)
    edl = editor(song, ratio * song.duration)
    assert edl.segments[0].start_s == 0.0
    assert edl.segments[-1].end_s == song.duration


def test_one_cut_is_one_cut_on_bars():
    for ratio in (0.2, 0.5, 0.9):
        song = even_song(pickup=3)
        edl = one_cut(song, ratio * song.duration)
        assert len(edl.segments) == 2
        times = song.grid.times[song.grid.positions == 1]
        assert edl.segments[0].end_s in times
        assert edl.segments[1].start_s in times
        assert abs(edl.duration_s - ratio * song.duration) <= 1.0 + 1e-9
    # The whole song is nearer than a song without one of its bars.
    assert len(one_cut(song, song.duration - 0.4).segments) == 1


def test_random_edits_move_only_units_that_have_room():
    song = even_song(n_bars=30)
    moved = 0
    for seed in range(30):
        actions = random_unit_actions(song, 0.6 * song.duration, rng=np.random.default_rng(seed), reorder_share=0.3)
        at = np.flatnonzero(actions >= REORDER_1)
        moved += len(at)
        assert (at > 0).all()
        assert (at + actions[at] - REORDER_1 + 1 < 29).all()
    assert moved > 30


def test_random_choices_come_from_the_generator():
    song = even_song()
    first, again, other = (
        random_unit_actions(song, 40.0, rng=np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other

    def varied():
        for seed in range(12):
            rng = np.random.default_rng(seed)
            yield tuple(dp_unit_actions(song, 40.0, weights=DPWeights.sample(rng), rng=rng).tolist())

    edits = list(varied())
    assert edits == list(varied())
    assert len(set(edits)) >= 5


def test_truncation_ends_in_a_fade_and_nothing_else():
    song = even_song()
    edl = truncate_and_fade(song, 30.5)
    (segment,) = edl.segments
    assert (segment.start_s, segment.end_s, segment.fade_out_s) == (0.0, 30.5, 3.0)
    assert truncate_and_fade(song, 1.0).segments[0].fade_out_s == 1.0
    assert truncate_and_fade(song, 2 * song.duration).segments == keep_all(song, 2 * song.duration).segments


def test_constant_features_are_no_fault():
    song = even_song(np.zeros((80, N_FEATURES)))
    for edl in all_edits(song, 20.0).values():
        assert np.isfinite(edl.duration_s)
    # All joins are alike, so only the length decides, and it can be met exactly.
    song = even_song(np.zeros((320, N_FEATURES)))
    target_s = song.duration - 26 * 2.0
    assert dp_bars(song, target_s).duration_s == pytest.approx(target_s, abs=0.01)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_targets_are_refused(target):
    song = even_song(n_bars=5)
    for editor in (dp_bars, dp_beats, one_cut, keep_all, truncate_and_fade):
        with pytest.raises(ParameterError, match="target"):
            editor(song, target)
    with pytest.raises(ParameterError, match="target"):
        random_edit(song, target, rng=np.random.default_rng(0))


def test_a_hundred_bars_take_milliseconds():
    song = even_song(n_bars=100)
    target_s = 0.5 * song.duration
    dp_bars(song, target_s), dp_beats(song, target_s)

    def fastest(editor):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            editor(song, target_s)
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest(dp_bars) < 0.05
    assert fastest(dp_beats) < 0.3


def test_phrases_decide_where_they_are_known():
    song = guessed_song(40, phrase_bars=[8, 8, 6, 8, 10], doubt=0.02, seed=11)
    # Without the second and the third phrase: the only way to lose 14 bars at phrase starts and stay in phase.
    target_s = float(np.delete(song.unit_durations, np.arange(8, 22)).sum())
    edl = search_structure(song, target_s)
    begin, end = np.flatnonzero(np.diff((edl.unit_actions == CUT).astype(int)))[:2] + 1
    assert (begin, end) == (8, 22)
    assert edl.model["name"] == "search_structure"


def test_the_acoustic_search_does_not_see_structure():
    song = guessed_song(30, seed=2)
    other = replace(song, structure=guessed_song(30, seed=9).structure)
    for ratio in (0.4, 0.6, 0.8):
        target_s = ratio * song.duration
        a, b = search_acoustic(song, target_s), search_acoustic(other, target_s)
        np.testing.assert_array_equal(a.actions, b.actions)
        assert a.model["name"] == "search_acoustic"
        assert not np.array_equal(search_structure(song, target_s).actions, a.actions)

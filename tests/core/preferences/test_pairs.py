"""Pairs are two different edits of one song and target, and tensors hold what was answered."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, REORDER_1, REORDER_4, EditDecisionList, edl_of
from editorbot_core.preferences.pairs import STRENGTH_WEIGHTS, few_cuts, mutated, pair_batch, pairs_among, propose_pairs
from tests.core.conftest import answers, make_song


@pytest.fixture(scope="module")
def songs():
    return [make_song(seed, n_bars=n_bars, estimated=True) for seed, n_bars in enumerate((24, 17, 30))]


@pytest.fixture(scope="module")
def pairs(songs):
    return propose_pairs(songs, n_pairs=120, rng=np.random.default_rng(0))


def test_pairs_are_two_different_edits_of_one_song_and_target(songs, pairs):
    assert len(pairs) == len({pair.pair_id for pair in pairs}) == 120
    for pair in pairs:
        assert pair.a.track_id == pair.b.track_id
        assert pair.a.target_duration_s == pair.b.target_duration_s
        assert not np.array_equal(pair.a.actions, pair.b.actions)


def test_every_song_and_every_generator_has_its_share(songs, pairs):
    counts = [sum(pair.a.track_id == song.track_id for pair in pairs) for song in songs]
    assert min(counts) >= 30
    origins = {name for pair in pairs for name in pair.origin.split("~")}
    assert {"few_cuts", "mutation", "random", "dp", "one_cut", "keep_all", "truncate_fade"} <= origins


def test_targets_span_what_was_asked_for(songs):
    pairs = propose_pairs(songs, n_pairs=400, rng=np.random.default_rng(1), ratios=(0.4, 0.6))
    ratios = np.array([pair.a.target_duration_s / pair.a.grid.duration for pair in pairs])
    assert ratios.min() >= 0.4 and ratios.max() <= 1.25
    assert 0.02 < np.mean(ratios > 0.6) < 0.3


def test_the_same_generator_proposes_the_same(songs, pairs):
    again = propose_pairs(songs, n_pairs=120, rng=np.random.default_rng(0))
    other = propose_pairs(songs, n_pairs=120, rng=np.random.default_rng(5))
    assert [p.pair_id for p in again] == [p.pair_id for p in pairs]
    assert [p.pair_id for p in other] != [p.pair_id for p in pairs]


def test_a_policys_edits_are_compared_for_their_own_target(songs):
    song = songs[0]
    actions = np.full(song.units.n_units, KEEP)
    actions[5:13] = CUT
    edit = edl_of(song, actions, target_duration_s=0.62 * song.duration)
    pairs = propose_pairs(songs, n_pairs=240, rng=np.random.default_rng(0), policy_edits={song.track_id: [edit]})
    of_policy = [pair for pair in pairs if "policy" in pair.origin.split("~")]
    assert len(of_policy) >= 3
    for pair in of_policy:
        assert pair.a.track_id == song.track_id
        assert pair.a.target_duration_s == edit.target_duration_s
        side = pair.a if pair.origin.startswith("policy") else pair.b
        assert np.array_equal(side.actions, edit.actions)


def test_edits_that_sound_the_same_are_no_pair(songs):
    song = songs[0]
    n = song.units.n_units
    # The unit after the moved one is cut, so the move changes nothing that is heard.
    plain, moved = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    plain[4:6], moved[4:6] = [KEEP, CUT], [REORDER_1, CUT]
    own = [edl_of(song, actions, target_duration_s=0.9 * song.duration) for actions in (plain, moved)]
    assert own[0].segments == own[1].segments
    pairs = propose_pairs([song], n_pairs=200, rng=np.random.default_rng(0), policy_edits={song.track_id: own})
    assert {"policy"} < {name for pair in pairs for name in pair.origin.split("~")}
    assert all(pair.a.segments != pair.b.segments for pair in pairs)
    assert pairs_among({song.track_id: own}) == []


def test_pairs_among_edits_are_all_of_one_song_and_one_target(songs):
    edits = {}
    for song in songs:
        cuts = np.zeros((3, song.units.n_units), dtype=np.int64)
        for k in range(3):
            cuts[k, 2 + k] = CUT
        edits[song.track_id] = [
            edl_of(song, actions, target_duration_s=share * song.duration) for share in (0.8, 0.9) for actions in cuts
        ]
    pairs = pairs_among(edits)
    # Three edits make three pairs, for each of two targets of each song.
    assert len(pairs) == 3 * 2 * len(songs) == len({pair.pair_id for pair in pairs})
    assert all(pair.a.track_id == pair.b.track_id for pair in pairs)
    assert all(pair.a.target_duration_s == pair.b.target_duration_s for pair in pairs)


def test_policy_edits_on_other_units_are_refused(songs):
    song = songs[0]
    beats = Units.beats(song.grid.n_beats)
    edit = EditDecisionList.from_unit_actions(
        np.full(beats.n_units, KEEP), grid=song.grid, units=beats, track_id=song.track_id
    )
    with pytest.raises(ParameterError, match="not on the song's units"):
        propose_pairs(songs, n_pairs=5, rng=np.random.default_rng(0), policy_edits={song.track_id: [edit]})


def test_songs_too_short_for_two_edits_are_no_endless_loop():
    with pytest.raises(ParameterError, match="at least 4 units"):
        propose_pairs([make_song(0, n_bars=3, estimated=True)], n_pairs=5, rng=np.random.default_rng(0))
    assert len(propose_pairs([make_song(0, n_bars=4, estimated=True)], n_pairs=20, rng=np.random.default_rng(0))) == 20


@pytest.mark.parametrize("settings", [{"n_pairs": 0}, {"n_pairs": 5, "ratios": (0.9, 0.4)}])
def test_impossible_requests_are_refused(songs, settings):
    with pytest.raises(ParameterError, match="ratios must be"):
        propose_pairs(songs, rng=np.random.default_rng(0), **settings)


@pytest.mark.parametrize("ratio", [0.4, 0.7, 0.9])
def test_few_cuts_keep_the_ends_and_meet_the_target(ratio):
    song = make_song(4, n_bars=40, estimated=True)
    for seed in range(20):
        actions = few_cuts(song, ratio * song.duration, np.random.default_rng(seed))
        edl = edl_of(song, actions, target_duration_s=ratio * song.duration)
        assert actions[0] == actions[-1] == KEEP and set(actions.tolist()) <= {KEEP, CUT}
        assert 2 <= len(edl.segments) <= 3
        # A cut is drawn within about 2 % of the target or half a bar of what is left to cut.
        assert edl.duration_s == pytest.approx(ratio * song.duration, abs=max(4.0, 0.06 * song.duration))


def test_where_nothing_can_be_cut_few_cuts_keep_everything():
    song = make_song(4, n_bars=8, estimated=True)
    assert (few_cuts(song, 1.5 * song.duration, np.random.default_rng(0)) == KEEP).all()


def test_mutations_are_playable_and_different():
    rng = np.random.default_rng(0)
    start = np.array([KEEP] * 6 + [CUT] * 6 + [KEEP] * 6)
    for _ in range(500):
        out = mutated(start, rng)
        assert (out != CUT).any() and not np.array_equal(out, start)
        assert out[0] in (KEEP, CUT) and out[-1] in (KEEP, CUT)
        assert ((out >= KEEP) & (out <= REORDER_4)).all()
        for unit in np.flatnonzero(out >= REORDER_1):
            assert unit + out[unit] - REORDER_1 + 1 < len(out) - 1
        assert (start == np.array([KEEP] * 6 + [CUT] * 6 + [KEEP] * 6)).all()
    assert any((mutated(start, rng) == LOOP_2).any() for _ in range(200))


def test_tensors_hold_what_the_answers_say(songs, pairs):
    given = answers(pairs[:10], label=0, strength=3) + answers(pairs[10:12], label=0.5, strength=0)
    batch = pair_batch(given, songs)
    assert len(batch) == 12 and batch.n_refused == 0
    for row, preference in enumerate(given):
        song = songs[int(batch.song_index[row])]
        n = song.units.n_units
        assert song.track_id == preference.track_id
        assert np.array_equal(batch.actions_a[row, :n].numpy(), preference.a.unit_actions)
        assert np.array_equal(batch.actions_b[row, :n].numpy(), preference.b.unit_actions)
        assert float(batch.target_ratio[row]) == pytest.approx(preference.a.target_duration_s / song.duration)
        assert int(batch.source_index[row]) == row
    assert batch.label.tolist() == [0.0] * 10 + [0.5] * 2
    assert batch.strength.tolist() == [3] * 10 + [0] * 2
    assert batch.weight.tolist() == pytest.approx([STRENGTH_WEIGHTS[3]] * 10 + [STRENGTH_WEIGHTS[0]] * 2)
    part = batch.select(torch.tensor([3, 11]))
    assert part.label.tolist() == [0.0, 0.5] and part.songs is batch.songs


def test_answers_that_do_not_fit_are_refused_and_counted(songs, pairs):
    given = answers(pairs[:20])
    of_first = sum(p.track_id == songs[0].track_id for p in given)
    # Analysed again: other units for the first song, and the second is gone.
    changed = replace(
        songs[0],
        units=Units.beats(songs[0].grid.n_beats),
        structure=estimate_structure(songs[0].features.values, Units.beats(songs[0].grid.n_beats)),
    )
    batch = pair_batch(given, [changed, songs[2]])
    of_third = sum(p.track_id == songs[2].track_id for p in given)
    assert of_first > 0 and of_third > 0
    assert len(batch) == of_third and batch.n_refused == 20 - of_third
    assert [given[int(i)].track_id for i in batch.source_index] == [songs[2].track_id] * of_third

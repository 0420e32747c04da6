import time

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.baselines import (
    BASELINES,
    dp_bars,
    dp_beats,
    keep_all,
    one_cut,
    random_edit,
    random_unit_actions,
    truncate_and_fade,
)
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, LOOP_4, LOOP_RATIO, REORDER_1
from editorbot_core.editing.joins import DPWeights
from editorbot_core.editing.retargeting import dp_unit_actions, join_costs
from editorbot_core.songs.song import Song


def make_song(values=None, *, n_bars=40, seed=0, beat_s=0.5, pickup=0):
    """A song of random features, or of the given ones (n_beats, 121)."""
    rng = np.random.default_rng(seed)
    n = 4 * n_bars + pickup if values is None else len(values)
    values = rng.normal(size=(n, N_FEATURES)) if values is None else values
    grid = BeatGrid(0.2 + beat_s * np.arange(n), (np.arange(n) - pickup) % 4 + 1, 0.2 + beat_s * n + 1.0)
    units = Units.bars(grid)
    u = np.arange(units.n_units)
    phase = np.full((units.n_units, 4), 0.02, dtype=np.float32)
    phase[u, u % 4] = 0.94
    start = np.where(u % 8 == 0, 0.9, 0.05).astype(np.float32)
    structure = Structure(start, phase, (u // 8) % 3, 0.8)
    features = BeatFeatures(values.astype(np.float32), grid)
    return Song("song", "song.wav", "", features, units, structure)


def planted_song():
    """40 different bars; the two beats before and after the start of bar 28 are those around the start of bar 8."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(160, N_FEATURES))
    values[4 * 28 - 2 : 4 * 28 + 2] = values[4 * 8 - 2 : 4 * 8 + 2]
    return make_song(values)


def all_edits(song, target_s):
    rng = np.random.default_rng(0)
    return {
        **{name: editor(song, target_s) for name, editor in BASELINES.items()},
        "random": random_edit(song, target_s, rng=rng),
    }


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.8, 0.96, 1.0, 1.2, 3.0])
@pytest.mark.parametrize("n_bars", [1, 2, 3, 25])
def test_every_editor_gives_a_playable_edit_for_every_target(ratio, n_bars):
    song = make_song(n_bars=n_bars)
    for name, edl in all_edits(song, ratio * song.duration).items():
        assert edl.target_duration_s == ratio * song.duration, name
        assert edl.segments, name
        assert all(0 <= s.start_s < s.end_s <= song.duration for s in edl.segments), name
        assert edl.track_id == song.track_id
        assert edl.model["name"] == {"truncate_fade": "truncate_fade"}.get(name, name)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.97, 1.1, 1.25, 2.0])
def test_retargeting_and_random_edits_last_as_long_as_asked(ratio):
    song = make_song(n_bars=60, pickup=2)
    target_s = ratio * song.duration
    for name in ("dp_bars", "dp_beats", "random"):
        edl = all_edits(song, target_s)[name]
        unit_s = 0.5 if name == "dp_beats" else 2.0
        assert abs(edl.duration_s - target_s) <= 0.015 * target_s + 0.5 * unit_s + 0.05, name


@pytest.mark.parametrize("editor", [one_cut, dp_bars, dp_beats])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_start_and_end_are_kept(editor, ratio):
    song = make_song(pickup=1)
    edl = editor(song, ratio * song.duration)
    assert edl.segments[0].start_s == 0.0
    assert edl.segments[-1].end_s == song.duration


def test_the_dp_finds_the_cut_that_cannot_be_heard():
    song = planted_song()
    # Bars 8-27 go: what follows bar 7 is what bar 28 sounds like.
    target_s = song.duration - 20 * 2.0
    actions = dp_unit_actions(song, target_s)
    assert np.flatnonzero(actions == CUT).tolist() == list(range(8, 28))
    edl = one_cut(song, target_s)
    assert np.flatnonzero(edl.unit_actions == CUT).tolist() == list(range(8, 28))
    beats = dp_beats(song, target_s)
    assert np.flatnonzero(beats.unit_actions == CUT).tolist() == list(range(4 * 8, 4 * 28))


def brute_force(song, target_s, weights):
    """Cheapest edit by trying every subset of units that keeps the first and the last."""
    costs = join_costs(song, song.units, weights=weights)
    n = song.units.n_units
    durations = song.unit_durations
    best = (np.inf, None)
    for subset in range(2 ** (n - 2)):
        kept = np.array([True, *((subset >> u) & 1 for u in range(n - 2)), True], dtype=bool)
        order = np.flatnonzero(kept)
        missed = abs(durations[kept].sum() / target_s - 1)
        tolerance = 0.015 + 0.5 * float(np.median(durations)) / target_s
        cost = costs.jump[order[:-1], order[1:]].sum() + weights.length * missed + 1e6 * max(missed - tolerance, 0)
        if cost < best[0]:
            best = (cost, kept)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_dp_is_as_good_as_trying_everything(seed):
    rng = np.random.default_rng(seed)
    song = make_song(n_bars=11, seed=seed)
    weights = DPWeights(phrase=0.5, phase=0.5, bar_position=0.3, length=20.0)
    target_s = float(rng.uniform(0.3, 0.9)) * song.duration
    kept = dp_unit_actions(song, target_s, weights=weights) == KEEP
    cost, _ = brute_force(song, target_s, weights)
    order = np.flatnonzero(kept)
    missed = abs(song.unit_durations[kept].sum() / target_s - 1)
    jump = join_costs(song, song.units, weights=weights).jump
    # Durations are rounded to a thousandth of the target per run.
    assert jump[order[:-1], order[1:]].sum() + weights.length * missed <= cost + 0.1


def test_a_join_costs_nothing_where_the_song_plays_on_and_about_one_elsewhere():
    song = make_song(n_bars=50)
    costs = join_costs(song, song.units, weights=DPWeights(jump=0.0))
    n = song.units.n_units
    assert (costs.jump[np.arange(n - 1), np.arange(1, n)] == 0).all()
    away = costs.jump[np.triu_indices(n, 2)]
    assert away.mean() == pytest.approx(1.0, abs=0.05)
    assert costs.jump.min() >= 0
    np.testing.assert_allclose(
        join_costs(song, song.units, weights=DPWeights(jump=0.7)).jump[np.triu_indices(n, 2)], away + 0.7, rtol=1e-5
    )


def test_leaving_the_bar_costs_its_weight():
    song = make_song(n_bars=6, pickup=3)
    units = Units.beats(song.grid.n_beats)
    plain, strict = (join_costs(song, units, weights=DPWeights(bar_position=w)).jump for w in (0.0, 0.5))
    positions = song.grid.positions
    expected = positions[1:, None] != positions[None]
    np.testing.assert_allclose((strict - plain)[:-1], 0.5 * expected, atol=1e-5)


def test_structure_terms_pull_joins_to_phrases_and_phase():
    song = make_song(n_bars=64)
    target_s = 0.5 * song.duration
    plain = dp_unit_actions(song, target_s)
    phrased = dp_unit_actions(song, target_s, weights=DPWeights(phrase=20.0, phase=20.0))

    def joins(actions):
        order = np.flatnonzero(actions != CUT)
        at = np.flatnonzero(np.diff(order) != 1)
        return order[at] + 1, order[at + 1]

    exits, entries = joins(phrased)
    assert len(exits) >= 1
    assert (exits % 8 == 0).all()
    assert (entries % 8 == 0).all()
    assert any((u % 8).any() for u in joins(plain))


def test_one_cut_is_one_cut_on_bars():
    for ratio in (0.2, 0.5, 0.9):
        song = make_song(pickup=3)
        edl = one_cut(song, ratio * song.duration)
        assert len(edl.segments) == 2
        times = song.grid.times[song.grid.positions == 1]
        assert edl.segments[0].end_s in times
        assert edl.segments[1].start_s in times
        assert abs(edl.duration_s - ratio * song.duration) <= 1.0 + 1e-9
    # The whole song is nearer than a song without one of its bars.
    assert len(one_cut(song, song.duration - 0.4).segments) == 1


def test_a_longer_song_is_made_of_loops_and_its_ends_are_left_alone():
    song = make_song()
    for actions in (
        dp_unit_actions(song, 1.3 * song.duration),
        random_unit_actions(song, 1.3 * song.duration, rng=np.random.default_rng(1)),
    ):
        assert ((actions >= LOOP_2) & (actions <= LOOP_4)).any()
        assert actions[0] == actions[-1] == KEEP
    # A random walk repeats units all along, not only once it must.
    assert (actions[:20] >= LOOP_2).sum() >= 2
    shorter = dp_unit_actions(song, (LOOP_RATIO - 0.01) * song.duration)
    assert set(shorter.tolist()) <= {KEEP, CUT}
    np.testing.assert_array_equal(dp_unit_actions(song, song.duration), KEEP)


def test_a_bar_that_leads_back_to_itself_is_the_one_that_is_looped():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(80, N_FEATURES))
    # Bars 9-12 are the same bar, so playing any of them twice changes nothing that is compared.
    for bar in range(9, 13):
        values[4 * bar : 4 * bar + 4] = values[36:40]
    song = make_song(values)
    actions = dp_unit_actions(song, song.duration + 2.0)
    assert np.flatnonzero(actions == LOOP_2).tolist() in ([9], [10], [11], [12])


def test_random_edits_move_only_units_that_have_room():
    song = make_song(n_bars=30)
    moved = 0
    for seed in range(30):
        actions = random_unit_actions(song, 0.6 * song.duration, rng=np.random.default_rng(seed), reorder_share=0.3)
        at = np.flatnonzero(actions >= REORDER_1)
        moved += len(at)
        assert (at > 0).all()
        assert (at + actions[at] - REORDER_1 + 1 < 29).all()
    assert moved > 30


def test_random_choices_come_from_the_generator():
    song = make_song()
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
    song = make_song()
    edl = truncate_and_fade(song, 30.5)
    (segment,) = edl.segments
    assert (segment.start_s, segment.end_s, segment.fade_out_s) == (0.0, 30.5, 3.0)
    assert truncate_and_fade(song, 1.0).segments[0].fade_out_s == 1.0
    assert truncate_and_fade(song, 2 * song.duration).segments == keep_all(song, 2 * song.duration).segments


def test_constant_features_are_no_fault():
    song = make_song(np.zeros((80, N_FEATURES)))
    for edl in all_edits(song, 20.0).values():
        assert np.isfinite(edl.duration_s)
    # All joins are alike, so only the length decides, and it can be met exactly.
    song = make_song(np.zeros((320, N_FEATURES)))
    target_s = song.duration - 26 * 2.0
    assert dp_bars(song, target_s).duration_s == pytest.approx(target_s, abs=0.01)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_targets_are_refused(target):
    song = make_song(n_bars=5)
    for editor in (dp_bars, dp_beats, one_cut, keep_all, truncate_and_fade):
        with pytest.raises(ParameterError, match="target"):
            editor(song, target)
    with pytest.raises(ParameterError, match="target"):
        random_edit(song, target, rng=np.random.default_rng(0))


def test_impossible_weights_are_refused():
    with pytest.raises(ParameterError, match="non-negative"):
        DPWeights(jump=-1.0)
    with pytest.raises(ParameterError, match="at least one of"):
        DPWeights(timbre=0.0, harmony=0.0, level=0.0)
    with pytest.raises(ParameterError, match="rng"):
        dp_unit_actions(make_song(), 30.0, weights=DPWeights(noise=0.1))


def test_a_hundred_bars_take_milliseconds():
    song = make_song(n_bars=100)
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

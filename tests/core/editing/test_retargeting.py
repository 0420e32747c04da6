"""Dynamic programming over joins finds the cheapest edit of a length."""

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.editing.baselines import dp_beats, one_cut, random_unit_actions
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, LOOP_4, LOOP_RATIO
from editorbot_core.editing.joins import DPWeights
from editorbot_core.editing.retargeting import dp_unit_actions, join_costs
from tests.core.editing.conftest import even_song


def planted_song():
    """40 different bars; the two beats before and after the start of bar 28 are those around the start of bar 8."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(160, N_FEATURES))
    values[4 * 28 - 2 : 4 * 28 + 2] = values[4 * 8 - 2 : 4 * 8 + 2]
    return even_song(values)


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
    song = even_song(n_bars=11, seed=seed)
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
    song = even_song(n_bars=50)
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
    song = even_song(n_bars=6, pickup=3)
    units = Units.beats(song.grid.n_beats)
    plain, strict = (join_costs(song, units, weights=DPWeights(bar_position=w)).jump for w in (0.0, 0.5))
    positions = song.grid.positions
    expected = positions[1:, None] != positions[None]
    np.testing.assert_allclose((strict - plain)[:-1], 0.5 * expected, atol=1e-5)


def test_structure_terms_pull_joins_to_phrases_and_phase():
    song = even_song(n_bars=64)
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


def test_a_longer_song_is_made_of_loops_and_its_ends_are_left_alone():
    song = even_song()
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
    song = even_song(values)
    actions = dp_unit_actions(song, song.duration + 2.0)
    assert np.flatnonzero(actions == LOOP_2).tolist() in ([9], [10], [11], [12])

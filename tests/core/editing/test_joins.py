"""What a join costs, and the weights of that."""

from dataclasses import replace

import numpy as np
import pytest

from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP
from editorbot_core.editing.joins import (
    MAX_SEARCH_PLACES,
    DPWeights,
    SearchWeights,
    cheapest_join,
    choose_places,
    context_distances,
    cost_of_joins,
    step_percentiles,
)
from editorbot_core.editing.retargeting import dp_unit_actions
from editorbot_core.editing.search import edit_cost, search_edits
from tests.core.editing.conftest import even_song, guessed_song, missed_s


def test_impossible_weights_are_refused():
    with pytest.raises(ParameterError, match="non-negative"):
        DPWeights(jump=-1.0)
    with pytest.raises(ParameterError, match="at least one of"):
        DPWeights(timbre=0.0, harmony=0.0, level=0.0)
    with pytest.raises(ParameterError, match="rng"):
        dp_unit_actions(even_song(), 30.0, weights=DPWeights(noise=0.1))


def test_the_cost_is_made_of_what_the_module_says():
    song = guessed_song(20, seed=1)
    target_s = 0.5 * song.duration
    none = SearchWeights(*[0.0] * 10, sharpness=1.0)
    actions = np.full(20, KEEP)
    actions[3:9] = actions[11:14] = CUT
    structure, start = song.structure, song.structure.phrase_start.astype(float)

    def cost(**weights):
        return edit_cost(song, actions, target_s, weights=replace(none, **weights))

    joins = [(3, 9), (11, 14)]
    assert cost() == 0.0
    assert cost(join=0.5) == pytest.approx(1.0)
    assert cost(phase=2.0) == pytest.approx(sum(2 * (1 - structure.phase[i] @ structure.phase[j]) for i, j in joins))
    end = [start[i] * (1 - np.prod(1 - start[:i])) for i in range(20)]
    assert cost(phrase=3.0) == pytest.approx(sum(3 * (1 - np.sqrt(end[i] * start[j])) for i, j in joins))
    phase = structure.phase.astype(float) ** 2.5
    phase /= phase.sum(axis=1, keepdims=True)
    assert cost(phase=2.0, sharpness=2.5) == pytest.approx(sum(2 * (1 - phase[i] @ phase[j]) for i, j in joins))
    odds = (start / (1 - start)) ** 2.5
    start = odds / (1 + odds)
    end = [start[i] * (1 - np.prod(1 - start[:i])) for i in range(20)]
    expected = sum(3 * (1 - np.sqrt(end[i] * start[j])) for i, j in joins)
    assert cost(phrase=3.0, sharpness=2.5) == pytest.approx(expected)
    missed = missed_s(song, actions, target_s) / target_s
    assert cost(length=10.0) == pytest.approx(10 * missed)
    assert cost(length=10.0, length_free=0.02) == pytest.approx(10 * (missed - 0.02))
    assert cost(bar_position=1.0) == 0.0
    for name in ("context", "step", "harmony"):
        assert 0 < cost(**{name: 1.0}) < 4, name
        assert cost(**{name: 2.0}) == pytest.approx(2 * cost(**{name: 1.0}))


def test_what_was_heard_before_is_no_novelty():
    song = guessed_song(12, seed=5)
    values = song.features.values.copy()
    # Bars 2 to 4 come again as bars 7 to 9: leaving before bar 3 for bar 8 repeats what the song does.
    values[4 * 7 : 4 * 10] = values[4 * 2 : 4 * 5]
    song = replace(song, features=BeatFeatures(values, song.grid))
    actions = np.full(12, KEEP)
    actions[3:8] = CUT
    none = SearchWeights(*[0.0] * 10)
    cost = {
        name: edit_cost(song, actions, song.duration, weights=replace(none, **{name: 1.0}))
        for name in ("harmony", "context")
    }
    assert cost["harmony"] == pytest.approx(0.0, abs=1e-5)
    assert cost["context"] == pytest.approx(0.0, abs=1e-5)


def test_sampled_weights_vary_and_find_different_edits():
    song = guessed_song(50, seed=14)
    rng = np.random.default_rng(0)
    edits = {
        search_edits(song, 0.5 * song.duration, weights=SearchWeights.sample(rng))[0].actions.tobytes()
        for _ in range(16)
    }
    assert len(edits) >= 4
    assert SearchWeights.sample(np.random.default_rng(1)) == SearchWeights.sample(np.random.default_rng(1))


def test_context_is_alike_where_the_song_plays_on_and_one_on_average():
    song = even_song(n_bars=60)
    beats = song.units.first_beats
    distances = context_distances(song.features.values, beats, beats, weights=DPWeights())
    np.testing.assert_allclose(np.diagonal(distances), 0.0, atol=1e-4)
    np.testing.assert_allclose(distances, distances.T, rtol=1e-4, atol=1e-4)
    assert distances[np.triu_indices(60, 2)].mean() == pytest.approx(1.0, abs=0.05)


def test_the_cheapest_join_of_a_place_goes_forward_over_at_least_a_place():
    rng = np.random.default_rng(0)
    cost = rng.random((6, 6))
    expected = [min(cost[i, j] for i in range(6) for j in range(i + 1, 6) if at in (i, j)) for at in range(6)]
    np.testing.assert_allclose(cheapest_join(cost), expected)
    assert cheapest_join(np.ones((1, 1))).tolist() == [np.inf]


@pytest.mark.parametrize("n_bars", [1, 2, 40, MAX_SEARCH_PLACES + 1])
def test_short_songs_are_cut_anywhere_but_before_the_first_unit(n_bars):
    places = choose_places(guessed_song(n_bars), SearchWeights.full())
    np.testing.assert_array_equal(places, np.arange(1, n_bars))


def test_of_a_long_song_the_places_with_cheap_joins_are_kept():
    song = guessed_song(MAX_SEARCH_PLACES + 40)
    weights = replace(SearchWeights.full(), harmony=0.0)
    places = choose_places(song, weights)
    every = np.arange(1, song.units.n_units)
    cheapest = cheapest_join(cost_of_joins(song, every, weights))
    assert len(places) == MAX_SEARCH_PLACES and (np.diff(places) > 0).all()
    assert cheapest[places - 1].max() <= np.delete(cheapest, places - 1).min()


def test_what_is_no_larger_than_any_step_of_the_song_is_smooth() -> None:
    """A song whose beats all sound alike has steps of 0; a join with no step either is as smooth as can be."""
    constant = np.zeros((8, 3))
    assert step_percentiles(constant, np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    even = np.arange(8.0)[:, None]
    assert step_percentiles(even, np.array([1.0, 1.1])).tolist() == [0.0, 1.0]

"""Sections that are known are found in features without a trained model."""

import itertools

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.analysis.structure.structure import annotated_structure
from editorbot_core.base.errors import ParameterError
from tests.core.analysis.structure.conftest import AABA, MIXED, annotation_of, check_laws, song_from


@pytest.mark.parametrize("form", [AABA, MIXED], ids=["AABA", "mixed lengths"])
def test_known_sections_are_found_without_noise(form):
    values, grid = song_from(form)
    units = Units.bars(grid)
    found = estimate_structure(values, units)
    true = annotated_structure(annotation_of(form, grid), grid, units)
    check_laws(found, units.n_units)
    assert set(np.flatnonzero(found.phrase_start > 0.4)) >= set(np.flatnonzero(true.phrase_start))
    assert (found.phase.argmax(axis=1) == true.phase.argmax(axis=1)).mean() > 0.9
    assert found.confidence > 0.5


def test_repeats_are_one_cluster_and_the_bridge_another():
    values, grid = song_from(AABA)
    cluster = estimate_structure(values, Units.bars(grid)).cluster
    np.testing.assert_array_equal(np.unique(cluster[:16]), [0])
    np.testing.assert_array_equal(np.unique(cluster[24:]), [0])
    assert 0 not in cluster[16:24]


def test_noise_on_the_repeats_leaves_the_boundaries_likely():
    values, grid = song_from(AABA, noise=0.5)
    start = estimate_structure(values, Units.bars(grid)).phrase_start
    assert set(np.argsort(-start)[:4]) == {0, 8, 16, 24}


def test_beats_as_units_give_the_same_sections():
    values, grid = song_from(AABA)
    units = Units.beats(grid.n_beats)
    found = estimate_structure(values, units)
    check_laws(found, grid.n_beats)
    assert (found.phrase_start[[0, 32, 64, 96]] > 0.5).all()
    np.testing.assert_array_equal(found.phase[:32].argmax(axis=1), np.arange(32) % 4)
    assert found.cluster[0] == found.cluster[40] != found.cluster[70]


def test_a_pickup_counts_back_from_the_first_phrase():
    values, grid = song_from(AABA, pickup=2)
    units = Units.bars(grid)
    found = estimate_structure(values, units)
    assert found.phrase_start[0] == 0 and found.phrase_start[1] > 0.9
    assert found.phase[0].argmax() == 3
    assert found.cluster[0] == found.cluster[1]


def test_order_of_the_sections_does_not_change_which_bars_are_alike():
    def same(form):
        values, grid = song_from(form, seed=3)
        cluster = estimate_structure(values, Units.bars(grid)).cluster
        bars = np.repeat(np.arange(len(form)), [b for _, b in form])
        return {
            frozenset((form[bars[i]][0], form[bars[j]][0]))
            for i, j in itertools.combinations(range(len(bars)), 2)
            if cluster[i] == cluster[j]
        }

    alike = {frozenset("A"), frozenset("B")}
    assert same([("A", 8), ("B", 8), ("A", 8), ("B", 8)]) == alike
    assert same([("A", 8), ("A", 8), ("B", 8), ("B", 8)]) == alike


@pytest.mark.parametrize("n_bars", [1, 2, 3, 5, 20, 125])
@pytest.mark.parametrize("grouping", ["bars", "beats"])
def test_any_features_give_probabilities(n_bars, grouping):
    n_beats = 4 * n_bars if grouping == "bars" else n_bars
    units = Units(np.arange(n_beats) // 4) if grouping == "bars" else Units.beats(n_beats)
    noise = np.random.default_rng(1).standard_normal((n_beats, N_FEATURES))
    for values in (np.zeros((n_beats, N_FEATURES)), np.full((n_beats, N_FEATURES), 1e6), noise, 1e30 * noise):
        structure = estimate_structure(values.astype(np.float32), units)
        check_laws(structure, units.n_units)
        assert structure.confidence < 0.35


def test_the_estimate_is_the_same_every_time():
    values, grid = song_from(MIXED, noise=0.4)
    a, b = (estimate_structure(values, Units.bars(grid)) for _ in range(2))
    np.testing.assert_array_equal(a.phrase_start, b.phrase_start)
    np.testing.assert_array_equal(a.phase, b.phase)
    np.testing.assert_array_equal(a.cluster, b.cluster)


@pytest.mark.parametrize(
    "values",
    [np.zeros((8, 120), np.float32), np.zeros((7, N_FEATURES), np.float32), np.full((8, N_FEATURES), np.nan)],
    ids=["width", "height", "nan"],
)
def test_unusable_features_are_refused(values):
    with pytest.raises(ParameterError):
        estimate_structure(values, Units.beats(8))

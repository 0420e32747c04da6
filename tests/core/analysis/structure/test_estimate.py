import itertools

import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.analysis.structure.structure import Structure, annotated_structure
from editorbot_core.base.errors import ParameterError

BEAT_S = 0.5


def song_from(form, *, seed=0, noise=0.0, beats_per_bar=4, pickup=0):
    """Features of a song of known sections: form is [(label, bars), ...]; equal labels have equal beats."""
    rng = np.random.default_rng(seed)
    material = {}
    rows = [rng.standard_normal((pickup, N_FEATURES))] if pickup else []
    for label, bars in form:
        if label not in material:
            timbre = rng.standard_normal(N_FEATURES)
            material[label] = timbre + rng.standard_normal((16 * beats_per_bar, N_FEATURES))
        rows.append(material[label][: bars * beats_per_bar])
    values = np.concatenate(rows)
    values = values + noise * rng.standard_normal(values.shape)
    chroma = slice(FEATURE_INDEX["chroma_c"], FEATURE_INDEX["chroma_b"] + 1)
    values[:, chroma] = np.abs(values[:, chroma])
    beat = np.arange(len(values))
    grid = BeatGrid(
        times=0.4 + BEAT_S * beat,
        positions=(beat - pickup) % beats_per_bar + 1,
        duration=0.4 + BEAT_S * len(values) + 1.0,
    )
    return values.astype(np.float32), grid


def annotation_of(form, grid, *, first_beat=0, beats_per_bar=4):
    sections, beat = [], first_beat
    for label, bars in form:
        start = grid.times[beat]
        beat += bars * beats_per_bar
        sections.append(Section(float(start), float(start + bars * beats_per_bar * BEAT_S), label))
    return Annotation("song", grid, tuple(sections))


def check_laws(structure, n_units):
    assert structure.phrase_start.shape == (n_units,) and structure.phrase_start.dtype == np.float32
    assert structure.phase.shape == (n_units, 4) and structure.phase.dtype == np.float32
    assert structure.cluster.shape == (n_units,) and structure.cluster.dtype == np.int64
    np.testing.assert_allclose(structure.phase.sum(axis=1), 1, atol=1e-5)
    assert (structure.phase >= 0).all()
    assert structure.cluster.min() == 0
    assert set(structure.cluster) == set(range(structure.cluster.max() + 1))
    assert 0 <= structure.confidence <= 1


AABA = [("A", 8), ("A", 8), ("B", 8), ("A", 8)]
MIXED = [("i", 4), ("A", 8), ("B", 5), ("A", 8), ("B", 5), ("C", 6), ("A", 8), ("o", 3)]


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


def test_renaming_the_labels_changes_nothing():
    _, grid = song_from(AABA)
    units = Units.bars(grid)
    a = annotated_structure(annotation_of(AABA, grid), grid, units)
    b = annotated_structure(annotation_of([(label.lower() + "x", n) for label, n in AABA], grid), grid, units)
    np.testing.assert_array_equal(a.cluster, b.cluster)


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


def test_annotated_structure_of_a_song_with_pickup_and_decay():
    form = [("i", 2), ("A", 5), ("A", 4)]
    _, grid = song_from([*form, ("decay", 2)], pickup=1)
    units = Units.bars(grid)
    true = annotated_structure(annotation_of(form, grid, first_beat=1), grid, units)
    check_laws(true, units.n_units)
    np.testing.assert_array_equal(np.flatnonzero(true.phrase_start), [1, 3, 8])
    np.testing.assert_array_equal(true.phase.argmax(axis=1), [3, 0, 1, 0, 1, 2, 3, 0, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(true.cluster, [0, 0, 0, *[1] * 11])
    assert true.confidence == 1.0


def test_sections_go_to_the_nearest_unit():
    _, grid = song_from(AABA)
    late = Annotation("song", grid, (Section(0.5, 16.5, "A"), Section(16.6, 30.0, "B")))
    true = annotated_structure(late, grid, Units.bars(grid))
    np.testing.assert_array_equal(np.flatnonzero(true.phrase_start), [0, 8])


def test_an_annotation_without_sections_is_refused():
    _, grid = song_from(AABA)
    with pytest.raises(ParameterError, match="no sections"):
        annotated_structure(Annotation("song", grid, ()), grid, Units.bars(grid))


def test_a_structure_checks_its_rows():
    with pytest.raises(ParameterError, match="sum to 1"):
        Structure(np.zeros(3), np.zeros((3, 4)), np.zeros(3, dtype=np.int64), 0.5)
    with pytest.raises(ParameterError, match="3 units"):
        Structure(np.zeros(3), np.full((2, 4), 0.25), np.zeros(3, dtype=np.int64), 0.5)

"""Structure as people annotated it, on any grid."""

import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.structure.structure import Structure, annotated_structure
from editorbot_core.base.errors import ParameterError
from tests.core.analysis.structure.conftest import AABA, annotation_of, check_laws, song_from


def test_renaming_the_labels_changes_nothing():
    _, grid = song_from(AABA)
    units = Units.bars(grid)
    a = annotated_structure(annotation_of(AABA, grid), grid, units)
    b = annotated_structure(annotation_of([(label.lower() + "x", n) for label, n in AABA], grid), grid, units)
    np.testing.assert_array_equal(a.cluster, b.cluster)


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

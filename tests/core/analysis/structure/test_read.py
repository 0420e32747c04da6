"""Structure as songs are loaded with it."""

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.network import shipped_structure_model
from editorbot_core.analysis.structure.read import read_structure
from tests.core.analysis.conftest import random_bars


def test_the_shipped_model_reads_structure():
    values, context, grid = random_bars(24)
    for pattern in range(3):
        values[32 * pattern : 32 * (pattern + 1)], context[32 * pattern : 32 * (pattern + 1)] = (
            values[:32],
            context[:32],
        )
    features = BeatFeatures(values, grid, context)
    structure = read_structure(features, Units.bars(grid))
    assert structure.phrase_start.shape == (24,) and 0 <= structure.confidence <= 1
    assert structure.cluster[0] == structure.cluster[16]
    assert len(shipped_structure_model().nets) >= 3


def test_beats_and_songs_without_context_are_estimated():
    values, context, grid = random_bars(8)
    for features, units in (
        (BeatFeatures(values, grid, context), Units.beats(32)),
        (BeatFeatures(values, grid), Units.bars(grid)),
    ):
        assert read_structure(features, units).phrase_start.shape == (units.n_units,)

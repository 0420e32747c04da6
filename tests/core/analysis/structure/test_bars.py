"""Features of bars and of pairs of bars."""

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.structure.bars import N_BAR_FEATURES, N_PAIR_FEATURES, bar_features
from editorbot_core.base.errors import ParameterError
from tests.core.analysis.conftest import random_bars


def test_shape_and_range():
    values, context, grid = random_bars()
    found = bar_features(values, context, Units.bars(grid))
    assert found.values.shape == (24, N_BAR_FEATURES) and found.pairs.shape == (24, 24, N_PAIR_FEATURES)
    assert np.isfinite(found.values).all() and np.abs(found.pairs).max() <= 1 + 1e-5


def test_pairs_are_symmetric_and_equal_bars_alike():
    values, context, grid = random_bars()
    values[4 * 12 :], context[4 * 12 :] = values[: 4 * 12], context[: 4 * 12]
    pairs = bar_features(values, context, Units.bars(grid)).pairs
    np.testing.assert_allclose(pairs, pairs.transpose(1, 0, 2), atol=1e-5)
    bar = np.arange(12)
    np.testing.assert_allclose(pairs[bar, bar + 12, :5], 1.0, atol=1e-4)


@pytest.mark.parametrize("n_bars", [1, 2, 3, 17])
def test_short_songs_and_constant_ones_are_finite(n_bars):
    values, context, grid = random_bars(n_bars)
    for scale in (1.0, 0.0):
        found = bar_features(scale * values, scale * context, Units.bars(grid))
        assert np.isfinite(found.values).all() and np.isfinite(found.pairs).all()


def test_rows_that_do_not_match_are_refused():
    values, context, grid = random_bars()
    with pytest.raises(ParameterError, match="96 beats, 95 rows"):
        bar_features(values[:-1], context, Units.bars(grid))

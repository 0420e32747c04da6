"""Vectors on one scale, and how far apart they are: laws, and SciPy's distances."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from editorbot_core.analysis.dsp.vectors import squared_distances, standardised


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(0.1, 1e3), st.floats(-10, 10))
def test_standardised_columns_have_no_mean_and_unit_deviation_whatever_their_unit(
    n: int, seed: int, scale: float, offset: float
) -> None:
    values = np.random.default_rng(seed).normal(size=(n, 3))
    scaled = standardised(values)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(standardised(scale * values + offset), scaled, atol=1e-5)
    np.testing.assert_allclose(standardised(scaled), scaled, atol=1e-9)


def test_a_column_that_does_not_vary_becomes_zero() -> None:
    constant = np.full((7, 2), 0.1, dtype=np.float32)
    constant[:, 1] = 1e6
    assert not standardised(constant).any()


def test_squared_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 5)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(squared_distances(a, b), cdist(a, b, "sqeuclidean"), rtol=1e-9)
    assert (squared_distances(a, a).diagonal() >= 0).all()
    assert squared_distances(a.astype(np.float32), b.astype(np.float32)).dtype == np.float32

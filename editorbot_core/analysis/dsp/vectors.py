"""Rows of features as vectors: on one scale, and how far apart they are."""

import numpy as np

# A column whose deviation is below this share of its largest value does not vary: what is left of it is rounding.
_LEAST_DEVIATION = 1e-6


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns of zero mean and unit deviation, float64, the shape of `values`; a column that does not vary becomes 0.

    >>> standardised(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    values = np.asarray(values, dtype=np.float64)
    deviation = values.std(axis=0)
    varies = deviation > _LEAST_DEVIATION * (1.0 + np.abs(values).max(axis=0))
    return np.where(varies, (values - values.mean(axis=0)) / np.where(varies, deviation, 1.0), 0.0)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of every row of `a` (n, d) to every row of `b` (m, d), (n, m), in their precision.

    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[25.0, 1.0]]
    """
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.maximum(squared, 0, out=squared))

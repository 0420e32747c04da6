import numpy as np
from numba import njit

from editorbot_core.analysis.dsp.lanes import (
    LANES,
    WIDE_LANES,
    bits_if_greater,
    choose_if_less,
    exponent,
    fill,
    fill_many,
    load,
    load_many,
    mantissa,
    maximum,
    minimum,
    narrow,
    one_if_less,
    square_root,
    store,
    widen,
)

A = np.array([0.5, -1.0, 3.0, 8.0, 1e-10, 2.0, 7.0, 6.0])
B = np.array([0.5, 2.0, -3.0, 9.0, 1.0, 1e10, 7.5, 5.0])


@njit
def _arithmetic(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    x, y = load(a, 0), load(b, 0)
    store(out, 0, x + y)
    store(out, 8, x - y * 2.0)
    store(out, 16, 3 * x / y)
    store(out, 24, maximum(x, y))
    store(out, 32, minimum(x, 1.0))
    store(out, 40, one_if_less(x, y))
    store(out, 48, choose_if_less(x, y, fill(1.0), x))


def test_operations_are_those_of_numpy() -> None:
    out = np.empty((7, LANES))
    _arithmetic(A, B, out)
    expected = [
        *(A + B, A - 2 * B, 3 * A / B, np.maximum(A, B), np.minimum(A, 1.0)),
        *((A < B).astype(float), np.where(A < B, 1.0, A)),
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-15)


@njit
def _whole_powers(a: np.ndarray, out: np.ndarray) -> None:
    x = load(a, 0)
    store(out, 0, exponent(x))
    store(out, 8, mantissa(x))
    store(out, 16, square_root(x))


def test_a_number_is_its_mantissa_times_a_power_of_two() -> None:
    out = np.empty((3, LANES))
    _whole_powers(np.abs(A), out)
    assert ((out[1] >= 1) & (out[1] < 2)).all()
    np.testing.assert_array_equal(out[1] * 2.0 ** out[0], np.abs(A))
    np.testing.assert_allclose(out[2], np.sqrt(np.abs(A)), rtol=1e-15)


@njit
def _greater(a: np.ndarray, b: np.ndarray) -> int:
    return bits_if_greater(load(a, 0), load(b, 0))


def test_lane_zero_is_the_lowest_bit() -> None:
    assert _greater(A, B) == sum(1 << i for i in range(LANES) if A[i] > B[i]) == 0b10000100


@njit
def _single(a: np.ndarray, single: np.ndarray, double: np.ndarray) -> None:
    for place in range(0, len(a), WIDE_LANES):
        store(single, place, load_many(a, place) * 2.0 - fill_many(np.float32(1.0)))
    for place in range(0, len(a), LANES):
        store(double, place, widen(load(a, place)))
        store(a, place, narrow(load(double, place) * 0.1))


def test_single_precision_and_back() -> None:
    a = np.arange(32, dtype=np.float32)
    single, double = np.empty_like(a), np.empty(32)
    _single(a, single, double)
    np.testing.assert_array_equal(single, 2 * np.arange(32) - 1)
    np.testing.assert_array_equal(double, np.arange(32))
    np.testing.assert_array_equal(a, (np.arange(32) * 0.1).astype(np.float32))

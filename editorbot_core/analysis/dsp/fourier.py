"""Power spectra of eight frames at a time, each frame in a vector lane of its own, in double precision.

The real transform of 2,048 samples is a complex one of half the size over even and odd samples (Cooley, Lewis and
Welch 1970), computed as 32 by 32: transforms of 32 numbers, twiddle factors, transforms of 32 numbers. These are
unrolled into vector instructions.
"""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from editorbot_core.analysis.dsp.filterbanks import HOP_LENGTH, N_BINS, N_FFT, hann_window
from editorbot_core.analysis.dsp.lanes import LANES, constant, intrinsic, load, load_at, pointer_to, store, store_at

_SIDE = 32
_N_COMPLEX = _SIDE * _SIDE
# Rows are padded by a vector: at a distance of a power of two they would compete for the same cache lines.
_ROW = (_SIDE + 1) * LANES
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = ("contract", "nsz", "nnan")

Complex = tuple[ir.Value, ir.Value]


class _Emitter:
    """Emits complex arithmetic on pairs of vectors, real and imaginary part."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def add(self, a: Complex, b: Complex) -> Complex:
        return self.builder.fadd(a[0], b[0], flags=_FLAGS), self.builder.fadd(a[1], b[1], flags=_FLAGS)

    def subtract(self, a: Complex, b: Complex) -> Complex:
        return self.builder.fsub(a[0], b[0], flags=_FLAGS), self.builder.fsub(a[1], b[1], flags=_FLAGS)

    def minus_i_times(self, a: Complex) -> Complex:
        return a[1], self.builder.fneg(a[0], flags=_FLAGS)

    def times(self, a: Complex, real: ir.Value, imaginary: ir.Value) -> Complex:
        def product(x: ir.Value, y: ir.Value) -> ir.Value:
            return self.builder.fmul(x, y, flags=_FLAGS)

        return (
            self.builder.fsub(product(a[0], real), product(a[1], imaginary), flags=_FLAGS),
            self.builder.fadd(product(a[1], real), product(a[0], imaginary), flags=_FLAGS),
        )

    def rotate(self, a: Complex, step: int, n_steps: int) -> Complex:
        """Times exp(-2 pi i step / n_steps)."""
        if step == 0:
            return a
        if 4 * step == n_steps:
            return self.minus_i_times(a)
        angle = -2 * np.pi * step / n_steps
        return self.times(a, *(constant(self.builder, _VECTOR, float(part)) for part in (np.cos(angle), np.sin(angle))))

    def transform(self, values: list[Complex]) -> list[Complex]:
        """Discrete Fourier transform, decimated in time by four, and by two in the last step."""
        n = len(values)
        if n == 1:
            return values
        if n == 2:
            return [self.add(*values), self.subtract(*values)]
        parts = [self.transform(values[i::4]) for i in range(4)]
        found: list[Complex] = [values[0]] * n
        for k in range(n // 4):
            a, b, c, d = (self.rotate(parts[i][k], i * k, n) for i in range(4))
            even, odd = self.add(a, c), self.add(b, d)
            even_rest, odd_rest = self.subtract(a, c), self.minus_i_times(self.subtract(b, d))
            found[k], found[k + n // 2] = self.add(even, odd), self.subtract(even, odd)
            found[k + n // 4] = self.add(even_rest, odd_rest)
            found[k + 3 * n // 4] = self.subtract(even_rest, odd_rest)
        return found


@intrinsic
def _first_transforms(
    typing_context: Any,
    hops: types.Array,
    first: types.Integer,
    width: types.Integer,
    place: types.Integer,
    window: types.Array,
    twiddles: types.Array,
    real: types.Array,
    imaginary: types.Array,
) -> Any:
    """Transform the samples at `place` of 32, windowed, over the other 32 and multiply by the twiddle factors.

    hops (512, width) holds in column `i` the samples of hop `i`; the frame of lane 0 begins with hop `first`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointers = [
            pointer_to(context, builder, kind, value)
            for kind, value in zip(signature.args, arguments, strict=True)
            if isinstance(kind, types.Array)
        ]
        samples, gains, factors, real_part, imaginary_part = pointers
        first, width, place = arguments[1:4]
        number, emitter = place.type, _Emitter(builder)

        def broadcast(pointer: ir.Value, index: ir.Value) -> ir.Value:
            return constant(builder, _VECTOR, builder.load(builder.gep(pointer, [index])))

        def sample(index: int, odd: int) -> ir.Value:
            # Twice `place` and a multiple of 64 make the sample of the frame, which lies in one of its four hops.
            hop, row = divmod(2 * _SIDE * index, HOP_LENGTH)
            within = builder.add(builder.mul(place, number(2)), number(row + odd))
            at = builder.add(builder.mul(within, width), builder.add(first, number(hop)))
            value = builder.fpext(load_at(builder, samples, at, LANES), _VECTOR)
            gain = builder.add(builder.mul(place, number(2)), number(2 * _SIDE * index + odd))
            return builder.fmul(value, broadcast(gains, gain), flags=_FLAGS)

        found = emitter.transform([(sample(i, 0), sample(i, 1)) for i in range(_SIDE)])
        for k, value in enumerate(found):
            if k > 0:
                factor = builder.add(builder.mul(place, number(2 * _SIDE)), number(2 * k))
                parts = [broadcast(factors, builder.add(factor, number(part))) for part in range(2)]
                value = emitter.times(value, *parts)
            at = builder.add(builder.mul(place, number(LANES)), number(k * _ROW))
            store_at(builder, real_part, at, value[0])
            store_at(builder, imaginary_part, at, value[1])
        return context.get_dummy_value()

    whole = types.intp
    return types.void(hops, whole, whole, whole, window, twiddles, real, imaginary), generate


@intrinsic
def _transform_row(typing_context: Any, real: types.Array, imaginary: types.Array, row: types.Integer) -> Any:
    """Transform the 32 numbers of a row in place."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointers = [pointer_to(context, builder, signature.args[i], arguments[i]) for i in range(2)]
        number = arguments[2].type
        start = builder.mul(arguments[2], number(_ROW))
        places = [builder.add(start, number(i * LANES)) for i in range(_SIDE)]
        values = [tuple(load_at(builder, pointer, place, LANES) for pointer in pointers) for place in places]
        for place, value in zip(places, _Emitter(builder).transform(values), strict=True):
            for pointer, part in zip(pointers, value, strict=True):
                store_at(builder, pointer, place, part)
        return context.get_dummy_value()

    return types.void(real, imaginary, types.intp), generate


@njit(cache=True, nogil=True)
def _unpack(
    real: np.ndarray, imaginary: np.ndarray, k: int, other: int, factors: np.ndarray, power: np.ndarray
) -> None:
    """Powers of bins k and 1,024 - k, from the complex transform at k and at `other`, the index of the mirrored bin."""
    at = k % _SIDE * _ROW + k // _SIDE * LANES
    partner = other % _SIDE * _ROW + other // _SIDE * LANES
    a_real, a_imaginary = load(real, at), load(imaginary, at)
    b_real, b_imaginary = load(real, partner), load(imaginary, partner)
    even_real, even_imaginary = a_real + b_real, a_imaginary - b_imaginary
    odd_real, odd_imaginary = a_imaginary + b_imaginary, b_real - a_real
    cosine, sine = factors[2 * k], factors[2 * k + 1]
    turned_real = odd_real * cosine - odd_imaginary * sine
    turned_imaginary = odd_imaginary * cosine + odd_real * sine
    x_real, x_imaginary = even_real + turned_real, even_imaginary + turned_imaginary
    y_real, y_imaginary = even_real - turned_real, even_imaginary - turned_imaginary
    store(power, k * LANES, x_real * x_real + x_imaginary * x_imaginary)
    store(power, (_N_COMPLEX - k) * LANES, y_real * y_real + y_imaginary * y_imaginary)


@njit(cache=True, nogil=True)
def power_of_frames(hops: np.ndarray, first: int, transform: tuple[np.ndarray, ...], power: np.ndarray) -> None:
    """Power spectra of the frames that begin with hops `first` to `first + 7`, into power, float64 (1025 * 8,).

    Args:
        hops: float32 (512, n), a hop of samples per column.
        first: Column in which the frame of lane 0 begins.
        transform: Results of `tables` and `workspace`, concatenated.
        power: Output; element 8 k + i is bin k of the frame in lane i.
    """
    window, twiddles, factors, real, imaginary = transform
    width = hops.shape[1]
    for place in range(_SIDE):
        _first_transforms(hops, first, width, place, window, twiddles, real, imaginary)
    for row in range(_SIDE):
        _transform_row(real, imaginary, row)
    _unpack(real, imaginary, 0, 0, factors, power)
    for k in range(1, _N_COMPLEX // 2 + 1):
        _unpack(real, imaginary, k, _N_COMPLEX - k, factors, power)


@cache
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The window, halved; twiddle factors of 32 by 32; exp(-2 pi i k / 2048); real and imaginary parts interleaved."""
    places = np.arange(_SIDE)
    twiddles = np.exp(-2j * np.pi * np.outer(places, places) / _N_COMPLEX)
    factors = np.exp(-2j * np.pi * np.arange(N_BINS) / N_FFT)
    return 0.5 * hann_window(), twiddles.ravel().view(np.float64), factors.view(np.float64)


def workspace() -> tuple[np.ndarray, np.ndarray]:
    """Buffers for the real and the imaginary part."""
    return np.empty(_SIDE * _ROW), np.empty(_SIDE * _ROW)

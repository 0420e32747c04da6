"""Vectors for numba kernels: SIMD operations that do not depend on the compiler's vectorisation of loops.

A kernel loads `LANES` neighbours of a contiguous array, computes with `+`, `-`, `*`, `/` and the functions below, and
stores them. Other operands of an operator may be scalars. Indices count elements of the flat array and are not checked.
Multiplications and additions may be fused.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.extending import models, overload, register_model

# Numba calls an intrinsic with other arguments than its definition has, which no type checker can know.
intrinsic: Any = extending.intrinsic

LANES = 8
WIDE_LANES = 16

_FLAGS = ("contract", "nsz", "nnan")


class Lanes(types.Type):
    """Numba's type of `n` numbers of one floating type, held in vector registers."""

    def __init__(self, n: int, element: types.Float) -> None:
        self.n = n
        self.element = element
        super().__init__(name=f"Lanes({n}, {element})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, llvm_type(lanes))


def llvm_type(lanes: Lanes) -> ir.VectorType:
    """The type of such a vector in LLVM."""
    return ir.VectorType(ir.DoubleType() if lanes.element == types.float64 else ir.FloatType(), lanes.n)


def constant(builder: ir.IRBuilder, vector: ir.VectorType, value: ir.Value | float) -> ir.Value:
    """A vector whose lanes all hold `value`, a number or a scalar of LLVM."""
    if not isinstance(value, ir.Value):
        return ir.Constant(vector, [value] * vector.count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


def pointer_to(context: Any, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value) -> ir.Value:
    """Pointer to the first element of an array."""
    return context.make_array(array_type)(context, builder, array).data


def load_at(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, n: int) -> ir.Value:
    """Load the `n` elements from `index` on."""
    place = builder.gep(pointer, [index])
    vector = ir.VectorType(place.type.pointee, n)
    return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)


def store_at(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Store a vector from `index` on."""
    place = builder.gep(pointer, [index])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4)


def _loader(n: int) -> Any:
    @intrinsic
    def load(typing_context: Any, array: Any, index: types.Integer) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return load_at(builder, pointer_to(context, builder, signature.args[0], arguments[0]), arguments[1], n)

        return Lanes(n, array.dtype)(array, types.intp), generate

    return load


load = _loader(LANES)
load_many = _loader(WIDE_LANES)


@intrinsic
def store(typing_context: Any, array: types.Array, index: types.Integer, value: Lanes) -> Any:
    """Store a vector in an array of its type, from `index` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        store_at(builder, pointer_to(context, builder, signature.args[0], arguments[0]), arguments[1], arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _binary(emit: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value], result: Callable[[Lanes], Any]) -> Any:
    """A function of two vectors, or of a vector and a scalar; `emit` writes its instructions."""

    @intrinsic
    def function(typing_context: Any, a: Any, b: Any) -> Any:
        lanes = a if isinstance(a, Lanes) else b
        vector = llvm_type(lanes)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            sides = [
                value if isinstance(kind, Lanes) else constant(builder, vector, value)
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            return emit(builder, *sides)

        sides = [side if isinstance(side, Lanes) else lanes.element for side in (a, b)]
        return result(lanes)(*sides), generate

    return function


def _unary(emit: Callable[[ir.IRBuilder, ir.Value], ir.Value], element: types.Float | None = None) -> Any:
    """A function of a vector; `emit` writes its instructions, and the elements of the result are of type `element`."""

    @intrinsic
    def function(typing_context: Any, a: Lanes) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return emit(builder, arguments[0])

        return Lanes(a.n, element or a.element)(a), generate

    return function


def _same(lanes: Lanes) -> Lanes:
    return lanes


def _operator(emit: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value], symbol: Callable[..., Any]) -> None:
    function = _binary(emit, _same)

    def apply(a: Any, b: Any) -> Any:
        return function(a, b)

    @overload(symbol)
    def implementation(a: Any, b: Any) -> Any:
        return apply if isinstance(a, Lanes) or isinstance(b, Lanes) else None


_operator(lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS), operator.add)
_operator(lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS), operator.sub)
_operator(lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS), operator.mul)
_operator(lambda builder, a, b: builder.fdiv(a, b, flags=_FLAGS), operator.truediv)


def _select(symbol: str) -> Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]:
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(symbol, a, b, flags=_FLAGS), a, b)


def _mask(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    bits = builder.bitcast(builder.fcmp_ordered(">", a, b), ir.IntType(a.type.count))
    return builder.zext(bits, ir.IntType(64))


def _one_if_less(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(
        builder.fcmp_ordered("<", a, b), constant(builder, a.type, 1.0), constant(builder, a.type, 0.0)
    )


def _square_root(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    name = f"v{a.type.count}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    function = ir.FunctionType(a.type, [a.type])
    module = builder.module
    called = module.globals.get(f"llvm.sqrt.{name}") or ir.Function(module, function, f"llvm.sqrt.{name}")
    return builder.call(called, [a])


def _cast(emit: str, element: ir.Type) -> Callable[[ir.IRBuilder, ir.Value], ir.Value]:
    return lambda builder, a: getattr(builder, emit)(a, ir.VectorType(element, a.type.count))


_EXPONENT_BITS = 52


def _exponent(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    whole = ir.VectorType(ir.IntType(64), a.type.count)
    shifted = builder.lshr(builder.bitcast(a, whole), constant(builder, whole, _EXPONENT_BITS))
    return builder.fsub(builder.sitofp(shifted, a.type), constant(builder, a.type, 1023.0))


def _mantissa(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    whole = ir.VectorType(ir.IntType(64), a.type.count)
    kept = builder.and_(builder.bitcast(a, whole), constant(builder, whole, 2**_EXPONENT_BITS - 1))
    return builder.bitcast(builder.or_(kept, constant(builder, whole, 1023 << _EXPONENT_BITS)), a.type)


# Of two vectors, or a vector and a scalar: lane by lane the larger and the smaller; 1.0 where the first is less, else
# 0.0; an integer whose bits are 1 where the first is greater, lane 0 in the lowest bit.
maximum = _binary(_select(">"), _same)
minimum = _binary(_select("<"), _same)
one_if_less = _binary(_one_if_less, _same)
bits_if_greater = _binary(_mask, lambda lanes: types.int64)

# Of one vector; the last two for positive normal float64 only: the exponent of two and the mantissa, in [1, 2).
square_root = _unary(_square_root)
widen = _unary(_cast("fpext", ir.DoubleType()), types.float64)
narrow = _unary(_cast("fptrunc", ir.FloatType()), types.float32)
exponent = _unary(_exponent)
mantissa = _unary(_mantissa)


@intrinsic
def choose_if_less(typing_context: Any, a: Lanes, b: Lanes, chosen: Lanes, other: Lanes) -> Any:
    """Lane by lane, `chosen` where a < b, and `other` elsewhere."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        a, b, chosen, other = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), chosen, other)

    return chosen(a, b, chosen, other), generate


def _filler(n: int) -> Any:
    @intrinsic
    def fill(typing_context: Any, value: types.Float) -> Any:
        lanes = Lanes(n, value)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return constant(builder, llvm_type(lanes), arguments[0])

        return lanes(value), generate

    return fill


# Vectors whose lanes all hold a scalar, of its type.
fill = _filler(LANES)
fill_many = _filler(WIDE_LANES)

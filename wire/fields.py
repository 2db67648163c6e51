"""Kinds of fields: how one value is checked, written into a header and read back.

A field is a pair of functions from its Python value to its plain value in the header and
back. Both refuse what does not fit with `Unfit`, which the codec turns into the error of the
right side. Knows nothing of messages' order of fields, or of msgpack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from wire.limits import MAX_COUNT, MAX_WEIGHT_BYTES, Limits
from wire.messages import TENSOR_CODINGS, Tensor
from wire.tensors import DTYPE_BYTES, tensor_bytes, tensor_fault


class Unfit(Exception):
    """A value does not fit its field. Never leaves this package."""


Buffers = list[memoryview]


@dataclass(frozen=True, slots=True)
class Field:
    """One field's two directions.

    `encode(value, buffers)` gives the plain value and appends the buffers it holds.
    `decode(plain, sizes)` checks it and appends the sizes of the buffers it announces;
    `attach(checked, frames)` puts those buffers in, once they are here. `max_bytes` is the
    longest that the plain value can be in a header.
    """

    max_bytes: int
    encode: Callable[[Any, Buffers], Any]
    decode: Callable[[Any, list[int]], Any]
    attach: Callable[[Any, Iterator[memoryview]], Any] | None = None


# The longest msgpack form of a number, and of what precedes a string's or list's items.
NUMBER_BYTES = 9
PREFIX_BYTES = 5


def _checked(max_bytes: int, check: Callable[[Any], Any]) -> Field:
    def both_ways(value: Any, _: Any) -> Any:
        return check(value)

    return Field(max_bytes, both_ways, both_ways)


def whole(low: int, high: int) -> Field:
    """An integer from `low` to `high`, both included."""

    # Written out, not through _checked: every chunk and acknowledgement passes here.
    def both_ways(value: Any, _: Any) -> Any:
        # bool is an int to isinstance; here it is not.
        if type(value) is not int:
            raise Unfit(f"expected an integer, got {kind_name(value)}")
        if not low <= value <= high:
            raise Unfit(f"{shown(value)} is not in {low}..{high}")
        return value

    return Field(NUMBER_BYTES, both_ways, both_ways)


def flag() -> Field:
    """True or False, and no number."""

    def check(value: Any) -> Any:
        if type(value) is not bool:
            raise Unfit(f"expected a boolean, got {kind_name(value)}")
        return value

    return _checked(1, check)


def real(low: float) -> Field:
    """A finite number of at least `low`, as a float."""

    def decode(value: Any, _: Any) -> Any:
        if type(value) is not float:
            raise Unfit(f"expected a float, got {kind_name(value)}")
        # Also false for NaN.
        if not low <= value < math.inf:
            raise Unfit(f"{value} is not a finite number of at least {low:g}")
        return value

    def encode(value: Any, _: Any) -> Any:
        # Python's own rule: an int does where a float is declared. The wire has only floats.
        exact = type(value) is int and abs(value) <= MAX_COUNT
        return decode(float(value) if exact else value, _)

    return Field(NUMBER_BYTES, encode, decode)


def optional(field: Field) -> Field:
    """What `field` takes, or None."""

    def encode(value: Any, buffers: Buffers) -> Any:
        return None if value is None else field.encode(value, buffers)

    def decode(value: Any, sizes: list[int]) -> Any:
        return None if value is None else field.decode(value, sizes)

    return Field(field.max_bytes, encode, decode)


def text(max_bytes: int, min_chars: int = 1) -> Field:
    """One printable line of at most `max_bytes` bytes of UTF-8."""

    def check(value: Any) -> Any:
        if type(value) is not str:
            raise Unfit(f"expected a string, got {kind_name(value)}")
        if len(value) < min_chars:
            raise Unfit("is empty")
        if len(value) > max_bytes:
            raise Unfit(f"{len(value)} characters, at most {max_bytes} bytes are allowed")
        # One printable line: what a peer says may end up on a terminal or in a log. Refuses
        # lone surrogates as well, so that encode() below cannot fail.
        if not value.isprintable():
            raise Unfit("holds characters that are not printable")
        if not value.isascii() and len(value.encode()) > max_bytes:
            raise Unfit(f"{len(value.encode())} bytes, at most {max_bytes} are allowed")
        return value

    return _checked(PREFIX_BYTES + max_bytes, check)


def one_of(what: str, allowed: Collection[str]) -> Field:
    """One of a few known strings."""

    def check(value: Any) -> Any:
        if type(value) is not str or value not in allowed:
            raise Unfit(f"{shown(value)} is not {what}")
        return value

    return _checked(PREFIX_BYTES + max(map(len, allowed)), check)


def items(value: Any, max_items: int, types: tuple[type, ...]) -> Any:
    if type(value) not in types:
        raise Unfit(f"expected a list, got {kind_name(value)}")
    if len(value) > max_items:
        raise Unfit(f"{len(value)} items, at most {max_items} are allowed")
    return value


def wholes(max_items: int, high: int) -> Field:
    """A tuple of integers from 0 to `high`; a list in the header."""

    def check(values: Any) -> None:
        for value in values:
            if type(value) is not int or not 0 <= value <= high:
                raise Unfit(f"{shown(value)} is not an integer in 0..{high}")

    def encode(value: Any, _: Any) -> Any:
        check(items(value, max_items, (tuple,)))
        return value

    def decode(value: Any, _: Any) -> Any:
        check(items(value, max_items, (list,)))
        return tuple(value)

    return Field(PREFIX_BYTES + max_items * NUMBER_BYTES, encode, decode)


def buffer(min_bytes: int, max_bytes: int) -> Field:
    """Bytes out of band; their number in the header."""

    size = whole(min_bytes, max_bytes).decode

    def encode(value: Any, buffers: Buffers) -> Any:
        view = as_bytes(value)
        buffers.append(view)
        return size(view.nbytes, [])

    def decode(value: Any, sizes: list[int]) -> Any:
        sizes.append(size(value, []))
        return value

    def attach(_: Any, frames: Iterator[memoryview]) -> Any:
        return next(frames)

    return Field(NUMBER_BYTES, encode, decode, attach)


def as_bytes(value: Any) -> memoryview:
    """A flat view of a buffer's bytes, without copying; Unfit where there is no such view."""
    if type(value) is not memoryview:
        if type(value) is not bytes and type(value) is not bytearray:
            raise Unfit(f"expected bytes, bytearray or memoryview, got {kind_name(value)}")
        return memoryview(value)
    if not value.c_contiguous:
        raise Unfit("the memoryview is not contiguous")
    if value.ndim == 1 and value.format == "B":
        return value
    # cast() refuses a shape with a zero in it.
    return value.cast("B") if value.nbytes else memoryview(b"")


def tensors(limits: Limits) -> Field:
    """A tuple of Tensors; [dtype, shape, order, coding, bytes] each in the header."""

    shape_of = wholes(limits.max_rank, MAX_WEIGHT_BYTES)
    data_of = buffer(0, limits.max_buffer_bytes)
    coding_of = one_of("a tensor's coding", TENSOR_CODINGS)

    def decoded_size(dtype: Any, shape: Any, order: Any, coding: Any, data_bytes: int) -> int:
        fault = tensor_fault(dtype, shape, order, coding, data_bytes)
        if fault is not None:
            raise Unfit(fault)
        size = tensor_bytes(dtype, shape)
        if size > limits.max_buffer_bytes:
            raise Unfit(f"decodes to more than {limits.max_buffer_bytes} bytes")
        return size

    def check_sum(decoded_bytes: int) -> None:
        if decoded_bytes > limits.max_message_bytes:
            raise Unfit(f"decode to more than {limits.max_message_bytes} bytes together")

    def encode(value: Any, buffers: Buffers) -> Any:
        plain = []
        decoded_bytes = 0
        for tensor in items(value, limits.max_tensors, (tuple,)):
            if type(tensor) is not Tensor:
                raise Unfit(f"expected a Tensor, got {kind_name(tensor)}")
            shape = shape_of.encode(tensor.shape, buffers)
            order = shape_of.encode(tensor.order, buffers)
            coding = coding_of.encode(tensor.coding, buffers)
            data_bytes = data_of.encode(tensor.data, buffers)
            described = (tensor.dtype, shape, order, coding, data_bytes)
            decoded_bytes += decoded_size(*described)
            plain.append(described)
        check_sum(decoded_bytes)
        return plain

    def decode(value: Any, sizes: list[int]) -> Any:
        checked = []
        decoded_bytes = 0
        for plain in items(value, limits.max_tensors, (list,)):
            dtype, shape, order, coding, data_bytes = row(plain, 5, "tensor")
            shape = shape_of.decode(shape, sizes)
            order = shape_of.decode(order, sizes)
            coding = coding_of.decode(coding, sizes)
            data_bytes = data_of.decode(data_bytes, sizes)
            decoded_bytes += decoded_size(dtype, shape, order, coding, data_bytes)
            checked.append((dtype, shape, order, coding))
        check_sum(decoded_bytes)
        return checked

    def attach(value: Any, frames: Iterator[memoryview]) -> Any:
        return tuple(_tensor(*described, data=next(frames)) for described in value)

    row_bytes = PREFIX_BYTES + max(map(len, DTYPE_BYTES)) + PREFIX_BYTES
    row_bytes += 2 * shape_of.max_bytes + coding_of.max_bytes + data_of.max_bytes
    return Field(PREFIX_BYTES + limits.max_tensors * row_bytes, encode, decode, attach)


def _tensor(
    dtype: str, shape: tuple[int, ...], order: tuple[int, ...], coding: str, *, data: memoryview
) -> Tensor:
    # Kernels count and index by booleans, and take for granted that one is 0 or 1.
    if (
        dtype == "bool"
        and coding == "raw"
        and numpy.frombuffer(data, numpy.uint8).max(initial=0) > 1
    ):
        raise Unfit("a bool tensor holds bytes other than 0 and 1")
    return Tensor(dtype, shape, order, data, coding)


def row(value: Any, length: int, what: str) -> Any:
    if type(value) is not list or len(value) != length:
        raise Unfit(f"a {what} is a list of {length}")
    return value


def plain_map(limits: Limits) -> Field:
    """A map from strings to nested plain data. Tuples arrive as lists."""

    def check(value: Any, sequences: tuple[type, ...]) -> Any:
        if type(value) is not dict:
            raise Unfit(f"expected a map, got {kind_name(value)}")
        left = limits.max_plain_items
        level: list[Any] = [value]
        # Level by level, so that neither depth nor size is bounded by Python's own stack.
        for _ in range(limits.max_plain_depth):
            left -= len(level)
            if left < 0:
                raise Unfit(f"more than {limits.max_plain_items} items")
            level = [item for each in level for item in _children(each, sequences, limits)]
            if not level:
                return value
        raise Unfit(f"nested deeper than {limits.max_plain_depth}")

    def encode(value: Any, _: Any) -> Any:
        return check(value, (list, tuple))

    def decode(value: Any, _: Any) -> Any:
        return check(value, (list,))

    return Field(limits.max_header_bytes, encode, decode)


def _children(value: Any, sequences: tuple[type, ...], limits: Limits) -> Any:
    kind = type(value)
    if kind is dict:
        for key in value:
            _plain_string(key, limits)
        return value.values()
    if kind in sequences:
        return value
    if kind is str:
        _plain_string(value, limits)
    elif kind is int:
        if not -MAX_COUNT <= value <= MAX_COUNT:
            raise Unfit(f"integer {shown(value)} is out of range")
    elif kind is float:
        if not math.isfinite(value):
            raise Unfit(f"{value} is not a finite number")
    elif value is not None and kind is not bool:
        raise Unfit(f"{kind_name(value)} is not plain data")
    return ()


def _plain_string(value: Any, limits: Limits) -> None:
    if type(value) is not str or not value.isprintable():
        raise Unfit("a string in plain data is not printable text")
    if len(value.encode()) > limits.max_name_bytes:
        raise Unfit(f"a string in plain data is longer than {limits.max_name_bytes} bytes")


def kind_name(value: Any) -> str:
    return type(value).__name__


def shown(value: Any) -> str:
    text = ascii(value) if type(value) in (int, float, str, bool, type(None)) else kind_name(value)
    return text if len(text) <= 40 else text[:37] + "..."

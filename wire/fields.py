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

from wire.limits import MAX_COUNT


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


def row(value: Any, length: int, what: str) -> Any:
    if type(value) is not list or len(value) != length:
        raise Unfit(f"a {what} is a list of {length}")
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


def kind_name(value: Any) -> str:
    return type(value).__name__


def shown(value: Any) -> str:
    text = ascii(value) if type(value) in (int, float, str, bool, type(None)) else kind_name(value)
    return text if len(text) <= 40 else text[:37] + "..."

"""The field that holds plain data of any shape: maps, lists, printable text and finite numbers."""

from __future__ import annotations

import math
from typing import Any

from wire.fields import Field, Unfit, kind_name, shown
from wire.limits import MAX_COUNT, Limits


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

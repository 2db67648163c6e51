"""Each part of a graph as plain data: lists, strings, numbers and bytes.

The plain form may come from a peer: whatever is not one is refused with InvalidGraph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from layergraph.errors import InvalidGraph
from layergraph.nodes import (
    DTYPE_BYTES,
    MAX_RANK,
    Argument,
    Constant,
    ConstantRef,
    Layer,
    Node,
    Ref,
    Symbol,
    TensorSpec,
    Weight,
    WeightRef,
)

MAX_TENSOR_BYTES = 1 << 40
MAX_NESTING = 8
MAX_ARGUMENTS = 4096
_INT64 = 1 << 63


def spec_to_plain(spec: TensorSpec) -> list[Any]:
    return [spec.dtype, list(spec.shape)]


_TAGS = {Ref: "v", WeightRef: "w", ConstantRef: "c"}


def argument_to_plain(argument: Argument) -> Any:
    # Plain scalars stand for themselves; everything else is a list led by a tag, so that
    # "v" the string and v the reference cannot be mistaken for each other.
    match argument:
        case Ref(number) | WeightRef(number) | ConstantRef(number):
            return [_TAGS[type(argument)], number]
        case Symbol(kind, name):
            return ["s", kind, name]
        case tuple():
            return ["l", *map(argument_to_plain, argument)]
        case _:
            return argument


def _fields(row: object, count: int, what: str) -> Sequence[Any]:
    if not isinstance(row, list | tuple) or len(row) != count:
        raise InvalidGraph(f"a {what} is a list of {count} fields")
    return row


def brief(value: object) -> str:
    # Never the text of a container: it may nest deeper than Python's stack.
    if isinstance(value, str):
        return repr(value[:40])
    if (
        value is None
        or isinstance(value, float)
        or (isinstance(value, int) and value.bit_length() < 64)
    ):
        return repr(value)
    return f"a {type(value).__name__}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise InvalidGraph(f"{what} is a string of at most 1024 characters")
    return value


def spec_from_plain(row: object) -> TensorSpec:
    dtype, shape = _fields(row, 2, "tensor spec")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise InvalidGraph(f"unknown element type {brief(dtype)}")
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_RANK
        or not all(map(_is_count, shape))
    ):
        raise InvalidGraph(f"{brief(shape)} is not a shape of at most {MAX_RANK} dimensions")
    spec = TensorSpec(dtype, tuple(shape))
    if spec.reach_bytes > MAX_TENSOR_BYTES:
        raise InvalidGraph(f"a tensor {spec} exceeds {MAX_TENSOR_BYTES} bytes")
    return spec


def weight_from_plain(row: object) -> Weight:
    name, spec, digest, trainable = _fields(row, 4, "weight")
    if not isinstance(digest, bytes) or len(digest) != hashlib.sha256().digest_size:
        raise InvalidGraph("a weight's digest is 32 bytes")
    if not isinstance(trainable, bool):
        raise InvalidGraph("whether a weight is trainable is yes or no")
    return Weight(_text(name, "a weight's name"), spec_from_plain(spec), digest, trainable)


def constant_from_plain(row: object) -> Constant:
    plain_spec, data = _fields(row, 2, "constant")
    spec = spec_from_plain(plain_spec)
    if not isinstance(data, bytes) or len(data) != spec.nbytes:
        raise InvalidGraph(f"a constant {spec} needs {spec.nbytes} bytes of data")
    return Constant(spec, data)


def node_from_plain(row: object) -> Node:
    op, args, kwargs, outputs, module = _fields(row, 5, "node")
    for part in (args, kwargs, outputs):
        if not isinstance(part, list | tuple) or len(part) > MAX_ARGUMENTS:
            raise InvalidGraph("a node's arguments and outputs are lists of at most 4096")
    pairs = [_fields(pair, 2, "keyword argument") for pair in kwargs]
    return Node(
        _text(op, "an operator's name"),
        tuple(argument_from_plain(a) for a in args),
        tuple((_text(name, "an argument's name"), argument_from_plain(a)) for name, a in pairs),
        tuple(None if spec is None else spec_from_plain(spec) for spec in outputs),
        _text(module, "a module path"),
    )


def layer_from_plain(row: object) -> Layer:
    name, start, stop, weights = _fields(row, 4, "layer")
    if not (_is_count(start) and _is_count(stop)):
        raise InvalidGraph("a layer's start and stop are node numbers")
    if not isinstance(weights, list | tuple) or not all(map(_is_count, weights)):
        raise InvalidGraph("a layer's weights are weight numbers")
    return Layer(_text(name, "a layer's name"), start, stop, tuple(weights))


_REFERENCES: Mapping[str, type[Ref] | type[WeightRef] | type[ConstantRef]] = {
    "v": Ref,
    "w": WeightRef,
    "c": ConstantRef,
}
_SYMBOLS = {"dtype", "memory_format", "layout", "device"}


def argument_from_plain(plain: object, depth: int = 0) -> Argument:
    if plain is None or isinstance(plain, bool | float):
        return plain
    if isinstance(plain, int):
        if not -_INT64 <= plain < _INT64:
            raise InvalidGraph("a number needs more than 64 bits")
        return plain
    if isinstance(plain, str):
        return _text(plain, "a string argument")
    if depth >= MAX_NESTING:
        raise InvalidGraph(f"arguments nest deeper than {MAX_NESTING}")
    match plain:
        case ["v" | "w" | "c" as tag, int(number)] if _is_count(number):
            return _REFERENCES[tag](number)
        case ["s", str(kind), str(name)] if kind in _SYMBOLS and len(name) <= 64:
            return Symbol(kind, name)
        case ["l", *items]:
            if len(items) > MAX_ARGUMENTS:
                raise InvalidGraph(f"a list of {len(items)} items; it may have at most 4096")
            return tuple(argument_from_plain(item, depth + 1) for item in items)
    raise InvalidGraph(f"an argument cannot be {brief(plain)}")

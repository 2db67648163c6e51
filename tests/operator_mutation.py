"""Changes to a call's arguments, most of them small, all of types that the schema takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from layergraph.nodes import Symbol
from layergraph.ops import Operator
from layergraph.symbols import DTYPES, LAYOUTS, MEMORY_FORMATS
from tests.operator_seeds import Call, Given

INTS = (
    0, 1, 2, 3, 4, 5, 7, 8, 16, 63, 64, 255, 4095, 4096, 4097, 1 << 15, 1 << 20, (1 << 31) - 1,
    1 << 31, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 1e-38, 1e-6, 1e6, 1e38, 1e300, float("inf"), float("-inf"),
    float("nan"), 0.1, 1.5, 1 / 3,
)  # fmt: skip
SIZES = (0, 1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 127, 1000)
LARGE = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 31, 1 << 40)
STRINGS = (
    "", "none", "mean", "sum", "same", "valid", "constant", "reflect", "replicate", "circular",
    "floor", "trunc", "tanh", "ortho", "forward", "backward", "ij", "xy", "bij,bjk->bik",
    "ij,jk->ik", "ii->i", "ii", "ij->ji", "...i->...", "i,i", "ij,ij->", "a,b,c->abc", "é",
)  # fmt: skip
COMMON = ("float32", "float32", "float64", "int64", "int32", "bool")
LAYOUTS_IN_MEMORY = ("dense", "permuted", "gaps", "stretched")
NAMES = {"ScalarType": ("dtype", DTYPES), "MemoryFormat": ("memory_format", MEMORY_FORMATS),
         "Layout": ("layout", LAYOUTS), "Device": ("device", {"": None})}  # fmt: skip


def mutated(rng: random.Random, operator: Operator, seed: Call) -> Call:
    """The call with one to four of its arguments, or parts of them, changed."""
    named = {parameter.name: parameter.type for parameter in operator.parameters}
    positional = [parameter for parameter in operator.parameters if not parameter.keyword_only]
    args, kwargs = list(seed.args), dict(seed.kwargs)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.random() < 0.15 and not _named_one_more(rng, operator, args, kwargs):
            continue
        if kwargs and (not args or rng.random() < 0.25):
            name = rng.choice(sorted(kwargs))
            kwargs[name] = _changed(rng, kwargs[name], named[name])
        elif args:
            at = rng.randrange(len(args))
            args[at] = _changed(rng, args[at], positional[at].type)
    return Call(tuple(args), kwargs)


def _named_one_more(
    rng: random.Random, operator: Operator, args: list[Any], kwargs: dict[str, Any]
) -> bool:
    free = [
        parameter
        for number, parameter in enumerate(operator.parameters)
        if parameter.name not in kwargs and (parameter.keyword_only or number >= len(args))
    ]
    if free:
        parameter = rng.choice(free)
        kwargs[parameter.name] = _fresh(rng, parameter.type)
    return not free


def _changed(rng: random.Random, value: Any, kind: str) -> Any:
    inner = kind.removeprefix("Optional[").removesuffix("]") if kind[0] == "O" else kind
    if kind != inner and rng.random() < 0.1:
        return None
    if value is None:
        return _fresh(rng, inner)
    if isinstance(value, Given):
        return _tensor(rng, value)
    if isinstance(value, tuple):
        return _list(rng, value, inner)
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-2, -1, 1, 2)) if rng.random() < 0.7 else -value
    return _fresh(rng, inner)


def _list(rng: random.Random, value: tuple[Any, ...], kind: str) -> Any:
    items = list(value)
    element = kind.removeprefix("List[").removesuffix("]")
    match rng.randrange(8):
        case 0:
            items.insert(rng.randint(0, len(items)), _fresh(rng, element))
        case 1 if items:
            del items[rng.randrange(len(items))]
        case 2 if items and kind == "List[int]":
            return rng.choice(items)
        case 3:
            rng.shuffle(items)
        case 4 if items:
            items = [rng.choice(items) for _ in items]
        case _ if items:
            at = rng.randrange(len(items))
            items[at] = _changed(rng, items[at], element)
    return tuple(items)


def _tensor(rng: random.Random, given: Given) -> Given:
    shape = list(given.shape)
    match rng.randrange(10):
        case 0 | 1 | 2 if shape:
            at = rng.randrange(len(shape))
            near = (shape[at] - 1, shape[at] + 1, 2 * shape[at])
            shape[at] = max(0, rng.choice((*near, rng.choice(SIZES))))
            if rng.random() < 0.03:
                shape[at] = rng.choice(LARGE)
        case 3:
            shape.insert(rng.randint(0, len(shape)), rng.choice(SIZES))
        case 4 if shape:
            del shape[rng.randrange(len(shape))]
        case 5:
            rng.shuffle(shape)
        case 6:
            dtype = rng.choice(COMMON if rng.random() < 0.6 else tuple(DTYPES))
            return replace(given, dtype=dtype)
        case 7:
            return replace(given, wild=True)
        case _:
            return replace(given, layout=rng.choice(LAYOUTS_IN_MEMORY))
    return replace(given, shape=tuple(shape))


def _fresh(rng: random.Random, kind: str) -> Any:
    if kind.startswith("Optional["):
        return None if rng.random() < 0.2 else _fresh(rng, kind[9:-1])
    if kind.startswith("List["):
        return tuple(_fresh(rng, kind[5:-1]) for _ in range(rng.randrange(5)))
    if kind in NAMES:
        name, known = NAMES[kind]
        return Symbol(name, rng.choice(tuple(known)))
    return _SCALARS[kind](rng)


def _int(rng: random.Random) -> int:
    value = rng.choice(INTS[:8] if rng.random() < 0.7 else INTS)
    return -value - 1 if rng.random() < 0.3 else value


def _any_tensor(rng: random.Random) -> Given:
    shape = tuple(rng.choice(SIZES) for _ in range(rng.randrange(5)))
    return Given(rng.choice(COMMON), shape, rng.choice((None, 2, 9)))


_SCALARS: dict[str, Callable[[random.Random], Any]] = {
    "Tensor": _any_tensor,
    "int": _int,
    "float": lambda rng: rng.choice(FLOATS),
    "number": lambda rng: rng.choice((_int(rng), rng.choice(FLOATS), rng.random() < 0.5)),
    "bool": lambda rng: rng.random() < 0.5,
    "str": lambda rng: rng.choice(STRINGS),
}

"""Tensors that lie against memory that nobody may touch: one byte beyond them is a fault."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from layergraph.nodes import DTYPE_BYTES
from layergraph.symbols import DTYPES
from tests.operator_seeds import Given

ROOM = 4 << 20
CANARY = bytes(range(1, 65))
_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_WILD = (0, 1, -1, 2, 5, 8, 9, 100, 255, -128, 1 << 15, (1 << 31) - 1, 1 << 31, -(1 << 31),
         1 << 40, (1 << 63) - 1, -(1 << 63))  # fmt: skip
_WILD_FLOATS = (0.0, 1.0, -1.0, 1e38, -1e38, 1e-40, float("inf"), float("-inf"), float("nan"))


class Room:
    """Some pages between two that must not be read or written."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, ROOM + 2 * _PAGE)
        self._bytes: Any = numpy.frombuffer(self._map, numpy.uint8)
        self.address = self._bytes.ctypes.data
        for guard in (self.address, self.address + _PAGE + ROOM):
            if _libc.mprotect(ctypes.c_void_p(guard), _PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._canaries: tuple[int, ...] = ()
        self._span = (0, 0)
        self._before = b""

    def put(self, data: bytes, *, at_end: bool) -> torch.Tensor:
        """The bytes as a flat tensor, against the guard behind it or before it."""
        start = _PAGE + (ROOM - len(data) if at_end else 0)
        stop = start + len(data)
        self._canaries = tuple(
            place
            for place in (start - len(CANARY), stop)
            if _PAGE <= place <= _PAGE + ROOM - len(CANARY)
        )
        for place in self._canaries:
            self._map[place : place + len(CANARY)] = CANARY
        self._map[start:stop] = data
        self._span, self._before = (start, stop), data
        if not data:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self._map, dtype=torch.uint8, count=len(data), offset=start)

    def damage(self) -> str | None:
        """What changed since `put`."""
        if any(self._map[place : place + len(CANARY)] != CANARY for place in self._canaries):
            return "wrote beside its input"
        if self._map[slice(*self._span)] != self._before:
            return "wrote to its input"
        return None

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor is a view of what was put here."""
        return self.address <= tensor.untyped_storage().data_ptr() < self.address + ROOM + 2 * _PAGE


@dataclass
class Memory:
    """Rooms for all tensors of a call, made as they are needed and used again."""

    rooms: list[Room]

    def tensors(self, given: list[Given], seed: int) -> list[torch.Tensor]:
        """A tensor for each, its contents drawn from `seed`."""
        rng = numpy.random.default_rng(seed)
        while len(self.rooms) < len(given):
            self.rooms.append(Room())
        at_end = bool(seed & 1)
        return [
            _laid_out(each, room, rng, at_end=at_end)
            for each, room in zip(given, self.rooms, strict=False)
        ]

    def damages(self, count: int) -> Iterator[str]:
        """What a call did to the first `count` tensors that it must not do."""
        yield from filter(None, (room.damage() for room in self.rooms[:count]))

    def shares(self, tensor: torch.Tensor) -> bool:
        """Whether a result is a view of an argument."""
        return any(room.holds(tensor) for room in self.rooms)


def base_shape(given: Given) -> tuple[int, ...]:
    """Shape of the dense tensor that a view makes the given one of."""
    shape = given.shape
    if not shape or given.layout == "dense":
        return shape
    if given.layout == "permuted":
        return shape[::-1]
    if given.layout == "gaps":
        return (*shape[:-1], 2 * shape[-1])
    return (min(1, shape[0]), *shape[1:])


def _laid_out(given: Given, room: Room, rng: Any, *, at_end: bool) -> torch.Tensor:
    shape = base_shape(given)
    count = int(numpy.prod(shape, dtype=object))
    flat = room.put(_contents(given, count, rng), at_end=at_end)
    base = flat.view(DTYPES[given.dtype]).view(shape)
    if not given.shape or given.layout == "dense":
        return base
    if given.layout == "permuted":
        return base.permute(*reversed(range(base.dim())))
    return base[..., ::2] if given.layout == "gaps" else base.expand(given.shape)


def _contents(given: Given, count: int, rng: Any) -> bytes:
    dtype, item = given.dtype, DTYPE_BYTES[given.dtype]
    if dtype == "bool":
        return bytes(rng.integers(0, 2, count, dtype=numpy.uint8))
    if "int" in dtype:
        if given.wild:
            wild = [value % (1 << 8 * item) for value in _WILD]
            values = rng.choice(numpy.array(wild, numpy.uint64), count)
        else:
            values = rng.integers(0, given.below or 9, count, dtype=numpy.uint64)
        return bytes(values.astype("<u8").view(numpy.uint8).reshape(-1, 8)[:, :item].tobytes())
    parts = count * (2 if "complex" in dtype else 1)
    values = rng.choice(_WILD_FLOATS, parts) if given.wild else rng.standard_normal(parts)
    if dtype == "bfloat16":
        with numpy.errstate(over="ignore"):
            return bytes((values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
    real = {2: "<f2", 4: "<f4", 8: "<f8"}[item // (2 if "complex" in dtype else 1)]
    with numpy.errstate(over="ignore"):
        return bytes(values.astype(real).tobytes())

"""A worker's words, before anything here believes them.

A worker runs a stranger's graph, and may be the stranger's by now. So what it says is as long as
an answer can be, of the kinds that answer, and each field holds what it must: a number that is
none would otherwise reach the load report, and with it every client of the box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgpack

from ionn_edge.workers import jobs
from wire import (
    DEFAULT_LIMITS,
    DTYPE_BYTES,
    ERROR_CODES,
    PRECISIONS,
    TENSOR_CODINGS,
    tensor_bytes,
)
from wire.limits import MAX_COUNT, MAX_LAYER, MAX_WEIGHT_BYTES
from wire.messages import Buffer, Tensor
from wire.tensors import tensor_fault

# The longest says what calibration measured, which no client has a part in.
MAX_HEADER_BYTES = 4 << 20
MAX_CLIENTS_HEADER_BYTES = 64 << 10
_MAX_TEXT = 4096
_MOST_SECONDS = 1e10
# Of an edge itself, not of the protocol.
_CODES = ERROR_CODES | {"device"}

Check: TypeAlias = Callable[[Any], bool]


def header_bytes(prefix: Buffer, asked: type[jobs.Job] | None = None) -> int:
    """Length of the answer's header that follows this prefix. Raises BrokenPipe.

    asked: what it answers, if that is known.
    """
    size = jobs.header_bytes(prefix)
    if size > (MAX_HEADER_BYTES if asked is jobs.Calibrate else MAX_CLIENTS_HEADER_BYTES):
        raise jobs.BrokenPipe(f"a header of {size} bytes")
    return size


def decode_header(header: Buffer) -> tuple[int, list[Any], list[int]]:
    """As jobs.decode_header, of an answer whose tensors a client may be sent."""
    # Unpacking makes room for what is declared, level by level; skipping does not.
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_HEADER_BYTES)
    unpacker.feed(header)
    try:
        parts = unpacker.read_array_header()
        unpacker.skip()
        unpacker.skip()
        buffers = unpacker.read_array_header()
        # Each would be an object here, however short.
        if parts != 3 or buffers > DEFAULT_LIMITS.max_tensors:
            raise ValueError
        for _ in range(buffers):
            unpacker.skip()
    except (msgpack.OutOfData, msgpack.UnpackException, ValueError) as error:
        raise jobs.BrokenPipe(f"not an answer: {type(error).__name__}") from None
    kind, plain, sizes = jobs.decode_header(header)
    if sum(sizes) > DEFAULT_LIMITS.max_message_bytes:
        raise jobs.BrokenPipe(f"buffers of {sum(sizes)} bytes")
    return kind, plain, sizes


def decode(kind: int, plain: list[Any], buffers: Sequence[Buffer]) -> jobs.Job:
    """The answer, every field of which holds what it must. Raises BrokenPipe."""
    answer = jobs.decode(kind, plain, buffers)
    checks = _CHECKS.get(type(answer))
    if checks is None:
        raise jobs.BrokenPipe(f"{type(answer).__name__} is no answer")
    for name, check in zip(jobs.NAMES[type(answer)], checks, strict=True):
        if not check(getattr(answer, name)):
            raise jobs.BrokenPipe(f"{type(answer).__name__}.{name} is nonsense")
    return answer


def _whole(high: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= high


def _one_of(known: frozenset[str] | Sequence[str]) -> Check:
    return lambda value: type(value) is str and value in known


def _seconds(value: Any) -> bool:
    # Of the monotonic clock, too: seconds since the machine started.
    return type(value) is float and 0.0 <= value < _MOST_SECONDS


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= _MAX_TEXT


def _tuple_of(check: Check, most: int) -> Check:
    return lambda value: type(value) is tuple and len(value) <= most and all(map(check, value))


def _tensor(tensor: Tensor) -> bool:
    if not (_dimensions(tensor.shape) and _dimensions(tensor.order)):
        return False
    if not (_dtype(tensor.dtype) and _one_of(TENSOR_CODINGS)(tensor.coding)):
        return False
    data_bytes = memoryview(tensor.data).nbytes
    fault = tensor_fault(tensor.dtype, tensor.shape, tensor.order, tensor.coding, data_bytes)
    decoded_bytes = tensor_bytes(tensor.dtype, tensor.shape)
    return fault is None and decoded_bytes <= DEFAULT_LIMITS.max_buffer_bytes


def _tensors(value: Any) -> bool:
    # jobs.decode makes it a tuple of Tensors, of which nothing is known.
    if len(value) > DEFAULT_LIMITS.max_tensors or not all(map(_tensor, value)):
        return False
    together = sum(tensor_bytes(tensor.dtype, tensor.shape) for tensor in value)
    return together <= DEFAULT_LIMITS.max_message_bytes - DEFAULT_LIMITS.max_header_bytes


def _sample(row: Any) -> bool:
    # Measured by a worker that has met no client's graph.
    return type(row) is tuple and len(row) == 4


_dtype = _one_of(tuple(DTYPE_BYTES))
_size = _whole(MAX_WEIGHT_BYTES)
_dimensions = _tuple_of(_size, DEFAULT_LIMITS.max_rank)
_query = _whole(MAX_COUNT)
_CHECKS: Mapping[type[jobs.Job], tuple[Check, ...]] = {
    # Its weights are read as nothing else (see weight_rows).
    jobs.Checked: (_whole(MAX_LAYER), lambda _: True),
    jobs.Refused: (_one_of(_CODES), _text),
    jobs.Ran: (
        _query, _whole(MAX_LAYER), _one_of(PRECISIONS), _seconds, _seconds, _seconds, _tensors,
    ),
    jobs.Failed: (_query, _one_of(ERROR_CODES), _text),
    jobs.Probed: (_text,),
    jobs.Calibrated: (_tuple_of(_sample, MAX_COUNT), _seconds),
    jobs.Escapes: (lambda value: type(value) is bool, _tuple_of(_text, 64), _tuple_of(_text, 64)),
}  # fmt: skip

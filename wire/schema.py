"""What each field of each message may hold: one table, and what fields must be to each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from wire.fields import (
    PREFIX_BYTES,
    Buffers,
    Field,
    Unfit,
    buffer,
    flag,
    items,
    kind_name,
    one_of,
    optional,
    real,
    row,
    text,
    whole,
    wholes,
)
from wire.limits import (
    MAX_COUNT,
    MAX_LAYER,
    MAX_PLANE,
    MAX_THREADS,
    MAX_VERSION,
    MAX_WEIGHT_BYTES,
    Limits,
)
from wire.messages import (
    ERROR_CODES,
    PRECISIONS,
    SEGMENT_CODINGS,
    TENSOR_CODINGS,
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Held,
    Hello,
    Join,
    Joined,
    Load,
    Message,
    ModelLoad,
    Offer,
    Partial,
    Ping,
    Pong,
    Result,
    Segment,
    Unknown,
    Welcome,
)
from wire.plain_field import plain_map
from wire.tensor_field import tensors
from wire.tensors import DTYPE_BYTES

Fields = dict[str, Field]

_ELEMENT_BYTES = max(DTYPE_BYTES.values())
_SEGMENT_OVERHEAD_BYTES = 36


def message_fields(limits: Limits) -> dict[type[Message], Fields]:
    """Every message's fields, in the order of the wire, which is the dataclass's own."""
    count = whole(0, MAX_COUNT)
    version = whole(1, MAX_VERSION)
    weight = whole(0, limits.max_weights - 1)
    weight_bytes = whole(0, MAX_WEIGHT_BYTES)
    layer = whole(0, MAX_LAYER)
    seconds = real(0.0)
    name = text(limits.max_name_bytes)
    precision = one_of("a precision", PRECISIONS)
    return {
        Hello: {"oldest_version": version, "version": version, "agent": name},
        Welcome: {
            "version": version,
            "agent": name,
            "epoch": name,
            "device": name,
            "threads": whole(1, MAX_THREADS),
            "memory_bytes": count,
            "max_message_bytes": whole(1, MAX_COUNT),
            "max_chunk_bytes": whole(1, MAX_COUNT),
            "predictor": plain_map(limits),
            "lane": name,
            "clock_s": seconds,
        },
        Join: {"lane": name},
        Joined: {},
        Offer: {"fingerprint": name, "graph": buffer(0, limits.max_graph_bytes)},
        Unknown: {"fingerprint": name},
        Have: {
            "fingerprint": name,
            "epoch": name,
            "runs": _runs(limits),
            "partial": _rows(Partial, MAX_PLANE * limits.max_weights, partial_fields(limits)),
        },
        Segment: {
            "weight": weight,
            "plane": whole(0, MAX_PLANE),
            "start": weight_bytes,
            "count": whole(1, limits.max_segment_bytes),
            "coding": one_of("a segment's coding", SEGMENT_CODINGS),
            "coded_bytes": whole(1, limits.max_segment_bytes),
        },
        Chunk: {"payload": buffer(1, limits.max_chunk_bytes)},
        ChunkAck: {"clock_s": seconds},
        Held: {
            "weight": weight,
            "plane": whole(0, MAX_PLANE),
            "count": weight_bytes,
            "complete": flag(),
        },
        Execute: {
            "query": count,
            "start": layer,
            "stop": layer,
            "deadline_s": optional(seconds),
            "precision": precision,
            "reply_coding": one_of("a tensor's coding", TENSOR_CODINGS),
            "tensors": tensors(limits),
        },
        Result: {
            "query": count,
            "start": layer,
            "stop": layer,
            "precision": precision,
            "queue_s": seconds,
            "coding_s": seconds,
            "compute_s": seconds,
            "tensors": tensors(limits),
        },
        Cancel: {"query": count},
        Ping: {"token": count},
        Pong: {"token": count, "clock_s": seconds},
        GetLoad: {},
        Load: {
            "clients": count,
            "running": count,
            "queued": count,
            "slowdown": real(1.0),
            "used_bytes": count,
            "memory_bytes": count,
            "models": _rows(ModelLoad, limits.max_models, model_fields(limits), _check_model),
        },
        Evicted: {"fingerprint": name, "epoch": name},
        Error: {
            "code": one_of("an error code", ERROR_CODES),
            "text": text(limits.max_text_bytes, min_chars=0),
            "query": optional(count),
        },
        Bye: {"reason": name},
    }


def model_fields(limits: Limits) -> Fields:
    """The fields of one row of Load.models."""
    count = whole(0, MAX_COUNT)
    return {
        "fingerprint": text(limits.max_name_bytes),
        "held_bytes": count,
        "total_bytes": count,
        "clients": count,
        "queries": count,
    }


def partial_fields(limits: Limits) -> Fields:
    """The fields of one row of Have.partial."""
    return {
        "weight": whole(0, limits.max_weights - 1),
        "plane": whole(0, MAX_PLANE),
        "count": whole(1, MAX_WEIGHT_BYTES),
    }


def _runs(limits: Limits) -> Field:
    """Lengths of runs that take turns: none but the first is empty, none is left out."""
    lengths = wholes(limits.max_weights + 1, limits.max_weights)

    def check(value: Any) -> Any:
        if 0 in value[1:]:
            raise Unfit("only the first run may be empty")
        if sum(value) > limits.max_weights:
            raise Unfit(f"runs of {sum(value)} weights, at most {limits.max_weights} are allowed")
        return value

    def encode(value: Any, buffers: Buffers) -> Any:
        return check(lengths.encode(value, buffers))

    def decode(value: Any, sizes: list[int]) -> Any:
        return check(lengths.decode(value, sizes))

    return Field(lengths.max_bytes, encode, decode)


def _rows(
    of: type[Any], max_rows: int, fields: Fields, check: Callable[..., None] | None = None
) -> Field:
    """A tuple of small dataclasses; a list of lists in the header."""

    def encode(value: Any, buffers: Buffers) -> Any:
        rows = []
        for each in items(value, max_rows, (tuple,)):
            if type(each) is not of:
                raise Unfit(f"expected a {of.__name__}, got {kind_name(each)}")
            plain = [field.encode(getattr(each, name), buffers) for name, field in fields.items()]
            if check is not None:
                check(*plain)
            rows.append(plain)
        return rows

    def decode(value: Any, sizes: list[int]) -> Any:
        decoded = []
        for plain in items(value, max_rows, (list,)):
            pairs = zip(fields.values(), row(plain, len(fields), of.__name__), strict=True)
            checked = [field.decode(each, sizes) for field, each in pairs]
            if check is not None:
                check(*checked)
            decoded.append(of(*checked))
        return tuple(decoded)

    row_bytes = PREFIX_BYTES + sum(field.max_bytes for field in fields.values())
    return Field(PREFIX_BYTES + max_rows * row_bytes, encode, decode)


# Checks of fields against each other. They get plain values: a buffer is its length.


def _check_versions(oldest: int, newest: int, _: Any) -> None:
    if oldest > newest:
        raise Unfit(f"oldest_version {oldest} is newer than version {newest}")


def _check_range(_query: Any, start: int, stop: int, *_: Any) -> None:
    if start >= stop:
        raise Unfit(f"layers [{start}, {stop}) are none")


def _check_segment(
    _weight: Any, _plane: Any, start: int, count: int, _coding: Any, coded_bytes: int
) -> None:
    if start + count > MAX_WEIGHT_BYTES:
        raise Unfit(f"ends beyond {MAX_WEIGHT_BYTES} elements")
    # Of no dtype, which only the graph knows: the tight bound is segments.max_coded_bytes.
    most = _ELEMENT_BYTES * count + _SEGMENT_OVERHEAD_BYTES
    if coded_bytes > most:
        raise Unfit(f"{coded_bytes} bytes for {count} elements, at most {most}")


def _check_have(_fingerprint: Any, _epoch: Any, runs: Any, partial: Any) -> None:
    # Rows are lists on their way out, and Partials on their way in.
    keys = [(row.weight, row.plane) if type(row) is Partial else row[:2] for row in partial]
    if any(before >= after for before, after in pairwise(keys)):
        raise Unfit("partial is not in ascending order of weight and plane")
    if keys and keys[-1][0] >= sum(runs):
        raise Unfit(f"partial tells of weight {keys[-1][0]}, runs of {sum(runs)} weights")


def _check_model(_fingerprint: Any, held_bytes: int, total_bytes: int, *_: Any) -> None:
    if held_bytes > total_bytes:
        raise Unfit(f"held_bytes {held_bytes} is more than total_bytes {total_bytes}")


CHECKS: dict[type[Message], Callable[..., None]] = {
    Hello: _check_versions,
    Have: _check_have,
    Segment: _check_segment,
    Execute: _check_range,
    Result: _check_range,
}

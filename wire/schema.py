"""What each field of each message may hold: one table, compiled once per set of limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from wire.fields import (
    PREFIX_BYTES,
    Buffers,
    Field,
    Unfit,
    buffer,
    error_code,
    flag,
    items,
    kind_name,
    optional,
    plain_map,
    real,
    row,
    tensors,
    text,
    whole,
    wholes,
)
from wire.limits import (
    MAX_COUNT,
    MAX_LAYER,
    MAX_THREADS,
    MAX_VERSION,
    MAX_WEIGHT_BYTES,
    Limits,
)
from wire.messages import (
    KINDS,
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Hello,
    Load,
    Message,
    ModelLoad,
    Offer,
    Ping,
    Pong,
    Result,
    Welcome,
)

Fields = dict[str, Field]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read and write one kind of message, with nothing left to look up."""

    kind: int
    type: type[Message]
    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    encoders: tuple[Callable[[Any, Buffers], Any], ...]
    decoders: tuple[Callable[[Any, list[int]], Any], ...]
    max_header_bytes: int
    attachers: tuple[tuple[int, Callable[..., Any]], ...]
    check: Callable[..., None] | None


@lru_cache(maxsize=16)
def plans(limits: Limits) -> dict[int, Plan]:
    """Every kind's plan under these limits."""
    table = message_fields(limits)
    return {kind: _plan(kind, of, table[of], limits) for kind, of in KINDS.items()}


def message_fields(limits: Limits) -> dict[type[Message], Fields]:
    """Every message's fields, in the order of the wire, which is the dataclass's own."""
    count = whole(0, MAX_COUNT)
    version = whole(1, MAX_VERSION)
    weight = whole(0, limits.max_weights - 1)
    weight_bytes = whole(0, MAX_WEIGHT_BYTES)
    layer = whole(0, MAX_LAYER)
    seconds = real(0.0)
    name = text(limits.max_name_bytes)
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
            "clock_s": seconds,
        },
        Offer: {"fingerprint": name, "graph": buffer(1, limits.max_graph_bytes)},
        Have: {
            "fingerprint": name,
            "epoch": name,
            "held_bytes": wholes(limits.max_weights, MAX_WEIGHT_BYTES),
        },
        Chunk: {
            "weight": weight,
            "offset": weight_bytes,
            "payload": buffer(1, limits.max_chunk_bytes),
        },
        ChunkAck: {
            "weight": weight,
            "held_bytes": weight_bytes,
            "complete": flag(),
            "clock_s": seconds,
        },
        Execute: {
            "query": count,
            "start": layer,
            "stop": layer,
            "deadline_s": optional(seconds),
            "tensors": tensors(limits),
        },
        Result: {
            "query": count,
            "start": layer,
            "stop": layer,
            "queue_s": seconds,
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
            "models": _models(limits),
        },
        Evicted: {"fingerprint": name, "epoch": name},
        Error: {
            "code": error_code(),
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


def _models(limits: Limits) -> Field:
    fields = model_fields(limits)

    def encode(value: Any, buffers: Buffers) -> Any:
        rows = []
        for model in items(value, limits.max_models, (tuple,)):
            if type(model) is not ModelLoad:
                raise Unfit(f"expected a ModelLoad, got {kind_name(model)}")
            plain = [field.encode(getattr(model, name), buffers) for name, field in fields.items()]
            _check_model(*plain)
            rows.append(plain)
        return rows

    def decode(value: Any, sizes: list[int]) -> Any:
        models = []
        for plain in items(value, limits.max_models, (list,)):
            pairs = zip(fields.values(), row(plain, len(fields), "model"), strict=True)
            checked = [field.decode(each, sizes) for field, each in pairs]
            _check_model(*checked)
            models.append(ModelLoad(*checked))
        return tuple(models)

    row_bytes = PREFIX_BYTES + sum(field.max_bytes for field in fields.values())
    return Field(PREFIX_BYTES + limits.max_models * row_bytes, encode, decode)


# Checks of fields against each other. They get plain values: a buffer is its length.


def _check_versions(oldest: int, newest: int, _: Any) -> None:
    if oldest > newest:
        raise Unfit(f"oldest_version {oldest} is newer than version {newest}")


def _check_range(_query: Any, start: int, stop: int, *_: Any) -> None:
    if start >= stop:
        raise Unfit(f"layers [{start}, {stop}) are none")


def _check_chunk(_weight: Any, offset: int, payload_bytes: int) -> None:
    if offset + payload_bytes > MAX_WEIGHT_BYTES:
        raise Unfit(f"ends beyond {MAX_WEIGHT_BYTES} bytes")


def _check_model(_fingerprint: Any, held_bytes: int, total_bytes: int, *_: Any) -> None:
    if held_bytes > total_bytes:
        raise Unfit(f"held_bytes {held_bytes} is more than total_bytes {total_bytes}")


_CHECKS: dict[type[Message], Callable[..., None]] = {
    Hello: _check_versions,
    Chunk: _check_chunk,
    Execute: _check_range,
    Result: _check_range,
}


def _plan(kind: int, of: type[Message], fields: Fields, limits: Limits) -> Plan:
    names = tuple(fields)
    numbered = enumerate(fields.values())
    longest = 2 + sum(field.max_bytes for field in fields.values())
    return Plan(
        kind=kind,
        type=of,
        names=names,
        values=_getter(names),
        encoders=tuple(field.encode for field in fields.values()),
        decoders=tuple(field.decode for field in fields.values()),
        max_header_bytes=min(longest, limits.max_header_bytes),
        attachers=tuple((at, f.attach) for at, f in numbered if f.attach is not None),
        check=_CHECKS.get(of),
    )


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    only = attrgetter(names[0])
    return lambda message: (only(message),)

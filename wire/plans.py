"""How to read and write each kind of message: the schema, compiled once per set of limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from wire.fields import Buffers
from wire.limits import Limits
from wire.messages import KINDS, Message
from wire.schema import CHECKS, Fields, message_fields


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
        check=CHECKS.get(of),
    )


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    only = attrgetter(names[0])
    return lambda message: (only(message),)

"""What the server and its worker processes tell each other, and how it is framed.

Plain data only, as on the wire: a worker runs a stranger's graph, so its words are parsed with
as little trust as the stranger's own. A frame is a 4-byte length, a msgpack header
[kind, fields, buffer lengths], and the buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import msgpack

from ionn_edge.workers import weight_rows
from wire.messages import Buffer, Tensor

LENGTH = struct.Struct("!I")
MAX_HEADER_BYTES = 64 << 20
MAX_BUFFERS_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """Server: this is the client's model, whose weights will be files in the directory `store`.

    `known` says that the very same graph was found fit before. Files in `store` are named by
    `key`; weights that are not there are in the directory `published`, named by `published_key`
    (see places). Both directories exist. Answered by Checked or Refused.
    """

    fingerprint: str
    graph: Buffer
    store: str
    known: bool = False
    key: bytes = b""
    published: str = ""
    published_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Checked:
    """Worker: the graph may run. Digest, bytes and dtype of each weight, in the graph's order."""

    layers: int
    weights: tuple[tuple[bytes, int, str], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Worker: the graph may not run."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Server: these weights are in the store at this precision. Not answered.

    "exact" ones are whole and verified; others are the planes of the part of this `number`.
    """

    weights: tuple[int, ...]
    precision: str
    number: int


@dataclass(frozen=True, slots=True)
class Run:
    """Server: run layers [start, stop), as far as weights are ready. Answered by Ran or Failed.

    Weights below `precision` are not ready. `reply_coding` is for the answer's tensors.
    """

    query: int
    start: int
    stop: int
    precision: str
    reply_coding: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """Worker: layers up to `stop` ran; their turn came at `began_s` of the monotonic clock.

    `precision` is the least of their weights.
    """

    query: int
    stop: int
    precision: str
    began_s: float
    coding_s: float
    compute_s: float
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker: the range did not run."""

    query: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Server: is the device there? Answered by Probed or Refused."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Worker: it is, and this is what people call it."""

    device: str


@dataclass(frozen=True, slots=True)
class TryEscapes:
    """Server: try what a worker must not be able to do (see escapes). Answered by Escapes.

    `directory` has what the trial needs; `store` is the part of it that may be read.
    """

    directory: str
    store: str


@dataclass(frozen=True, slots=True)
class Escapes:
    """Worker: whether it can read its store, what held, and what did not, in words."""

    readable: bool
    holds: tuple[str, ...]
    fails: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Server: measure this machine for about so long. Answered by Calibrated."""

    seconds: float
    energy: bool


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Worker: rows of (type, operators' work, seconds, joules), and what entering a range takes."""

    samples: tuple[tuple[str, tuple[tuple[Any, ...], ...], float, float | None], ...]
    entry_s: float


Job: TypeAlias = (
    Check | Checked | Refused | Ready | Run | Ran | Failed | Probe | Probed | Calibrate
    | Calibrated | TryEscapes | Escapes
)  # fmt: skip
KINDS: tuple[type[Job], ...] = (
    Check, Checked, Refused, Ready, Run, Ran, Failed, Probe, Probed, Calibrate, Calibrated,
    TryEscapes, Escapes,
)  # fmt: skip


# What `fields` finds out anew each time: of each type its number and its fields' names.
_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in KINDS}


class BrokenPipe(Exception):
    """The other end of a worker's pipe is gone, or talks nonsense."""


def encode(job: Job) -> list[Buffer]:
    """The job's frame in pieces to send in order; tensors' data uncopied."""
    buffers: list[Buffer] = []
    plain: list[Any] = []
    for name in NAMES[type(job)]:
        value = getattr(job, name)
        if name == "tensors":
            buffers.extend(tensor.data for tensor in value)
            value = [(each.dtype, each.shape, each.order, each.coding) for each in value]
        elif name == "graph":
            # Megabytes, and packing would copy them.
            buffers.append(value)
            value = None
        elif name == "weights" and isinstance(job, Checked):
            buffers.append(weight_rows.packed(value))
            value = None
        plain.append(value)
    sizes = [memoryview(buffer).nbytes for buffer in buffers]
    header: bytes = msgpack.packb([_NUMBERS[type(job)], plain, sizes])
    return [LENGTH.pack(len(header)) + header, *buffers]


def header_bytes(prefix: Buffer) -> int:
    """Length of the header that follows this prefix."""
    size: int = LENGTH.unpack(prefix)[0]
    if size > MAX_HEADER_BYTES:
        raise BrokenPipe(f"a header of {size} bytes")
    return size


def decode_header(header: Buffer) -> tuple[int, list[Any], list[int]]:
    """(kind, fields, lengths of the buffers that follow)."""
    try:
        kind, plain, sizes = msgpack.unpackb(header, use_list=False, max_ext_len=0)
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("a buffer's length is a number")
        if sum(sizes) > MAX_BUFFERS_BYTES:
            raise ValueError(f"buffers of {sum(sizes)} bytes")
        if len(plain) != len(NAMES[KINDS[kind]]):
            raise ValueError(f"{len(plain)} fields of kind {kind}")
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise BrokenPipe(f"not a job: {error}") from None
    return kind, list(plain), list(sizes)


def decode(kind: int, plain: list[Any], buffers: Sequence[Buffer]) -> Job:
    """The job whose header said (kind, plain) and whose buffers have arrived."""
    of = KINDS[kind]
    for number, name in enumerate(NAMES[of]):
        if name == "tensors":
            try:
                pairs = zip(plain[number], buffers, strict=True)
                plain[number] = tuple(
                    Tensor(dtype, shape, order, data, coding)
                    for (dtype, shape, order, coding), data in pairs
                )
            except (TypeError, ValueError) as error:
                raise BrokenPipe(f"not a job: {error}") from None
        elif name == "graph":
            if len(buffers) != 1:
                raise BrokenPipe(f"not a job: {len(buffers)} graphs")
            plain[number] = buffers[0]
        elif name == "weights" and of is Checked:
            try:
                (rows,) = buffers
                plain[number] = weight_rows.unpacked(rows)
            except ValueError as error:
                raise BrokenPipe(f"not a job: {error}") from None
    return of(*plain)

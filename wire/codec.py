"""Message <-> frames: a msgpack header, and the buffers that it announces.

Large buffers have a frame each and are not copied on either way; small ones follow the header
in its frame, because a frame of its own costs more than the copy.

No I/O: a driver hands frames over and gets frames to send. Whatever a peer may send,
`Decoder.feed` raises RemoteProtocolError or returns a message whose every field has been
checked; see docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import accumulate
from typing import Any

import msgpack

from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.fields import Unfit, as_bytes
from wire.limits import DEFAULT_LIMITS, Limits
from wire.messages import Buffer, Message
from wire.plans import Plan, plans

# Buffers of at most so many bytes together go in the header's frame.
INLINE_BYTES = 1 << 16

# msgpack's list of up to 15 items: what every header starts with.
FIXARRAY = 0x90


class Encoder:
    """Turns messages into frames. One per connection; not for two threads at a time.

    Buffers of more than `inline_bytes` together get a frame each.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, inline_bytes: int = INLINE_BYTES) -> None:
        self.limits = limits
        self._inline_bytes = inline_bytes
        self._plans = {plan.type: plan for plan in plans(limits).values()}
        self._pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack

    def encode(self, message: Message) -> list[bytes | memoryview]:
        """Frames to send, in order: the header with small buffers, or then large ones, uncopied.

        Raises LocalProtocolError for what is not a message or breaks a limit.
        """
        plan = self._plans.get(type(message))
        if plan is None:
            raise LocalProtocolError(f"{type(message).__name__} is not a message")
        buffers: list[memoryview] = []
        plain: list[Any] = []
        try:
            for encode_field, value in zip(plan.encoders, plan.values(message), strict=True):
                plain.append(encode_field(value, buffers))
            if plan.check is not None:
                plan.check(*plain)
        except Unfit as unfit:
            raise LocalProtocolError(_text(plan, len(plain), unfit)) from None
        header = self._pack([plan.kind, *plain])
        if len(header) > plan.max_header_bytes:
            raise LocalProtocolError(_too_long(plan, "header", len(header), self.limits))
        buffers_bytes = sum(view.nbytes for view in buffers)
        total = len(header) + buffers_bytes
        if total > self.limits.max_message_bytes:
            raise LocalProtocolError(_too_long(plan, "message", total, self.limits))
        if buffers_bytes <= self._inline_bytes:
            return [b"".join((header, *buffers)) if buffers_bytes else header]
        return [header, *buffers]


class Decoder:
    """Turns a peer's frames into messages. One per connection; of no use after an error.

    heard: types that this side may ever be told; others are refused unseen. None for all.
    """

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, heard: Collection[type[Message]] | None = None
    ) -> None:
        self.limits = limits
        self._heard = heard
        self._plans = plans(limits)
        self._plan: Plan | None = None
        self._plain: list[Any] = []
        self._sizes: list[int] = []
        self._frames: list[memoryview] = []
        self._failed = False

    def __repr__(self) -> str:
        if self._failed:
            return "<Decoder: failed>"
        if self._plan is None:
            return "<Decoder: between messages>"
        arrived = f"{len(self._frames)} of {len(self._sizes)} buffers"
        return f"<Decoder: {self._plan.type.__name__}, {arrived}>"

    def feed(self, frame: Buffer) -> Message | None:
        """The message that this frame completes, or None while buffers are outstanding.

        The message's buffers are views of the frames given here, which must not change.
        Raises RemoteProtocolError("malformed"), after which the connection is of no use.
        """
        if self._failed:
            raise LocalProtocolError("this decoder has failed; end the connection")
        try:
            view = as_bytes(frame)
        except Unfit as unfit:
            raise LocalProtocolError(f"frame: {unfit}") from None
        try:
            if self._plan is None:
                return self._start(view)
            return self._continue(self._plan, view)
        except RemoteProtocolError:
            self._failed = True
            self._frames = []
            raise

    def finish(self) -> None:
        """Tell that the connection has ended. Raises RemoteProtocolError within a message."""
        if self._plan is None or self._failed:
            return
        self._failed = True
        raise RemoteProtocolError(
            f"the connection ended within {self._plan.type.__name__}: "
            f"{len(self._frames)} of {len(self._sizes)} buffers came"
        )

    def _start(self, frame: memoryview) -> Message | None:
        plan = self._plan_of(frame)
        header = frame[: self._header_bytes(plan, frame)]
        plain, sizes = _decode_fields(plan, _unpack(header)[1:])
        inline, announced = frame[header.nbytes :], sum(sizes)
        total = header.nbytes + announced
        if total > self.limits.max_message_bytes:
            raise RemoteProtocolError(_too_long(plan, "message", total, self.limits))
        if inline and inline.nbytes != announced:
            raise RemoteProtocolError(
                f"{plan.type.__name__}: {inline.nbytes} bytes follow the header, "
                f"which announced {announced}"
            )
        if inline or not announced:
            return _build(plan, plain, _cut(inline, sizes))
        self._plan, self._plain, self._sizes, self._frames = plan, plain, sizes, []
        return None

    def _header_bytes(self, plan: Plan, frame: memoryview) -> int:
        """Length of the frame's header, every item of which is really there.

        Unpacking allocates a list for every declared length on the way down, before it finds
        that the items are not there: a thousand nested lists of a million items, in a few
        kilobytes. Skipping builds nothing.
        """
        head = frame[: plan.max_header_bytes]
        unpacker = msgpack.Unpacker(read_size=1, max_buffer_size=head.nbytes)
        unpacker.feed(head)
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            if frame.nbytes > head.nbytes:
                text = _too_long(plan, "header", frame.nbytes, self.limits)
                raise RemoteProtocolError(text) from None
            raise RemoteProtocolError("header is not valid msgpack: it is cut short") from None
        except (ValueError, msgpack.UnpackException) as error:
            raise RemoteProtocolError(_not_msgpack(error)) from None
        length: int = unpacker.tell()
        return length

    def _plan_of(self, header: memoryview) -> Plan:
        # The first two bytes tell the kind and the number of fields, so that what is not of
        # interest, or too long for its kind, is never unpacked.
        if header.nbytes < 2 or header[0] & 0xF0 != FIXARRAY:
            raise RemoteProtocolError("a header is a short list that starts with the kind")
        plan = self._plans.get(header[1])
        if plan is None:
            raise RemoteProtocolError(f"unknown message kind {header[1]}")
        if self._heard is not None and plan.type not in self._heard:
            text = f"{plan.type.__name__} is not for this side to hear"
            raise RemoteProtocolError(text, "unexpected")
        count = (header[0] & 0x0F) - 1
        if count != len(plan.decoders):
            raise RemoteProtocolError(
                f"{plan.type.__name__} has {len(plan.decoders)} fields, not {count}"
            )
        return plan

    def _continue(self, plan: Plan, frame: memoryview) -> Message | None:
        expected = self._sizes[len(self._frames)]
        if frame.nbytes != expected:
            raise RemoteProtocolError(
                f"{plan.type.__name__}: buffer {len(self._frames)} was announced with "
                f"{expected} bytes and came with {frame.nbytes}"
            )
        self._frames.append(frame)
        if len(self._frames) < len(self._sizes):
            return None
        plain, frames = self._plain, self._frames
        self._plan, self._plain, self._sizes, self._frames = None, [], [], []
        return _build(plan, plain, frames)


def _decode_fields(plan: Plan, fields: list[Any]) -> tuple[list[Any], list[int]]:
    plain: list[Any] = []
    sizes: list[int] = []
    try:
        for decode_field, value in zip(plan.decoders, fields, strict=True):
            plain.append(decode_field(value, sizes))
        if plan.check is not None:
            plan.check(*plain)
    except Unfit as unfit:
        raise RemoteProtocolError(_text(plan, len(plain), unfit)) from None
    return plain, sizes


def _build(plan: Plan, plain: list[Any], frames: list[memoryview]) -> Message:
    arriving = iter(frames)
    for number, attach in plan.attachers:
        try:
            plain[number] = attach(plain[number], arriving)
        except Unfit as unfit:
            raise RemoteProtocolError(_text(plan, number, unfit)) from None
    return plan.type(*plain)


def _unpack(header: memoryview) -> list[Any]:
    try:
        plain: list[Any] = msgpack.unpackb(
            header,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_unique,
            ext_hook=_no_extension,
            # Every extension type with content, the built-in timestamp included.
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(_not_msgpack(error)) from None
    return plain


def _not_msgpack(error: Exception) -> str:
    return f"header is not valid msgpack: {str(error) or type(error).__name__}"


def _cut(inline: memoryview, sizes: list[int]) -> list[memoryview]:
    ends = list(accumulate(sizes))
    return [inline[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a map has a key twice")
    return unique


def _no_extension(code: int, _: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _text(plan: Plan, number: int, unfit: Unfit) -> str:
    if number == len(plan.names):
        return f"{plan.type.__name__}: {unfit}"
    return f"{plan.type.__name__}.{plan.names[number]}: {unfit}"


def _too_long(plan: Plan, what: str, actual_bytes: int, limits: Limits) -> str:
    allowed = plan.max_header_bytes if what == "header" else limits.max_message_bytes
    return f"{plan.type.__name__}: a {what} of {actual_bytes} bytes, {allowed} are allowed"


def encode(
    message: Message, limits: Limits = DEFAULT_LIMITS, inline_bytes: int = INLINE_BYTES
) -> list[bytes | memoryview]:
    """Frames of one message; safe from any thread. A connection keeps an Encoder instead."""
    return Encoder(limits, inline_bytes).encode(message)

"""Streams of frames into wire.Decoder.

Each ends in RemoteProtocolError, or in messages that this side could have sent itself and that
survive a round trip.
"""

from __future__ import annotations

import wire
from tests.fuzz.mutation import SEEDS, mutated_stream
from tests.fuzz.streams import frames_of, joined
from tests.fuzz.target import Target


def seeds() -> list[bytes]:
    """Every kind of message, its buffers beside it and within, and a conversation of them all."""
    alone = [joined(frames) for frames in SEEDS]
    inline = [joined([b"".join(frames)]) for frames in SEEDS]
    return [*alone, *inline, b"".join(alone)]


def check(data: bytes) -> str:
    """What became of the frames; raises where they got past the protocol."""
    decoder = wire.Decoder()
    outcome = "nothing"
    try:
        for frame in frames_of(data):
            message = decoder.feed(frame)
            if message is not None:
                outcome = "accepted"
                _check_message(message)
        decoder.finish()
    except wire.RemoteProtocolError as error:
        return refused(error, "malformed")
    return outcome


def _check_message(message: wire.Message) -> None:
    again = wire.Decoder()
    *_, copy = [again.feed(frame) for frame in wire.encode(message)]
    if copy != message:
        raise AssertionError(f"{message} came back as {copy}")


def refused(error: wire.RemoteProtocolError, code: str) -> str:
    """Raises AssertionError where the error is not fit to be sent or shown."""
    if error.code != code or not str(error).isprintable() or len(str(error)) > 500:
        raise AssertionError(f"unfit error: {error.code}, {str(error)!r}") from error
    return "refused"


DECODER = Target(check, seeds, mutated_stream)

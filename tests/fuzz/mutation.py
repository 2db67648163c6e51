"""Changes to frames that know msgpack and the messages: what a fuzzer of bytes rarely hits on."""

from __future__ import annotations

import random

import msgpack

import wire
from tests.fuzz.streams import Frames, frames_of, joined
from tests.wire.example import EXCHANGE, LANE_EXCHANGE

# Each message with a frame for every buffer.
SEEDS: list[Frames] = [
    [bytes(f) for f in wire.encode(message, inline_bytes=0)]
    for _, message, _ in EXCHANGE + LANE_EXCHANGE
]
WORDS = [
    *sorted(wire.ERROR_CODES), *wire.DTYPE_BYTES, *wire.TENSOR_CODINGS, *wire.PRECISIONS,
    "", "x" * 300, "é" * 200, "\x1b[0m",
]  # fmt: skip
NUMBERS = [0, 1, 2, 4, 8, 16, 255, 256, 65_535, 65_536, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1]
# What msgpack can start a value with, lengths of 4 billion included.
TOKENS = [
    b"\xc0", b"\xc1", b"\xc2", b"\xc4\xff", b"\xc6\xff\xff\xff\xff", b"\xc7\x00\x05",
    b"\xc9\xff\xff\xff\xff\x01", b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf0" + bytes(6),
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xd6\xff" + bytes(4),
    b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 40,
    b"\xdc\x00\xff" * 20, b"\x80", b"\x90",
]  # fmt: skip


def mutated_stream(rng: random.Random, data: bytes) -> bytes:
    """Another stream of frames: a change to this one's, or one made anew."""
    match rng.randrange(8):
        case 0:
            return joined(_field_replaced(rng))
        case 1:
            return joined(_any_shape(rng))
        case 2:
            return joined([rng.randbytes(rng.randrange(60)) for _ in range(rng.randint(1, 3))])
        case 3:
            return joined(_in_one_frame(rng, rng.choice(SEEDS)))
        case _:
            return joined(_changed(rng, frames_of(data)))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """With a byte changed, a token put in, an end or a beginning cut, or its end repeated."""
    at = rng.randint(0, len(data))
    match rng.randrange(5):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.choice(TOKENS) + data[at + rng.randrange(2) :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[rng.randint(0, at) :]
        case _:
            return data[: at // 2] + data[at:]


def _changed(rng: random.Random, frames: Frames) -> Frames:
    frames = frames or list(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(frames))
        frames[at] = damaged(rng, frames[at])
    if rng.random() < 0.2:
        at = rng.randrange(len(frames) + 1)
        frames[at:at] = rng.choice(SEEDS)
    if rng.random() < 0.1:
        del frames[rng.randrange(len(frames))]
    return frames


def _field_replaced(rng: random.Random) -> Frames:
    header, *buffers = rng.choice(SEEDS)
    fields = msgpack.unpackb(header)
    _replace_somewhere(rng, fields)
    return _in_one_frame(rng, [msgpack.packb(fields), *buffers])


def _in_one_frame(rng: random.Random, frames: Frames) -> Frames:
    """Half of the time with the buffers in the header's frame."""
    return [b"".join(frames)] if rng.random() < 0.5 else list(frames)


def _replace_somewhere(rng: random.Random, values: list[object]) -> None:
    if not values:
        values.append(_plain(rng, 2))
        return
    at = rng.randrange(len(values))
    inner = values[at]
    if isinstance(inner, list) and rng.random() < 0.8:
        _replace_somewhere(rng, inner)
    elif isinstance(inner, int) and rng.random() < 0.5:
        values[at] = inner + rng.choice([-1, 1])
    else:
        values[at] = _plain(rng, 3)


def _any_shape(rng: random.Random) -> Frames:
    fields = [_plain(rng, 4) for _ in range(rng.randrange(12))]
    return [msgpack.packb([rng.randrange(23), *fields])]


def _plain(rng: random.Random, depth: int) -> object:
    match rng.randrange(9 if depth else 7):
        case 0:
            return rng.choice([None, True, False])
        case 1 | 2:
            return rng.choice(NUMBERS) * rng.choice([1, 1, 1, -1])
        case 3:
            return rng.choice([0.0, 1.0, -1.0, 1e300, float("nan"), float("inf"), rng.random()])
        case 4 | 5:
            return rng.choice(WORDS)
        case 6:
            return rng.randbytes(rng.randrange(8))
        case 7:
            return [_plain(rng, depth - 1) for _ in range(rng.randrange(6))]
        case _:
            return {rng.choice(WORDS): _plain(rng, depth - 1) for _ in range(rng.randrange(4))}

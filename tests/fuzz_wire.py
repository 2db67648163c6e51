"""Feeds a decoder hostile frames for as long as one likes: `python tests/fuzz_wire.py --help`.

Six kinds of inputs, over and over: the example's messages with bytes changed, inserted,
dropped and repeated; with one field replaced by another plain value; well-formed msgpack of
any shape; noise; and coded segments and tensors with bytes changed. Each must end in
RemoteProtocolError; or in messages that this side could have sent itself and that survive a
round trip, or in elements of just the size announced. Anything else is a finding: the script
prints the frames in hex, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import wire
from tests.wire.example import EXCHANGE, LANE_EXCHANGE

Frames = list[bytes]

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


# (dtype, plane, count, coding, payload), as wire.decode_segment takes them.
Segment = tuple[str, int, int, str, bytes]


def _segments() -> list[Segment]:
    rng = numpy.random.default_rng(0)
    blobs = [rng.normal(0, 0.05, 96).astype("<f4").tobytes(), bytes(384), rng.bytes(384)]
    cases = [(dtype, wire.WHOLE) for dtype in wire.DTYPE_BYTES]
    cases += [("float32", plane) for plane in (wire.COARSE, wire.MIDDLE, wire.FINE)]
    return [
        (dtype, plane, count, coding, bytes(payload))
        for blob in blobs
        for dtype, plane in cases
        for coding in wire.SEGMENT_CODINGS
        for count in (1, 15)
        for payload in (wire.encode_segment(dtype, plane, blob, 0, count, coding),)
    ]


def _tensors() -> list[wire.Tensor]:
    rng = numpy.random.default_rng(0)
    relu = numpy.maximum(rng.normal(0, 1, (1, 3, 12, 10)), 0)
    arrays = [relu.astype("<f4"), relu.astype("<f2"), relu > 0, relu.astype("<i8")]
    raw = [wire.tensor_from_numpy(array) for array in arrays]
    coded = [wire.encode_tensor(tensor, way) for tensor in raw for way in wire.TENSOR_CODINGS]
    return [tensor for tensor in coded if tensor.coding != "raw"]


SEGMENTS, TENSORS = _segments(), _tensors()


def mutated(rng: random.Random) -> Frames:
    frames = _joined(rng, rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(frames))
        frames[at] = _damaged(rng, frames[at])
    if rng.random() < 0.2:
        frames.insert(rng.randrange(len(frames) + 1), rng.choice(rng.choice(SEEDS)))
    if rng.random() < 0.1:
        del frames[rng.randrange(len(frames))]
    return frames


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    at = rng.randint(0, len(frame))
    match rng.randrange(5):
        case 0:
            return frame[:at] + bytes([rng.randrange(256)]) + frame[at + 1 :]
        case 1:
            return frame[:at] + rng.choice(TOKENS) + frame[at + rng.randrange(2) :]
        case 2:
            return frame[:at]
        case 3:
            return frame[:at] + frame[rng.randint(0, at) :]
        case _:
            return frame[: at // 2] + frame[at:]


def field_replaced(rng: random.Random) -> Frames:
    header, *buffers = rng.choice(SEEDS)
    fields = msgpack.unpackb(header)
    _replace_somewhere(rng, fields)
    return _joined(rng, [msgpack.packb(fields), *buffers])


def _joined(rng: random.Random, frames: Frames) -> Frames:
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


def any_shape(rng: random.Random) -> Frames:
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


def noise(rng: random.Random) -> Frames:
    return [rng.randbytes(rng.randrange(60)) for _ in range(rng.randint(1, 3))]


def coded_segment(rng: random.Random) -> Segment:
    dtype, plane, count, coding, payload = rng.choice(SEGMENTS)
    match rng.randrange(8):
        case 0:
            count += rng.choice([-1, 1, count])
        case 1:
            plane = rng.randrange(5)
        case 2:
            dtype = rng.choice(list(wire.DTYPE_BYTES))
    return dtype, plane, count, coding, _damaged_often(rng, payload)


def coded_tensor(rng: random.Random) -> wire.Tensor:
    tensor = rng.choice(TENSORS)
    data, coding, shape = bytes(tensor.data), tensor.coding, tensor.shape
    match rng.randrange(8):
        case 0:
            shape = (*shape[:-1], shape[-1] + rng.choice([-1, 1]))
        case 1:
            coding = rng.choice(wire.TENSOR_CODINGS[1:])
    return replace(tensor, shape=shape, coding=coding, data=_damaged_often(rng, data))


def _damaged_often(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.randrange(4)):
        data = _damaged(rng, data)
    return data


def check(frames: Frames) -> str:
    """What became of the frames; raises where they got past the protocol."""
    decoder = wire.Decoder()
    heard = None
    try:
        for frame in frames:
            message = decoder.feed(frame)
            if message is not None:
                heard = message
                _check_message(message)
        decoder.finish()
    except wire.RemoteProtocolError as error:
        return _refused(error, "malformed")
    return "accepted" if heard is not None else "nothing"


def _check_message(message: wire.Message) -> None:
    again = wire.Decoder()
    *_, copy = [again.feed(frame) for frame in wire.encode(message)]
    if copy != message:
        raise AssertionError(f"{message} came back as {copy}")


def check_segment(segment: Segment) -> str:
    dtype, plane, count, coding, payload = segment
    try:
        decoded = wire.decode_segment(dtype, plane, count, coding, payload)
    except wire.RemoteProtocolError as error:
        return _refused(error, "coding")
    if decoded.nbytes != wire.stored_bytes(dtype, plane, count):
        raise AssertionError(f"{decoded.nbytes} bytes")
    if len(payload) > wire.max_coded_bytes(dtype, plane, count, coding):
        raise AssertionError("longer than any coding")
    return "accepted"


def check_tensor(tensor: wire.Tensor) -> str:
    try:
        decoded = wire.decode_tensor(tensor)
    except wire.RemoteProtocolError as error:
        return _refused(error, "input")
    wire.check_tensor(decoded)
    if decoded.coding != "raw" or memoryview(decoded.data).readonly:
        raise AssertionError(f"{decoded.coding}, or not writable")
    if decoded.dtype == "bool" and max(decoded.data, default=0) > 1:
        raise AssertionError("a bool beyond 1")
    return "accepted"


def _refused(error: wire.RemoteProtocolError, code: str) -> str:
    if error.code != code or not str(error).isprintable() or len(str(error)) > 500:
        raise AssertionError(f"unfit error: {error.code}, {str(error)!r}") from error
    return "refused"


# What to feed, and what to do with it.
INPUTS: list[tuple[Callable[[random.Random], Any], Callable[[Any], str]]] = [
    (mutated, check), (field_replaced, check), (any_shape, check), (noise, check),
    (coded_segment, check_segment), (coded_tensor, check_tensor),
]  # fmt: skip


def fuzz(inputs: int, seed: int) -> Counter[str]:
    """Run so many inputs; raises AssertionError with the frames of the first finding."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(inputs):
        make, judge = INPUTS[number % len(INPUTS)]
        made = make(rng)
        try:
            outcomes[f"{make.__name__} {judge(made)}"] += 1
        except Exception as error:
            # The one place that wants to see every kind of exception: each is a finding.
            shown = "\n".join(frame.hex() for frame in made) if judge is check else repr(made)
            raise AssertionError(f"input {number} of seed {seed}: {error!r}\n{shown}") from error
    return outcomes


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many (1,000,000)")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run (random)")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    began = time.monotonic()
    try:
        outcomes = fuzz(options.inputs, seed)
    except AssertionError as finding:
        print(finding, file=sys.stderr)
        return 1
    took_s = time.monotonic() - began
    print(f"{options.inputs:,} inputs of seed {seed} in {took_s:.1f} s, no finding")
    for outcome, count in sorted(outcomes.items()):
        print(f"  {outcome:24} {count:>10,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

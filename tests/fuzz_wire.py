"""Feeds a decoder hostile frames for as long as one likes: `python tests/fuzz_wire.py --help`.

Four kinds of inputs, over and over: the example's messages with bytes changed, inserted,
dropped and repeated; with one field replaced by another plain value; well-formed msgpack of
any shape; noise. Each must end in RemoteProtocolError, or in messages that this side could
have sent itself and that survive a round trip. Anything else is a finding: the script prints
the frames in hex, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgpack

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import wire
from tests.wire.example import EXCHANGE

Frames = list[bytes]

SEEDS: list[Frames] = [[bytes(f) for f in wire.encode(message)] for _, message, _ in EXCHANGE]
WORDS = [*sorted(wire.ERROR_CODES), *wire.DTYPE_BYTES, "", "x" * 300, "é" * 200, "\x1b[0m"]
NUMBERS = [0, 1, 2, 4, 8, 16, 255, 256, 65_535, 65_536, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1]
# What msgpack can start a value with, lengths of 4 billion included.
TOKENS = [
    b"\xc0", b"\xc1", b"\xc2", b"\xc4\xff", b"\xc6\xff\xff\xff\xff", b"\xc7\x00\x05",
    b"\xc9\xff\xff\xff\xff\x01", b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf0" + bytes(6),
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xd6\xff" + bytes(4),
    b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 40,
    b"\xdc\x00\xff" * 20, b"\x80", b"\x90",
]  # fmt: skip


def mutated(rng: random.Random) -> Frames:
    frames = list(rng.choice(SEEDS))
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
    return [msgpack.packb(fields), *buffers]


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
    return [msgpack.packb([rng.randrange(18), *fields])]


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


MAKERS: list[Callable[[random.Random], Frames]] = [mutated, field_replaced, any_shape, noise]


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
        if error.code != "malformed" or not str(error).isprintable() or len(str(error)) > 500:
            raise AssertionError(f"unfit error: {error.code}, {str(error)!r}") from error
        return "refused"
    return "accepted" if heard is not None else "nothing"


def _check_message(message: wire.Message) -> None:
    again = wire.Decoder()
    *_, copy = [again.feed(frame) for frame in wire.encode(message)]
    if copy != message:
        raise AssertionError(f"{message} came back as {copy}")


def fuzz(inputs: int, seed: int) -> Counter[str]:
    """Run so many inputs; raises AssertionError with the frames of the first finding."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(inputs):
        make = MAKERS[number % len(MAKERS)]
        frames = make(rng)
        try:
            outcomes[f"{make.__name__} {check(frames)}"] += 1
        except Exception as error:
            # The one place that wants to see every kind of exception: each is a finding.
            shown = "\n".join(frame.hex() for frame in frames)
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

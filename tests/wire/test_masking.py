"""A mask goes over a payload in pieces as it goes over the whole, byte by byte (RFC 6455, 5.3)."""

from __future__ import annotations

import random

import numpy
import pytest

from wire.masking import Mask

MASK = b"\xa1\x02\x7f\xfe"


@pytest.mark.parametrize("size", [0, 1, 3, 4, 16_380, 65_531, 65_532, 65_533, 200_001])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 65_537])
def test_every_byte_meets_its_own_of_the_mask(size: int, at: int) -> None:
    payload = random.Random(size).randbytes(size)
    into = numpy.zeros(size + 2, numpy.uint8)
    Mask(MASK).apply(numpy.frombuffer(payload, numpy.uint8), at, into)
    expected = bytes(byte ^ MASK[(at + place) % 4] for place, byte in enumerate(payload))
    assert into.tobytes() == expected + b"\0\0"


def test_it_goes_on_and_off_in_its_place() -> None:
    payload = random.Random(1).randbytes(140_000)
    frame = numpy.frombuffer(bytearray(payload), numpy.uint8)
    for _ in range(2):
        Mask(MASK).apply(frame, 2, frame)
    assert frame.tobytes() == payload

"""Whatever arrives in place of the other side's next frame does nothing but fail the attempt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairing.exchange import ClientExchange, EdgeExchange
from pairing.frames import MAX_FRAME_BYTES, Kind, PairingFailed
from pairing.identity import to_der
from tests.pairing.test_exchange import DEVICE, FRAMES, MIDDLE, client, converse, edge


def one_side(at: int) -> tuple[ClientExchange | EdgeExchange, bytes]:
    """Who expects frame number `at`, and what it would be."""
    one, other = client(), edge()
    _, said = converse(one, other, at) if at else (None, [one.start()])
    return (one if at % 2 else other), said[at]


def mutated(frame: bytes, cuts: list[int], bits: list[tuple[int, int]], more: bytes) -> bytes:
    changed = bytearray(frame)
    for at, value in bits:
        if changed:
            changed[at % len(changed)] = value
    for at in cuts:
        if changed:
            del changed[at % len(changed)]
    return bytes(changed) + more


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 5),
    st.lists(st.integers(0, 4096), max_size=3),
    st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), max_size=3),
    st.binary(max_size=8),
)
def test_a_changed_frame_does_nothing_but_fail(
    at: int, cuts: list[int], bits: list[tuple[int, int]], more: bytes
) -> None:
    side, frame = one_side(at)
    changed = mutated(frame, cuts, bits, more)
    if changed == frame:
        return
    try:
        step = side.receive(changed)
    except PairingFailed:
        return
    # A first frame whose device or point is another is a frame like any other: its claim fails.
    assert at in (0, 1)
    assert step.store is None
    assert not step.done


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1), st.booleans(), st.binary(max_size=MAX_FRAME_BYTES + 2))
def test_any_bytes_do_nothing_but_fail(at: int, expected: bool, frame: bytes) -> None:
    if expected:
        frame = bytes((FRAMES[at],)) + frame
    one = client()
    one.start()
    side = (edge(), one)[at]
    with pytest.raises(PairingFailed):
        side.receive(frame)


@given(st.binary(min_size=33, max_size=33))
@settings(max_examples=20, deadline=None)
def test_any_point_gets_no_further(point: bytes) -> None:
    other = edge()
    try:
        step = other.receive(client().start()[:-33] + point)
    except PairingFailed as failed:
        assert failed.reason == "malformed"  # noqa: PT017
        return
    assert step.send is not None
    with pytest.raises(PairingFailed, match="in between"):
        other.receive(bytes((Kind.CLAIM,)) + bytes(100))


BEGIN = client().start()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (BEGIN[:1], "malformed"),
        (BEGIN[:1] + b"\x02" + BEGIN[2:], "version"),
        (BEGIN[:2] + b"\x02" + BEGIN[3:], "malformed"),
        (BEGIN[:-1], "malformed"),
        (BEGIN + b"\x00", "malformed"),
    ],
    ids=["bare", "version", "how", "short", "long"],
)
def test_a_beginning_that_cannot_be_spends_no_guess(frame: bytes, reason: str) -> None:
    other = edge()
    with pytest.raises(PairingFailed) as failed:
        other.receive(frame)
    assert failed.value.reason == reason
    assert not other.begun


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        b"\xff" * 32,
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ],
)
def test_points_of_small_order_are_refused(point: bytes) -> None:
    with pytest.raises(PairingFailed):
        edge().receive(client().start()[:-32] + point)


def claim_of(plain: bytes) -> str:
    """Why a box refuses a device that knows the code, and claims this."""
    one, other = client(), edge()
    answer = other.receive(one.start()).send
    assert answer is not None
    one.receive(answer)
    one._sealed = 0  # Seal the first message of this direction once more, with other content.
    frame = bytes((Kind.CLAIM,)) + one._confirmation("device") + one._seal(plain)
    with pytest.raises(PairingFailed) as failed:
        other.receive(frame)
    return failed.value.reason


DER = to_der(DEVICE.certificate)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x07glasses",
        b"\xffglasses" + DER,
        b"\x00" + DER,
        b"\x04\x1b[2J" + DER,
        b"\x02\xff\xfe" + DER,
        b"\x07glasses" + DER[:-1],
        b"\x07glasses" + to_der(MIDDLE.certificate),
        b"\x07glasses" + b"\x30" * 3000,
    ],
)
def test_a_claim_that_cannot_be_is_refused(plain: bytes) -> None:
    assert claim_of(plain) == "malformed"


@pytest.mark.parametrize("token", ["", "short", "t" * 129, "t" * 20 + "\r\nHost: x", "ü" * 20])
def test_a_token_that_cannot_be_is_refused(token: str) -> None:
    one, other = client(), edge()
    claim = one.receive(other.receive(one.start()).send or b"").send
    other.receive(claim or b"")
    other._sealed = 0
    plain = b"\x08hall box" + token.encode()
    frame = bytes((Kind.GRANT,)) + other._confirmation("box") + other._seal(plain)
    with pytest.raises(PairingFailed):
        one.receive(frame)


@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_a_seal_that_is_broken_keeps_nobody(at: int) -> None:
    side, frame = one_side(at)
    with pytest.raises(PairingFailed) as failed:
        side.receive(frame[:-1] + bytes((frame[-1] ^ 1,)))
    assert failed.value.reason == "malformed"


@pytest.mark.parametrize(
    ("frames", "kind"), [(4, Kind.DEVICE_STORED), (5, Kind.BOX_STORED)], ids=["device", "box"]
)
def test_a_seal_round_more_than_nothing_keeps_nobody(frames: int, kind: Kind) -> None:
    one, other = client(), edge()
    converse(one, other, frames)
    says, hears = (one, other) if kind is Kind.DEVICE_STORED else (other, one)
    says._sealed -= 1  # Seal the last message once more, with content.
    with pytest.raises(PairingFailed) as failed:
        hears.receive(bytes((kind,)) + says._seal(b"more"))
    assert failed.value.reason == "malformed"

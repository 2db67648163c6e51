"""The pairing conversation: what both learn, what a guess costs, and what crashes leave."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pairing.exchange import ClientExchange, EdgeExchange
from pairing.frames import (
    MAX_FRAME_BYTES,
    REASONS,
    BoxGrant,
    DeviceClaim,
    How,
    Kind,
    PairingFailed,
    Reason,
    refusal,
)
from pairing.identity import Identity, to_der
from pairing.uri import new_code, new_secret

DEVICE, BOX, MIDDLE = (Identity.create(name) for name in ("glasses", "hall box", "middle"))
CODE, SECRET = new_code(), new_secret()
# What each side keeps, and the frames between, in order.
FRAMES = [Kind.BEGIN, Kind.ANSWER, Kind.CLAIM, Kind.GRANT, Kind.DEVICE_STORED, Kind.BOX_STORED]


def client(
    how: How = "code", password: str | None = None, box: str = BOX.fingerprint
) -> ClientExchange:
    usual = CODE if how == "code" else SECRET
    return ClientExchange(DEVICE, "glasses", box, how, usual if password is None else password)


def edge(identity: Identity = BOX) -> EdgeExchange:
    return EdgeExchange(identity, "hall box", CODE, SECRET)


@dataclass
class Kept:
    """What is on either side's disk, and whether it believes in the other."""

    box: BoxGrant | None = None
    box_confirmed: bool = False
    device: DeviceClaim | None = None


def converse(one: ClientExchange, other: EdgeExchange, frames: int = 6) -> tuple[Kept, list[bytes]]:
    """Carry so many frames across; whoever stores something says so."""
    kept, said = Kept(), [one.start()]
    while len(said) <= frames:
        step = (other if len(said) % 2 else one).receive(said[-1])
        if isinstance(step.store, BoxGrant):
            kept.box = step.store
            said.append(one.stored())
        elif isinstance(step.store, DeviceClaim):
            kept.device = step.store
            said.append(other.stored())
        elif step.done:
            kept.box_confirmed = True
            break
        else:
            assert step.send is not None
            said.append(step.send)
    return kept, said


@pytest.mark.parametrize("how", ["code", "secret"])
def test_both_learn_who_the_other_is(how: How) -> None:
    kept, said = converse(client(how), edge())
    assert kept.box_confirmed
    assert kept.box is not None
    assert kept.device is not None
    assert kept.box.name == "hall box"
    assert kept.device.name == "glasses"
    assert kept.device.fingerprint == DEVICE.fingerprint
    assert kept.device.certificate == DEVICE.certificate
    assert kept.box.token == kept.device.token
    assert [frame[0] for frame in said] == FRAMES
    assert max(map(len, said)) <= MAX_FRAME_BYTES


def test_each_pairing_has_a_token_of_its_own() -> None:
    tokens = [kept.box.token for kept, _ in (converse(client(), edge()) for _ in range(2))
              if kept.box]  # fmt: skip
    assert len(set(tokens)) == 2
    assert not any(token in repr(BoxGrant("box", token)) for token in tokens)


def test_what_is_said_shows_no_secret() -> None:
    kept, said = converse(client(), edge())
    assert kept.box is not None
    heard = b"".join(said)
    for hidden in (kept.box.token.encode(), b"hall box", b"glasses", CODE.encode(),
                   to_der(DEVICE.certificate)):  # fmt: skip
        assert hidden not in heard


def test_a_code_may_be_typed_without_its_dash() -> None:
    assert converse(client(password=CODE.replace("-", "")), edge())[0].box_confirmed


def failure(one: ClientExchange, other: EdgeExchange) -> tuple[str, int]:
    """Why the conversation fails, and after how many frames."""
    said = [one.start()]
    while True:
        side = other if len(said) % 2 else one
        try:
            step = side.receive(said[-1])
        except PairingFailed as failed:
            return failed.reason, len(said)
        assert step.send is not None, "nothing may be kept on the way to a failure"
        said.append(step.send)


def other_code() -> str:
    while (code := new_code()) == CODE:
        pass
    return code


@pytest.mark.parametrize(
    ("how", "password"),
    [("code", other_code()), ("secret", new_secret()), ("secret", CODE)],
    ids=["another code", "another secret", "the code as secret"],
)
def test_a_wrong_guess_fails_at_the_box_which_has_told_nothing(how: How, password: str) -> None:
    box = edge()
    assert failure(client(how, password), box) == ("wrong", 3)
    assert box.begun


def test_a_code_is_no_secret() -> None:
    assert failure(client("secret", SECRET), EdgeExchange(BOX, "box", CODE, CODE))[0] == "wrong"


def test_somebody_in_between_who_knows_the_code_not_is_found_out() -> None:
    # The device speaks with MIDDLE, which passes every byte on to the box and back.
    assert failure(client(box=MIDDLE.fingerprint), edge()) == ("wrong", 3)


def test_a_box_that_does_not_know_the_code_gets_no_name() -> None:
    # It can only answer, and then hears a confirmation and a sealed claim that it cannot open.
    liar = EdgeExchange(BOX, "hall box", other_code(), SECRET)
    assert failure(client(), liar) == ("wrong", 3)


def test_an_attempt_is_over_after_a_failure() -> None:
    other = edge()
    with pytest.raises(PairingFailed):
        other.receive(b"nonsense")
    with pytest.raises(PairingFailed, match="protocol"):
        other.receive(client().start())
    assert not other.begun


def test_frames_in_another_order_fail() -> None:
    _, said = converse(client(), edge())
    for frame in said[1:]:
        with pytest.raises(PairingFailed):
            edge().receive(frame)
    for frame in (said[0], *said[2:]):
        one = client()
        one.start()
        with pytest.raises(PairingFailed):
            one.receive(frame)


def test_nothing_is_taken_twice_or_after_the_end() -> None:
    one, other = client(), edge()
    _, said = converse(one, other)
    for side, frame in ((other, said[4]), (one, said[5])):
        with pytest.raises(PairingFailed):
            side.receive(frame)


def test_a_device_does_not_talk_with_itself() -> None:
    one = client()
    begin = one.start()
    with pytest.raises(PairingFailed):
        one.receive(bytes((Kind.ANSWER,)) + begin[-33:])


def test_frames_of_another_conversation_fail() -> None:
    _, recorded = converse(client(), edge())
    one, other = client(), edge()
    other.receive(one.start())
    with pytest.raises(PairingFailed, match="in between"):
        other.receive(recorded[2])


@pytest.mark.parametrize("reason", list(REASONS))
def test_a_refusal_says_why(reason: Reason) -> None:
    one = client()
    one.start()
    with pytest.raises(PairingFailed) as refused:
        one.receive(refusal(reason))
    assert refused.value.reason == reason
    assert str(refused.value) == REASONS[reason]
    # Who was told needs not be told.
    assert refused.value.frame is None
    assert PairingFailed(reason).frame == refusal(reason)


def test_an_answer_that_is_no_answer_is_refused() -> None:
    one = client()
    one.start()
    with pytest.raises(PairingFailed):
        one.receive(bytes((Kind.ANSWER,)) + bytes(32))


def test_versions_that_differ_are_told() -> None:
    begin = bytearray(client().start())
    begin[1] = 2
    with pytest.raises(PairingFailed, match="update"):
        edge().receive(bytes(begin))


def test_a_mistyped_code_is_not_tried() -> None:
    with pytest.raises(ValueError, match="8 digits"):
        client(password="1234")


# Where either side may crash.


@pytest.mark.parametrize("frames", range(7))
def test_wherever_it_breaks_nobody_believes_in_vain(frames: int) -> None:
    """frames arrive, no more. A box is on probation until it has confirmed, so what must never be
    is a device that the box knows and that does not know the box, or the other way round for sure.
    """
    kept, _ = converse(client(), edge(), frames)
    if kept.device is not None:
        assert kept.box is not None, "the box knows a device that cannot know it"
    if kept.box_confirmed:
        assert kept.device is not None, "the device is sure of a box that does not know it"
    assert (kept.box is not None, kept.device is not None, kept.box_confirmed) == (
        frames >= 4,
        frames >= 5,
        frames >= 6,
    )

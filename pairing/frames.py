"""What the two sides of a pairing say: kinds of frames, their fields, and reasons to give up."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from pairing.identity import checked_name

VERSION = 1
MAX_FRAME_BYTES = 4096
SPAKE_BYTES = 33
DIGEST_BYTES = 32
TOKEN_CHARACTERS = range(16, 129)
How = Literal["code", "secret"]
HOWS: tuple[How, ...] = ("code", "secret")
Reason = Literal["wrong", "malformed", "version", "busy", "storage", "closed"]


class Kind(IntEnum):
    """A frame's first byte."""

    REFUSED = 0
    BEGIN = 1
    ANSWER = 2
    CLAIM = 3
    GRANT = 4
    DEVICE_STORED = 5
    BOX_STORED = 6


REASONS: dict[Reason, str] = {
    "wrong": "the code or secret is not the box's, or somebody is in between",
    "malformed": "the other side does not speak the pairing protocol",
    "version": "the two sides speak different versions of pairing: update the older one",
    "busy": "the box is pairing with somebody else, or was told to wait: try again",
    "storage": "the other side could not keep the pairing",
    "closed": "the box takes no pairings now",
}
_CODES = {reason: code for code, reason in enumerate(REASONS)}


class PairingFailed(Exception):
    """This attempt is over. `reason` says why, the text says it for a person."""

    def __init__(self, reason: Reason, *, ours: bool = True) -> None:
        super().__init__(REASONS[reason])
        self.reason: Reason = reason
        self._ours = ours

    @property
    def frame(self) -> bytes | None:
        """What tells the other side before the connection is closed; None if it told us."""
        return refusal(self.reason) if self._ours else None


@dataclass(frozen=True, slots=True)
class BoxGrant:
    """What a device keeps: the box's name for itself, and the token it gave."""

    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceClaim:
    """What a box keeps: the device's certificate (PEM), its name for itself, and the token."""

    certificate: bytes
    fingerprint: str
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows a frame: one to send; or something to keep durably, and then `stored`.

    done: both sides have kept their half.
    """

    send: bytes | None = None
    store: BoxGrant | DeviceClaim | None = None
    done: bool = False


def refusal(reason: Reason) -> bytes:
    """A frame that ends an attempt from the box's side before it began, or from either's within."""
    return bytes((Kind.REFUSED, _CODES[reason]))


def name_field(name: str) -> bytes:
    encoded = name.encode()
    return bytes((len(encoded),)) + encoded


def take_name(plain: bytes) -> tuple[str, bytes]:
    """A name, as `name_field` wrote it, and what follows it. Raises PairingFailed."""
    if not plain or len(plain) < 1 + plain[0]:
        raise PairingFailed("malformed")
    try:
        return checked_name(plain[1 : 1 + plain[0]].decode()), plain[1 + plain[0] :]
    except ValueError:
        raise PairingFailed("malformed") from None


def checked_token(token: bytes) -> str:
    """A token that a box may give. Raises PairingFailed."""
    text = token.decode("ascii", "replace")
    if len(text) not in TOKEN_CHARACTERS or not all(c.isalnum() or c in "-_" for c in text):
        raise PairingFailed("malformed")
    return text

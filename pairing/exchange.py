"""The conversation by which a device and a box come to trust each other, without I/O.

Both know a code or secret that a person carried. SPAKE2 (RFC 9382, here the variant of the spake2
package on Ed25519) makes a key of it; who guesses has one guess per attempt, and learns nothing
from listening. The identities that go into the key are the two certificates' fingerprints as each
side sees them, so somebody in between, whose certificate is another, ends up with another key.

    device                                      box
      BEGIN   how, fingerprint, SPAKE2 A  ────►
              ◄────  ANSWER   SPAKE2 B
      CLAIM   confirmation, {name, certificate} ────►
              ◄────  GRANT    confirmation, {name, token}
      (keeps the box, not yet believed)
      STORED  {} ────►                          (keeps the device, and believes in it)
              ◄────  STORED   {}
      (believes in the box)

What is in braces is sealed. A device that never hears the last message has the box on probation:
the next connection tells. So no box is believed in that does not know the device, and no device
is believed in that could not know the box, wherever either crashes.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError
from spake2.ed25519_basic import NotOnCurve

from pairing.frames import (
    DIGEST_BYTES,
    HOWS,
    MAX_FRAME_BYTES,
    REASONS,
    SPAKE_BYTES,
    VERSION,
    BoxGrant,
    DeviceClaim,
    How,
    Kind,
    PairingFailed,
    Step,
    checked_token,
    name_field,
    take_name,
)
from pairing.identity import (
    Identity,
    IdentityError,
    checked_name,
    fingerprint_of,
    from_der,
    to_der,
)
from pairing.tokens import new_token
from pairing.uri import parse_code


class _Exchange(ABC):
    """What both sides do alike: frames in order, one attempt, keys once SPAKE2 is through."""

    _mine: str
    _others: str

    def __init__(self) -> None:
        self._expected: Kind | None = None
        self._keys: dict[str, bytes] = {}
        self._sealed = self._opened = 0

    def receive(self, frame: bytes) -> Step:
        """Take the other side's next frame. Raises PairingFailed, after which all is over."""
        try:
            return self._take(self._body(bytes(frame)))
        except PairingFailed:
            self._expected = None
            raise

    def _body(self, frame: bytes) -> bytes:
        if len(frame) == 2 and frame[0] == Kind.REFUSED and frame[1] < len(REASONS):
            raise PairingFailed(tuple(REASONS)[frame[1]], ours=False)
        expected = self._expected
        if expected is None or len(frame) > MAX_FRAME_BYTES or frame[:1] != bytes((expected,)):
            raise PairingFailed("malformed")
        return frame[1:]

    @abstractmethod
    def _take(self, body: bytes) -> Step:
        """What follows a frame of the kind that was expected."""

    def _agree(self, spake: SPAKE2_A | SPAKE2_B, theirs: bytes, said: bytes) -> None:
        """Keys for both directions, and for confirming them (RFC 9382, section 4)."""
        try:
            shared = spake.finish(theirs)
        except (SPAKEError, NotOnCurve, ValueError, AssertionError):
            raise PairingFailed("malformed") from None
        context = b"ionn pairing\x01" + hashlib.sha256(said).digest()
        names = ("confirm device", "confirm box", "seal device", "seal box")
        derived = HKDF(hashes.SHA256(), DIGEST_BYTES * len(names), None, context).derive(shared)
        for index, name in enumerate(names):
            self._keys[name] = derived[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def _confirmation(self, side: str) -> bytes:
        return hmac.digest(self._keys[f"confirm {side}"], side.encode(), "sha256")

    def _confirmed(self, body: bytes) -> bytes:
        """What follows the other side's proof that it has the same key."""
        if not hmac.compare_digest(body[:DIGEST_BYTES], self._confirmation(self._others)):
            raise PairingFailed("wrong" if len(body) >= DIGEST_BYTES else "malformed")
        return self._open(body[DIGEST_BYTES:])

    def _seal(self, plain: bytes) -> bytes:
        nonce, self._sealed = self._sealed.to_bytes(12, "big"), self._sealed + 1
        return ChaCha20Poly1305(self._keys[f"seal {self._mine}"]).encrypt(nonce, plain, None)

    def _open(self, sealed: bytes) -> bytes:
        nonce, self._opened = self._opened.to_bytes(12, "big"), self._opened + 1
        try:
            return ChaCha20Poly1305(self._keys[f"seal {self._others}"]).decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError):
            raise PairingFailed("malformed") from None


class ClientExchange(_Exchange):
    """The device's side of one attempt.

    box: the fingerprint of the certificate that the box showed on this connection.
    code or secret: as the person read it. Raises ValueError for a mistyped code.
    """

    _mine, _others = "device", "box"

    def __init__(self, identity: Identity, name: str, box: str, how: How, password: str) -> None:
        super().__init__()
        self._name = checked_name(name)
        self._how = how
        self._certificate = to_der(identity.certificate)
        me, them = bytes.fromhex(identity.fingerprint), bytes.fromhex(box)
        self._spake = SPAKE2_A(password_bytes(how, password), idA=me, idB=them)
        self._begin = b""

    def start(self) -> bytes:
        """The first frame."""
        head = bytes((Kind.BEGIN, VERSION, HOWS.index(self._how)))
        digest = hashlib.sha256(self._certificate).digest()
        self._begin = head + digest + self._spake.start()
        self._expected = Kind.ANSWER
        return self._begin

    def stored(self) -> bytes:
        """The box is kept, on probation."""
        self._expected = Kind.BOX_STORED
        return bytes((Kind.DEVICE_STORED,)) + self._seal(b"")

    def _take(self, body: bytes) -> Step:
        kind, self._expected = self._expected, None
        if kind is Kind.ANSWER:
            if len(body) != SPAKE_BYTES:
                raise PairingFailed("malformed")
            self._agree(self._spake, body, self._begin + body)
            claim = name_field(self._name) + self._certificate
            self._expected = Kind.GRANT
            return Step(bytes((Kind.CLAIM,)) + self._confirmation("device") + self._seal(claim))
        if kind is Kind.GRANT:
            name, token = take_name(self._confirmed(body))
            return Step(store=BoxGrant(name, checked_token(token)))
        if self._open(body) != b"":
            raise PairingFailed("malformed")
        return Step(done=True)


class EdgeExchange(_Exchange):
    """The box's side of one attempt. code, secret: what it shows now, both spent by a failure."""

    _mine, _others = "box", "device"

    def __init__(self, identity: Identity, name: str, code: str, secret: str) -> None:
        super().__init__()
        self._name = checked_name(name)
        self._passwords = {"code": code, "secret": secret}
        self._fingerprint = identity.fingerprint
        self._device = ""
        self._expected = Kind.BEGIN

    @property
    def begun(self) -> bool:
        """Somebody has tried: whatever comes of it, code and secret have had their one guess."""
        return bool(self._device)

    def stored(self) -> bytes:
        """The device is kept: both sides have their half now."""
        return bytes((Kind.BOX_STORED,)) + self._seal(b"")

    def _take(self, body: bytes) -> Step:
        kind, self._expected = self._expected, None
        if kind is Kind.BEGIN:
            return self._begun(body)
        if kind is Kind.CLAIM:
            return self._claimed(body)
        if self._open(body) != b"":
            raise PairingFailed("malformed")
        return Step(store=self._claim)

    def _begun(self, body: bytes) -> Step:
        if body[:1] != bytes((VERSION,)):
            raise PairingFailed("version" if body else "malformed")
        if len(body) != 2 + DIGEST_BYTES + SPAKE_BYTES or body[1] >= len(HOWS):
            raise PairingFailed("malformed")
        how, device, theirs = HOWS[body[1]], body[2:-SPAKE_BYTES], body[-SPAKE_BYTES:]
        self._device = device.hex()
        me = bytes.fromhex(self._fingerprint)
        spake = SPAKE2_B(password_bytes(how, self._passwords[how]), idA=device, idB=me)
        mine: bytes = spake.start()
        self._agree(spake, theirs, bytes((Kind.BEGIN,)) + body + mine)
        self._expected = Kind.CLAIM
        return Step(bytes((Kind.ANSWER,)) + mine)

    def _claimed(self, body: bytes) -> Step:
        name, der = take_name(self._confirmed(body))
        try:
            certificate = from_der(der)
        except IdentityError:
            raise PairingFailed("malformed") from None
        if not hmac.compare_digest(fingerprint_of(der), self._device):
            raise PairingFailed("malformed")
        token = new_token()
        self._claim = DeviceClaim(certificate, self._device, name, token)
        self._expected = Kind.DEVICE_STORED
        grant = self._seal(name_field(self._name) + token.encode())
        return Step(bytes((Kind.GRANT,)) + self._confirmation("box") + grant)


def password_bytes(how: How, password: str) -> bytes:
    """What goes into SPAKE2. Raises ValueError for a code that was mistyped."""
    text = parse_code(password) if how == "code" else password.strip().lower()
    return f"{how}:{text}".encode()

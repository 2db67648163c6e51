"""What a person carries from the box to the device: a pairing URI, or a short code."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

SECRET_BYTES = 16
CODE_DIGITS = 8
MAX_URI_CHARACTERS = 512
SHAPE = "ionn://HOST:PORT/pair?box=FINGERPRINT&secret=SECRET"
# M. Damm's quasigroup of order 10, "Total anti-symmetrische Quasigruppen" (2004): its check digit
# finds every wrong digit and every swap of neighbours.
_DAMM = (
    (0, 3, 1, 7, 5, 9, 8, 6, 4, 2), (7, 0, 9, 2, 1, 5, 4, 8, 6, 3),
    (4, 2, 0, 6, 8, 7, 1, 3, 5, 9), (1, 7, 5, 0, 9, 8, 3, 4, 2, 6),
    (6, 1, 2, 3, 0, 4, 5, 9, 7, 8), (3, 6, 7, 4, 2, 0, 9, 5, 8, 1),
    (5, 8, 6, 9, 7, 2, 0, 1, 3, 4), (8, 9, 4, 5, 3, 6, 2, 0, 1, 7),
    (9, 4, 3, 8, 6, 1, 7, 2, 0, 5), (2, 5, 8, 1, 4, 3, 6, 7, 9, 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PairingUri:
    """Where a box listens, its certificate's fingerprint, and a secret of 128 bits, base32."""

    host: str
    port: int
    box: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        # Printable, since it is printed: terminals obey some characters.
        named = re.fullmatch(r"[^\s/?#@\[\]]{1,255}", self.host) and self.host.isprintable()
        if not named or not 0 < self.port < 1 << 16:
            raise ValueError("a pairing URI names a host and a port")
        if not re.fullmatch(r"[0-9a-f]{64}", self.box):
            raise ValueError("a pairing URI names the box by 64 hexadecimal digits")
        if not re.fullmatch(r"[a-z2-7]{26}", self.secret):
            raise ValueError("a pairing URI's secret is 26 letters and digits")

    @classmethod
    def parse(cls, text: str) -> PairingUri:
        """Raises ValueError, whose text does not repeat the secret."""
        text = text.strip()
        try:
            if len(text) > MAX_URI_CHARACTERS:
                raise ValueError("it is too long")
            parts = urlsplit(text)
            if parts.scheme != "ionn" or parts.path != "/pair" or "@" in parts.netloc:
                raise ValueError("it is another kind of address")
            asked = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
            fields = dict(asked)
            if parts.fragment or len(asked) != 2 or set(fields) != {"box", "secret"}:
                raise ValueError("it does not give just a box and a secret")
            return cls(
                parts.hostname or "", parts.port or 0, fields["box"].lower(),
                fields["secret"].lower(),
            )  # fmt: skip
        except ValueError as error:
            reason = str(error) if "secret=" not in str(error) else "it is malformed"
            raise ValueError(f"a pairing URI looks like {SHAPE}: {reason}") from None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        asked = urlencode({"box": self.box, "secret": self.secret})
        return f"ionn://{host}:{self.port}/pair?{asked}"


def new_secret() -> str:
    """128 random bits in base32, for a pairing URI."""
    return base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=").lower()


def new_code() -> str:
    """Seven random digits and a check digit, as "4821-7360"."""
    digits = f"{secrets.randbelow(10 ** (CODE_DIGITS - 1)):0{CODE_DIGITS - 1}}"
    return shown_code(f"{digits}{_check(digits)}")


def shown_code(code: str) -> str:
    """As people read it aloud. Raises ValueError as `parse_code` does."""
    digits = parse_code(code)
    return f"{digits[:4]}-{digits[4:]}"


def parse_code(text: str) -> str:
    """The eight digits that were meant. Raises ValueError for a slip, which costs no guess."""
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(rf"[0-9]{{{CODE_DIGITS}}}", digits):
        raise ValueError(f"a pairing code has {CODE_DIGITS} digits")
    if _check(digits) != 0:
        raise ValueError("a digit is wrong or two are swapped: look at the box again")
    return digits


def _check(digits: str) -> int:
    interim = 0
    for digit in digits:
        interim = _DAMM[interim][int(digit)]
    return interim

"""How to pair with a box, for the person in front of it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import segno

if TYPE_CHECKING:
    from ionn_edge.pairing_desk import PairingDesk

CLOSED = "Pairing is closed after too many wrong codes; to open it:  ionn edge pair"


def on_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout.isatty()


def pairing_lines(desk: PairingDesk, address: tuple[str, int]) -> list[str]:
    """Code, URI and, on a terminal, its QR code: what to do on the device."""
    return lines_of(desk.code, desk.uri(*address))


def lines_of(code: str | None, uri: str | None) -> list[str]:
    """The same of a code and a URI, which are None while pairing is closed."""
    if code is None or uri is None:
        return [CLOSED]
    return [
        "To pair one device, on it:",
        f"  ionn pair '{uri}'",
        f"or, on the same network:  ionn discover, then ionn pair NAME with the code  {code}",
        *(qr_lines(uri) if on_terminal() else ()),
    ]


def qr_lines(uri: str) -> list[str]:
    """The URI for a camera, two rows of modules to a line."""
    drawn = io.StringIO()
    segno.make_qr(uri, error="l").terminal(drawn, border=2, compact=True)
    return drawn.getvalue().splitlines()

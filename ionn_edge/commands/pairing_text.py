"""How to pair with a box, for the person in front of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import segno

from pairing.identity import short

CLOSED = "Pairing is closed after too many wrong codes; to open it:  ionn edge pair"


def on_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout.isatty()


def pairing_lines(pairing: Mapping[str, Any]) -> list[str]:
    """Code, URI and, on a terminal, its QR code: what to do on the device.

    pairing: as `questions.pairing_plain` has it.
    """
    code, uri = pairing["code"], pairing["uri"]
    if code is None or uri is None:
        return [CLOSED]
    return [
        "To pair one device, on it:",
        f"  ionn pair '{uri}'",
        f"or, on the same network, with the code  {code}",
        f"  ionn pair {_place(uri)}",
        f"The device then shows this box's certificate as  {short(pairing['fingerprint'])}",
        *(qr_lines(uri) if on_terminal() else ()),
    ]


def _place(uri: str) -> str:
    """HOST:PORT of a pairing URI."""
    return urlsplit(uri).netloc


def qr_lines(uri: str) -> list[str]:
    """The URI for a camera, two rows of modules to a line."""
    drawn = io.StringIO()
    segno.make_qr(uri, error="l").terminal(drawn, border=2, compact=True)
    return drawn.getvalue().splitlines()

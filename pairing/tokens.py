"""What a device shows beside its certificate, so that a box can revoke one pairing of it."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_token() -> str:
    """256 random bits as 43 characters that go into a header."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What the box keeps of it, in hexadecimal. No slow hash: nobody guesses 256 bits."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def same_token(token: str, digest: str) -> bool:
    """Whether this is the token of that digest, in a time that says nothing."""
    return hmac.compare_digest(token_digest(token).encode(), digest.encode("utf-8", "replace"))

"""The secret that names what is in the cache: 32 random bytes in the box's state directory.

Losing it loses the cache, and nothing else: what is there has names that nobody can tell any
more. So one that is damaged, or that others may have read, is replaced rather than complained of.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from ionn_edge.storage.blobs import StorageError
from pairing.private import StateError, read_private, write_private

FILE = "cache-secret"
SECRET_BYTES = 32
log = logging.getLogger("ionn_edge")


def cache_secret(state: Path) -> bytes:
    """The box's, made at its first start. Raises StorageError where none can be kept."""
    path = state / FILE
    try:
        secret = _read(path)
        if secret is not None:
            return secret
        # Of several edges that start at once, the first one's is everybody's.
        write_private(path, secrets.token_bytes(SECRET_BYTES), replace=False)
        secret = read_private(path)
    except StateError as error:
        raise StorageError(f"the cache's secret cannot be kept: {error}") from error
    if secret is None or len(secret) != SECRET_BYTES:
        raise StorageError(f"the cache's secret {path} is not what was written")
    return secret


def _read(path: Path) -> bytes | None:
    try:
        secret = read_private(path)
        if secret is None or len(secret) == SECRET_BYTES:
            return secret
        reason = f"{path} has not {SECRET_BYTES} bytes"
    except StateError as error:
        reason = str(error)
    log.warning("weights that were kept are of no use any more, a new secret is made: %s", reason)
    secret = secrets.token_bytes(SECRET_BYTES)
    write_private(path, secret)
    return secret

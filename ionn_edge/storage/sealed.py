"""Small files that are believed because only this box can have written them: a seal, then content.

The seal is keyed like the names of its directory (see places): a file of another device, of
another box, or one that was altered, is none.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from ionn_edge.storage.blobs import remove
from ionn_edge.storage.places import Place

SEAL_BYTES = 32
FRESH = ".fresh"
# None of ours is near it.
MAX_BYTES = 256 << 20


def write_sealed(path: Path, place: Place, content: bytes, durable: bool = False) -> None:
    """Have all of it there or, on OSError, what was there before; `durable` outlives a power cut.

    Blocks. The temporary file is the path's with the suffix FRESH.
    """
    place.directory.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(FRESH)
    remove(fresh)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(fresh, flags, 0o600), "wb", buffering=0) as file:
            for piece in (place.seal(content), content):
                _write(file.fileno(), piece)
            if durable:
                os.fsync(file.fileno())
        fresh.rename(path)
        if durable:
            _sync(place.directory)
    except OSError:
        remove(fresh)
        raise


def read_sealed(path: Path, place: Place) -> bytes | None:
    """The content; None where the seal is not right. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as f:
        data = f.read(MAX_BYTES)
    seal, content = data[:SEAL_BYTES], data[SEAL_BYTES:]
    return content if hmac.compare_digest(seal, place.seal(content)) else None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]

"""Weights as files named by their SHA-256: `<digest>` when whole, `<digest>.N.part` before.

A part's length is the record of how much of it has been received, so it survives the death of
the process at any byte: disk blocks for the whole blob are reserved beyond the file's end, and
chunks are appended. A power cut may leave other bytes in it; the digest tells. Functions here
touch one file and may block; `store` decides about files and calls these from a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wire.messages import Buffer

READ_BYTES = 4 << 20
_NAME = re.compile(r"([0-9a-f]{64})(?:\.(\d{1,9})\.part)?")
_FALLOC_FL_KEEP_SIZE = 1
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class StorageError(Exception):
    """The store's directory cannot be used, or the disk is full."""


class Mismatch(Exception):
    """A blob's bytes do not have its digest."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that an earlier run left: a whole blob where `part` is None."""

    digest: bytes
    part: int | None
    size_bytes: int
    used_at: float


def blob_path(directory: Path, digest: bytes) -> Path:
    """Where a whole blob is: what a worker opens."""
    return directory / digest.hex()


def part_path(directory: Path, digest: bytes, number: int) -> Path:
    return directory / f"{digest.hex()}.{number}.part"


def scan(directory: Path) -> Iterator[Found]:
    """Blobs and parts in the directory. Other files are somebody else's and left alone."""
    for entry in os.scandir(directory):
        match = _NAME.fullmatch(entry.name)
        if match is not None and entry.is_file(follow_symlinks=False):
            stat = entry.stat()
            number = None if match[2] is None else int(match[2])
            yield Found(bytes.fromhex(match[1]), number, stat.st_size, stat.st_mtime)


def has_digest(path: Path, digest: bytes) -> bool:
    """Whether the file's bytes have this digest; they have not where it cannot be read."""
    try:
        return _hash_file(path).digest() == digest
    except OSError:
        return False


def _hash_file(path: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest


class Part:
    """A blob on its way in, with one writer at a time.

    `size_bytes` is None for a part from an earlier run that nobody has claimed yet. `write`
    and `resume` run in a thread; the rest is the event loop's. A writer whose connection broke
    may still be in `write` when the next one comes to `resume`, hence the lock.
    """

    def __init__(
        self, directory: Path, digest: bytes, number: int, size_bytes: int | None, held: int = 0
    ) -> None:
        self.digest = digest
        self.path = part_path(directory, digest, number)
        self.size_bytes = size_bytes
        self.held_bytes = held
        self.owner: object | None = None
        self.dropped = False
        self._hash: hashlib._Hash | None = None if held else hashlib.sha256()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Part {self.digest.hex()[:8]}: {self.held_bytes} of {self.size_bytes} bytes>"

    @property
    def budget_bytes(self) -> int:
        """What it counts for: all that it will become."""
        return self.held_bytes if self.size_bytes is None else self.size_bytes

    @property
    def full(self) -> bool:
        return self.held_bytes == self.size_bytes

    def resume(self) -> None:
        """Hash what an earlier connection or run left, so that chunks can go on from there.

        Raises StorageError, or Mismatch where all of it is there and wrong.
        """
        with self._lock:
            if self._hash is None:
                try:
                    self._hash = _hash_file(self.path)
                except OSError as error:
                    raise StorageError(_problem(self.path, error)) from error
            if self.full:
                self._check()

    def write(self, payload: Buffer) -> None:
        """Append a chunk. Raises StorageError, and keeps what was held, or Mismatch."""
        assert self._hash is not None
        view = memoryview(payload)
        with self._lock:
            try:
                self._append(view)
            except OSError as error:
                raise StorageError(_problem(self.path, error)) from error
            self._hash.update(view)
            self.held_bytes += view.nbytes
            if self.dropped:
                # Dropped meanwhile, and perhaps created anew by this very write.
                remove(self.path)
            elif self.full:
                self._check()

    def restart(self) -> None:
        """Nothing of it is held: what was there had the wrong bytes."""
        with self._lock:
            remove(self.path)
            self.held_bytes, self._hash = 0, hashlib.sha256()

    def _check(self) -> None:
        assert self._hash is not None
        if self._hash.digest() != self.digest:
            raise Mismatch(f"the bytes of weight {self.digest.hex()[:16]} do not match its digest")

    def _append(self, view: memoryview) -> None:
        assert self.size_bytes is not None
        # Created by the first chunk only: a file that went missing later is an error.
        flags = os.O_WRONLY | os.O_CLOEXEC | (0 if self.held_bytes else os.O_CREAT)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            if self.held_bytes == 0:
                _reserve(descriptor, self.size_bytes)
            position, end = self.held_bytes, self.held_bytes + view.nbytes
            try:
                while position < end:
                    position += os.pwrite(descriptor, view[position - end :], position)
            except OSError:
                # The length is the record of what is held.
                os.ftruncate(descriptor, self.held_bytes)
                raise
        finally:
            os.close(descriptor)


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Have disk blocks for the whole blob, without changing the file's length."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_int64(size_bytes)
    if libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), size) == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code))


def remove(path: Path) -> None:
    """Unlink; a file that cannot go stays for the next start to find."""
    with contextlib.suppress(OSError):
        path.unlink()


def _problem(path: Path, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"the edge cannot store weights in {path.parent}: {reason.lower()}"

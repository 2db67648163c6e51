"""Weights as files: `<name>` when whole, `<name>.N.part` before. What names are is `places`'.

Of a weight that comes by planes, `<name>.N.coarse` and `<name>.N.middle` hold what is there of
the first two, until its exact bytes, in the `.part`, are complete. The length of each is the
record of how much has been received. Functions here touch one file and may block; `store`
decides about files, `parts` fills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wire import reason
from wire.messages import Buffer

log = logging.getLogger("ionn_edge")
READ_BYTES = 1 << 20
# The kernel takes no more buffers than this in one write.
_MOST_BUFFERS = 1024
# A number that is written as we write it: another file would go by the same one.
_NAME = re.compile(r"([0-9a-f]{64})(?:\.(0|[1-9]\d{0,8})\.(part|coarse|middle))?")
MOST_PARTS = 10**9
_FALLOC_FL_KEEP_SIZE = 1
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# Of a file that is not read: whoever may remove it may have it. Linux only.
_HOLD = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW if sys.platform == "linux" else None
LONG_BYTES = 16 << 20
_freeing = ThreadPoolExecutor(1, "ionn-free")
# What that thread is to remove.
_going: set[Path] = set()
_going_lock = threading.Lock()
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class StorageError(Exception):
    """The store's directory cannot be used, or the disk is full."""


class StoreInUse(StorageError):
    """Another process has the store."""


class Mismatch(Exception):
    """A blob's bytes do not have its digest."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that an earlier run left. `kind` is "whole", "part", "coarse" or "middle"."""

    name: bytes
    kind: str
    number: int
    size_bytes: int
    used_at: float


def blob_path(directory: Path, name: bytes) -> Path:
    """Where a whole blob is: what a worker opens."""
    return directory / name.hex()


def part_path(directory: Path, name: bytes, number: int, kind: str = "part") -> Path:
    """Where a blob on its way is; `kind` is "part", "coarse" or "middle"."""
    return directory / f"{name.hex()}.{number}.{kind}"


def scan(directory: Path) -> Iterator[Found]:
    """Blobs and parts in the directory. Other files are somebody else's and left alone."""
    for entry in os.scandir(directory):
        match = _NAME.fullmatch(entry.name)
        if match is not None and entry.is_file(follow_symlinks=False):
            stat = entry.stat()
            kind, number = match[3] or "whole", int(match[2] or 0)
            yield Found(bytes.fromhex(match[1]), kind, number, stat.st_size, stat.st_mtime)


def digest_of(path: Path) -> bytes | None:
    """SHA-256 of the file; None where it cannot be read."""
    try:
        return hash_file(path).digest()
    except OSError:
        return None


def hash_file(path: Path, size_bytes: int = 1 << 62) -> hashlib._Hash:
    """SHA-256 of the file's first `size_bytes`, or of all of it. Raises OSError."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with open(os.open(path, _READ), "rb", buffering=0) as file:
        while count := file.readinto(buffer[: max(min(size_bytes, READ_BYTES), 0)]):
            digest.update(buffer[:count])
            size_bytes -= count
    return digest


def append(path: Path, held_bytes: int, pieces: Sequence[Buffer], reserve_bytes: int) -> None:
    """Write the pieces behind the file's first `held_bytes`; all of them or, on OSError, none.

    The first ones create the file, and have disk blocks reserved for all that will come.
    """
    # Created by the first only: a file that went missing later is an error.
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if held_bytes else os.O_CREAT)
    descriptor = os.open(path, flags, 0o600)
    try:
        if held_bytes == 0:
            _reserve(descriptor, reserve_bytes)
        try:
            _write_all(descriptor, pieces, held_bytes)
        except OSError:
            # The length is the record of what is held.
            os.ftruncate(descriptor, held_bytes)
            raise
    finally:
        os.close(descriptor)


def read_at(path: Path, offset: int, size_bytes: int) -> bytes:
    """So many bytes of the file. Raises OSError, and EOFError where there are fewer."""
    descriptor = os.open(path, _READ)
    try:
        data = os.pread(descriptor, size_bytes, offset)
    finally:
        os.close(descriptor)
    if len(data) < size_bytes:
        raise EOFError(f"{path.name} ends at {offset + len(data)} bytes")
    return data


def _write_all(descriptor: int, pieces: Sequence[Buffer], position: int) -> None:
    for first in range(0, len(pieces), _MOST_BUFFERS):
        some = pieces[first : first + _MOST_BUFFERS]
        expected = sum(map(len, some))
        written = os.pwritev(descriptor, some, position)
        position += written
        if written < expected:
            # Rare: a full disk, or a signal. What is left goes one by one.
            rest = memoryview(b"".join(some))[written:]
            while rest.nbytes:
                count = os.pwrite(descriptor, rest, position)
                rest, position = rest[count:], position + count


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Have disk blocks for the whole blob, without changing the file's length."""
    if _LIBC is None:
        return
    size = ctypes.c_int64(size_bytes)
    if _LIBC.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), size) == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code))


def remove(path: Path) -> None:
    """Unlink; a file that cannot go stays for the next start to find.

    The space of a long one is freed in a thread beside: the kernel takes a tenth of a second and
    more for a gigabyte, in which nobody would be served.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if _HOLD is not None and path.lstat().st_size >= LONG_BYTES:
            # A file is there for as long as somebody has it open.
            opened = os.open(path, _HOLD)
            stack.callback(_freeing.submit, os.close, opened)
        path.unlink()


def remove_beside(paths: Sequence[Path]) -> None:
    """`remove` each in a thread, but what is written anew meanwhile (see `keep`): thousands take a
    second, in which nobody would be served."""
    with _going_lock:
        _going.update(paths)
    _freeing.submit(_remove_those, list(paths))


def _remove_those(paths: Sequence[Path]) -> None:
    for path in paths:
        with _going_lock:
            if path in _going:
                _going.discard(path)
                remove(path)


def touch(directory: Path, names: Iterable[bytes]) -> None:
    """These whole blobs are in use. Where that cannot be noted, only the order of later evictions
    suffers."""
    for name in names:
        with contextlib.suppress(OSError):
            os.utime(blob_path(directory, name), follow_symlinks=False)


def touch_beside(directory: Path, names: Iterable[bytes]) -> None:
    """`touch` in a thread."""
    _freeing.submit(touch, directory, names)


def keep(path: Path) -> None:
    """Something is about to be there that does not go with what was there before."""
    with _going_lock:
        _going.discard(path)


async def all_removed() -> None:
    """Until what was to be removed by now is."""
    await asyncio.get_running_loop().run_in_executor(None, wait_removed)


def wait_removed() -> None:
    """The same, of who has no loop."""
    # There is one thread, which does one after the other.
    _freeing.submit(int).result()


def boot() -> str | None:
    """Names the time since this machine was started; None where nothing tells."""
    try:
        return _BOOT.read_text().strip() or None
    except OSError:
        return None


def cannot_store(directory: Path, error: OSError) -> StorageError:
    """The error for a client, which is not told where things are here; the operator is."""
    log.warning("weights cannot be stored in %s: %s", directory, reason(error))
    # Without the system's words, an error's own may name a file.
    said = reason(error) if error.strerror else type(error).__name__.lower()
    return StorageError(f"the edge cannot store weights: {said}")

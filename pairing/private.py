"""Files that nobody else may read: written whole or not at all, and checked before they are read.

Knows nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind.
    fcntl = None  # type: ignore[assignment]

MAX_BYTES = 4 << 20
# 0 where there is no such flag: then a link is followed.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# How files are called while they are written, and when nobody can be writing one any more.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
ABANDONED_S = 3600.0


class StateError(Exception):
    """A file of who is who cannot be kept or believed. The text says which, why and what to do."""


def own_directory(directory: Path) -> None:
    """Make it, for this user only, if it is not there.

    Raises OSError, and StateError if others could put files of theirs in the place of ours, or
    old ones of ours in the place of new ones.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise StateError(
            f"others on this machine can change what is in {directory}: keep this in a directory"
            " that only you can write to (chmod 700)"
        )


def write_private(path: Path, data: bytes, *, replace: bool = True) -> bool:
    """Put `data` there for this user's eyes only (0600, in a directory of 0700), durably.

    A crash leaves what was there before, or all of `data`, and beside it a file that the next
    write an hour later removes. Without `replace`, a file that is there already stays, and the
    answer is False. Raises StateError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        own_directory(path.parent)
        _sweep(path.parent)
        try:
            _write(temporary, data)
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"cannot write {path}: {_why(error)}") from error
    return True


def read_private(path: Path) -> bytes | None:
    """What is there, None if nothing is.

    Raises StateError if others can read or change it, if it is another user's, not a plain file,
    longer than 4 MiB or not readable.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | NO_FOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {_why(error)}") from error
    try:
        _check(path, os.fstat(opened))
        with open(opened, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StateError(f"cannot read {path}: {_why(error)}") from error
    finally:
        os.close(opened)
    if len(data) > MAX_BYTES:
        raise StateError(f"{path} is longer than {MAX_BYTES >> 20} MiB: not a file of ours")
    return data


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else who asks changes this directory meanwhile. Raises StateError."""
    try:
        own_directory(directory)
        lock = os.open(
            directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | NO_FOLLOW, 0o600
        )
    except OSError as error:
        raise StateError(f"cannot keep anything in {directory}: {_why(error)}") from error
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | NO_FOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sweep(directory: Path) -> None:
    """Remove what writers left that were killed: it may be a key, or who was paired once."""
    before = time.time() - ABANDONED_S
    for entry in os.scandir(directory):
        if _TEMPORARY.fullmatch(entry.name):
            # Gone meanwhile, or nothing that can go.
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_mtime < before:
                    os.unlink(entry.path)


def _sync_directory(directory: Path) -> None:
    # Without this a power cut may forget the new name. Not every file system can.
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{path} is not a plain file: move it away")
    if not hasattr(os, "getuid"):
        return
    if status.st_uid != os.getuid():
        raise StateError(f"{path} belongs to another user: it may say what that one likes")
    if status.st_mode & 0o077:
        raise StateError(
            f"others on this machine can open {path}, which holds secrets: if that is a mistake,"
            f" chmod 600 {path}; if they may have read it, delete it and pair again"
        )


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

"""A model that the operator brings, on its way in: files that belong to nobody yet.

Written by the command's process into a directory beside the box's own, from where they are moved:
one publisher at a time, held by a lock that ends with its process. What a process that was killed
left goes when the next one comes, or the box starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ionn_edge.config import format_bytes
from ionn_edge.storage.blobs import StorageError, append, cannot_store, remove
from wire.messages import Buffer

DIRECTORY = "publishing"
GRAPH = "graph"


def staged(store: Path) -> Path:
    """Where a publisher puts the graph, as GRAPH, and the weights, named by their digests."""
    return store / DIRECTORY


@contextlib.contextmanager
def staging(store: Path, size_bytes: int) -> Iterator[Path]:
    """The directory, which is empty, and is emptied at the end.

    size_bytes: what will be put there. Raises StorageError where another publishes, or the disk
    has not the space.
    """
    directory = staged(store)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = _locked(directory)
    except OSError as error:
        raise cannot_store(directory, error) from error
    if lock is None:
        raise StorageError("another model is being published at the moment; try again after that")
    try:
        _empty(directory)
        disk = os.statvfs(directory)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < size_bytes:
            size, free = format_bytes(size_bytes), format_bytes(free_bytes)
            raise StorageError(f"the model takes {size}, and the disk of {store} has {free} free")
        yield directory
    finally:
        _empty(directory)
        os.close(lock)


def put(path: Path, pieces: Iterable[Buffer]) -> None:
    """Write a file that outlives a power cut. Raises StorageError."""
    try:
        append(path, 0, list(pieces), 0)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_store(path.parent, error) from error


def drop_staged(store: Path) -> None:
    """Drop what a publisher left that was killed; not that of one at work. Raises OSError."""
    directory = staged(store)
    if directory.is_dir():
        lock = _locked(directory)
        if lock is not None:
            _empty(directory)
            os.close(lock)


def _locked(directory: Path) -> int | None:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _empty(directory: Path) -> None:
    for path in list(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        remove(path)

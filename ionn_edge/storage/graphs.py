"""Graphs that were checked, kept on disk, so that a client that comes back need not send its own.

Each is a sealed file named by its fingerprint, as keyed as the weights beside it (see places), and
by everything that decides what a check says: another version of this package, or of torch,
checks anew. What was checked or loaded since the start is known in memory too, and is offered
again in no time. One device's only. Knows no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import threading
from collections import OrderedDict
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path

from ionn_edge.machine.events import Model
from ionn_edge.storage.blobs import remove
from ionn_edge.storage.places import Place
from ionn_edge.storage.sealed import FRESH, SEAL_BYTES, read_sealed, write_sealed
from wire.messages import Buffer

MAX_BYTES = 64 << 20
# Of one, as on the wire.
MAX_GRAPH_BYTES = MAX_BYTES // 4
MAX_MODELS = 256
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT_BYTES = 64
_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{16})\.(graph|fresh)")


class Graphs:
    """The checked graphs of one device. `keep` and `load` block for one small file."""

    def __init__(self, place: Place, max_bytes: int = MAX_BYTES) -> None:
        self._place = place
        self._max_bytes = max_bytes
        self._writing = threading.Lock()
        self._wiped = False
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._being_kept: set[asyncio.Future[None]] = set()

    def open(self) -> None:
        """Drop what other versions checked, and what is more than fits. Raises OSError."""
        for path, match in self._files():
            if match[2] != edition() or path.suffix == FRESH:
                remove(path)
        self._shrink()

    def known(self, fingerprint: str) -> Model | None:
        """What its worker said of a graph that was checked or loaded since the start."""
        model = self._models.get(fingerprint)
        if model is not None:
            self._models.move_to_end(fingerprint)
        return model

    def learned(self, model: Model) -> None:
        self._models[model.fingerprint] = model
        while len(self._models) > MAX_MODELS:
            self._models.popitem(last=False)

    def kept(self) -> list[str]:
        """Fingerprints of the graphs on disk, the latest used first."""
        files = sorted(self._files(), key=lambda each: _used_at(each[0]), reverse=True)
        said = [_fingerprint_in(path) for path, _ in files if path.suffix != FRESH]
        return [each for each in said if each is not None]

    def keep(self, fingerprint: str, graph: Buffer) -> None:
        """Write a checked graph, all of it or nothing. A full disk only costs a check later."""
        path = self._path(fingerprint)
        if path is None or len(graph) > self._max_bytes // 4:
            return
        with self._writing:
            if self._wiped:
                return
            with contextlib.suppress(OSError):
                write_sealed(path, self._place, b"".join((fingerprint.encode(), graph)))
            self._shrink()

    def keep_beside(self, threads: Executor, fingerprint: str, graph: Buffer) -> None:
        """`keep` in one of these threads; `all_kept` tells when it is done."""
        loop = asyncio.get_running_loop()
        keeping = loop.run_in_executor(threads, self.keep, fingerprint, graph)
        self._being_kept.add(keeping)
        keeping.add_done_callback(self._being_kept.discard)

    async def all_kept(self) -> None:
        """Until what is being kept beside at the moment is on the disk, or never will be."""
        await asyncio.gather(*self._being_kept, return_exceptions=True)

    def load(self, fingerprint: str) -> bytes | None:
        """A graph that was checked before; None where there is none, or its file is not sound."""
        path = self._path(fingerprint)
        if path is None:
            return None
        try:
            content = read_sealed(path, self._place)
        except OSError:
            return None
        if content is None or content[:_FINGERPRINT_BYTES] != fingerprint.encode():
            self.drop(fingerprint)
            return None
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)
        return content[_FINGERPRINT_BYTES:]

    def drop(self, fingerprint: str) -> None:
        """What is kept of it is of no use."""
        self._models.pop(fingerprint, None)
        path = self._path(fingerprint)
        if path is not None:
            remove(path)

    def wipe(self) -> None:
        """Nothing is here any more, nor will be: what is still being kept is not."""
        with self._writing:
            self._wiped = True
            self._models.clear()
            for path, _ in self._files():
                remove(path)

    @property
    def used_bytes(self) -> int:
        """On disk; counts against no quota but its own."""
        return sum(size for _, size, _ in self._sized())

    def _path(self, fingerprint: str) -> Path | None:
        # It comes from a stranger: nothing else may become a file's name.
        if not _FINGERPRINT.fullmatch(fingerprint):
            return None
        name = self._place.graph_name(fingerprint)
        return self._place.directory / f"{name}-{edition()}.graph"

    def _files(self) -> list[tuple[Path, re.Match[str]]]:
        with contextlib.suppress(OSError), os.scandir(self._place.directory) as entries:
            found = ((Path(each.path), _NAME.fullmatch(each.name)) for each in entries)
            return [(path, match) for path, match in found if match is not None]
        return []

    def _sized(self) -> list[tuple[float, int, Path]]:
        sized: list[tuple[float, int, Path]] = []
        for path, _ in self._files():
            with contextlib.suppress(OSError):
                stat = path.lstat()
                sized.append((stat.st_mtime, stat.st_size, path))
        return sorted(sized)

    def _shrink(self) -> None:
        sized = self._sized()
        excess = sum(size for _, size, _ in sized) - self._max_bytes
        for _, size, path in sized:
            if excess > 0:
                excess -= size
                remove(path)


def is_graph(name: str) -> bool:
    """Whether a file of this name is one of these."""
    return _NAME.fullmatch(name) is not None


@functools.cache
def edition() -> str:
    """Names all that a check of a graph depends on: torch, this package, and its very text."""
    digest = hashlib.sha256(f"{version('ionn')} {version('torch')}".encode())
    spec = importlib.util.find_spec("layergraph")
    for directory in (spec.submodule_search_locations if spec is not None else None) or ():
        for path in sorted(Path(directory).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _fingerprint_in(path: Path) -> str | None:
    """What the file says that it is of: `load` tells whether that is so."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            said = file.read(SEAL_BYTES + _FINGERPRINT_BYTES)[SEAL_BYTES:]
    except OSError:
        return None
    text = said.decode("ascii", "replace")
    return text if _FINGERPRINT.fullmatch(text) else None

"""Graphs that were checked, kept on disk, so that a client that comes back need not send its own.

Each is a file named by its fingerprint and by everything that decides what a check says: another
version of this package, or of torch, checks anew. What was checked or loaded since the start is
known in memory too, and is offered again in no time. Knows no torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import threading
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path

from ionn_edge.blobs import remove
from ionn_edge.events import Model

MAX_BYTES = 64 << 20
MAX_MODELS = 256
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{16})\.(graph|fresh)")
_DIGEST_BYTES = hashlib.sha256().digest_size


class Graphs:
    """The checked graphs in a store's directory. `keep` and `load` block for one small file."""

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._writing = threading.Lock()
        self._models: OrderedDict[str, Model] = OrderedDict()

    def open(self) -> None:
        """Drop what other versions checked, and what is more than fits. Raises OSError."""
        for path, match in self._files():
            if match[2] != edition() or match[3] == "fresh":
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
        return [match[1] for _, match in files if match[3] == "graph"]

    def keep(self, fingerprint: str, graph: bytes) -> None:
        """Write a checked graph, all of it or nothing. A full disk only costs a check later."""
        path = self._path(fingerprint)
        if path is None or len(graph) > self._max_bytes // 4:
            return
        fresh = path.with_suffix(".fresh")
        with self._writing:
            try:
                fresh.write_bytes(hashlib.sha256(graph).digest() + graph)
                fresh.rename(path)
            except OSError:
                remove(fresh)
            self._shrink()

    def load(self, fingerprint: str) -> bytes | None:
        """A graph that was checked before; None where there is none, or its file is damaged."""
        path = self._path(fingerprint)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            self.drop(fingerprint)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data[_DIGEST_BYTES:]

    def drop(self, fingerprint: str) -> None:
        """What is kept of it is of no use."""
        self._models.pop(fingerprint, None)
        path = self._path(fingerprint)
        if path is not None:
            remove(path)

    def _path(self, fingerprint: str) -> Path | None:
        # It comes from a stranger: nothing else may become a file's name.
        if not _FINGERPRINT.fullmatch(fingerprint):
            return None
        return self._directory / f"{fingerprint}-{edition()}.graph"

    def _files(self) -> list[tuple[Path, re.Match[str]]]:
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            found = ((Path(each.path), _NAME.fullmatch(each.name)) for each in entries)
            return [(path, match) for path, match in found if match is not None]
        return []

    def _shrink(self) -> None:
        excess = -self._max_bytes
        sized: list[tuple[float, int, Path]] = []
        for path, _ in self._files():
            with contextlib.suppress(OSError):
                stat = path.stat()
                sized.append((stat.st_mtime, stat.st_size, path))
                excess += stat.st_size
        for _, size, path in sorted(sized):
            if excess > 0:
                excess -= size
                remove(path)


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

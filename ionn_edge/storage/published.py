"""Models that the operator has published: every device has them, and nobody evicts them.

Their weights were some device's, whose files become everybody's, or the operator brought them. A
record beside them, sealed so that only this box can have written it, says which models these are.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack

from ionn_edge.machine.events import Model, Progress
from ionn_edge.storage.blobs import StorageError, blob_path, cannot_store, remove
from ionn_edge.storage.graphs import Graphs
from ionn_edge.storage.holdings import Blob, Holdings
from ionn_edge.storage.places import Place
from ionn_edge.storage.sealed import read_sealed, write_sealed
from wire import DTYPE_BYTES

if TYPE_CHECKING:
    from ionn_edge.storage.shelf import Shelf

_RECORD = re.compile(r"[0-9a-f]{64}\.(model|fresh)")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32


class Published(Holdings):
    """What every device has here. No part of it is on its way: it was whole before."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.graphs = Graphs(place)
        self.models: dict[str, Model] = {}
        # What the operator called them; "" where that is not known.
        self.names: dict[str, str] = {}
        # Taken, and not recorded yet.
        self._coming: Model | None = None

    def open(self) -> None:
        super().open()
        self.graphs.open()
        for path in list(self.place.directory.iterdir()):
            if _RECORD.fullmatch(path.name):
                self._open_record(path)
        for fingerprint in self.graphs.kept():
            # Written first, by a process that was killed before it wrote the record.
            if fingerprint not in self.models:
                self.graphs.drop(fingerprint)
        self.drop_unused()

    def held(self, digest: bytes, owner: object | None = None) -> Progress:
        # Most boxes have published nothing: no name is computed for nothing.
        return super().held(digest, owner) if self.blobs else Progress()

    def is_whole(self, digest: bytes) -> bool:
        return bool(self.blobs) and super().is_whole(digest)

    def publish(self, model: Model, graph: bytes, own: Shelf) -> None:
        """Make a device's model everybody's, all of it or nothing. Raises StorageError.

        The caller has seen to it that all of its weights are here or there, and verified. They
        are here as well before the record is, and only then no more the device's.
        """
        name = self.names.get(model.fingerprint, "")
        moving = {
            own.name(digest): self.name(digest)
            for digest, size in model.sizes.items()
            if size and not self.is_whole(digest)
        }
        try:
            for there, here in moving.items():
                self._link(blob_path(own.place.directory, there), here)
            self._write(model, graph, name)
        except StorageError:
            for here in moving.values():
                remove(blob_path(self.place.directory, here))
            if model.fingerprint not in self.models:
                self.graphs.drop(model.fingerprint)
            raise
        for there, here in moving.items():
            remove(blob_path(own.place.directory, there))
            own.give(there, here)
        self._recorded(model, name)

    def _link(self, file: Path, name: bytes) -> None:
        path = blob_path(self.place.directory, name)
        # A damaged one.
        self.drop_blob(name)
        try:
            path.unlink(missing_ok=True)
            os.link(file, path)
        except OSError as error:
            raise cannot_store(self.place.directory, error) from error

    def take(self, model: Model, directory: Path) -> None:
        """Move what is not here of a model's weights, by files named by their digests.

        They are to be verified here, where nobody else writes. What the model needs stays until
        `record` or `drop_coming`; the next start drops it. Raises StorageError.
        """
        self._coming = model
        try:
            for digest, size in model.sizes.items():
                if size and not self.is_whole(digest):
                    name, brought = self.name(digest), directory / digest.hex()
                    found = brought.lstat()
                    if not stat.S_ISREG(found.st_mode):
                        raise StorageError("what was brought as a weight is no file")
                    brought.rename(blob_path(self.place.directory, name))
                    self._put(name, Blob(found.st_size, False, 0.0))
        except OSError as error:
            raise cannot_store(self.place.directory, error) from error

    def record(self, model: Model, graph: bytes, name: str) -> None:
        """A model is published from now on, whose weights are all here. Raises StorageError."""
        self._write(model, graph, name)
        self._recorded(model, name)
        self._coming = None

    def drop_coming(self) -> set[bytes]:
        """Drop what was taken for a model that was not recorded; the names of that."""
        self._coming = None
        return self.drop_unused()

    def _write(self, model: Model, graph: bytes, name: str) -> None:
        """The record last: with it, the model is published."""
        self.graphs.keep(model.fingerprint, graph)
        if self.graphs.load(model.fingerprint) is None:
            raise StorageError("the model's graph cannot be kept")
        try:
            self._write_record(model, name)
        except OSError as error:
            raise cannot_store(self.place.directory, error) from error

    def _recorded(self, model: Model, name: str) -> None:
        self.models[model.fingerprint] = model
        self.names[model.fingerprint] = name
        self.graphs.learned(model)

    def lacking(self, sizes: Mapping[bytes, int]) -> int:
        """How many bytes of these blobs are not here."""
        return sum(size for digest, size in sizes.items() if not self.is_whole(digest))

    def unpublish(self, fingerprint: str) -> set[bytes]:
        """Drop a model, and what of its weights no other has; the names of those."""
        del self.models[fingerprint], self.names[fingerprint]
        remove(self._record(fingerprint))
        self.graphs.drop(fingerprint)
        return self.drop_unused()

    def drop_unused(self) -> set[bytes]:
        """Drop what is no model's that is published, or on its way; the names of that."""
        models = [*self.models.values(), *([self._coming] if self._coming else ())]
        used = {self.name(digest) for model in models for digest in model.sizes}
        unused = self.blobs.keys() - used
        for name in unused:
            self.drop_blob(name)
        for part in self.parts:
            self.drop_part(part)
        return unused

    def _record(self, fingerprint: str) -> Path:
        return self.place.directory / f"{self.place.graph_name(fingerprint)}.model"

    def _write_record(self, model: Model, name: str) -> None:
        content = msgpack.packb([model.fingerprint, model.layers, model.weights, name])
        write_sealed(self._record(model.fingerprint), self.place, content, durable=True)

    def _open_record(self, path: Path) -> None:
        content = None
        with contextlib.suppress(OSError):
            content = read_sealed(path, self.place)
        model, name = (None, "") if content is None else _decoded(content)
        if model is None or self._record(model.fingerprint) != path:
            remove(path)
        else:
            self.models[model.fingerprint], self.names[model.fingerprint] = model, name


def _decoded(content: bytes) -> tuple[Model | None, str]:
    """A record's model and name, which older ones lack."""
    # It is sealed: only another version of this package can have meant something else.
    try:
        fingerprint, layers, rows, *names = msgpack.unpackb(content, use_list=False)
        weights = tuple((bytes(digest), int(size), str(dtype)) for digest, size, dtype in rows)
        sound = (
            _FINGERPRINT.fullmatch(fingerprint)
            and layers >= 0
            and all(len(d) == _DIGEST_BYTES and s >= 0 and t in DTYPE_BYTES for d, s, t in weights)
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        return None, ""
    model = Model(fingerprint, int(layers), weights) if sound else None
    return model, str(names[0]) if names else ""

"""Where one device's weights are, and what their files are called. Touches no file.

Names are keyed by a secret of the box: that two devices hold the same weight shows in no name, a
name tells nothing to who knows the weight, and a file that was put under another device's
directory has a wrong name there. Part of the worker too, which gets its own device's key only.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from pathlib import Path

from ionn_edge.storage.blobs import blob_path, part_path

PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Place:
    """One device's directory, and the key of the names in it."""

    directory: Path
    key: bytes = field(repr=False)

    @classmethod
    def of_device(cls, store: Path, secret: bytes, device: str) -> Place:
        """That of the device with this id."""
        key = _keyed(secret, b"device " + device.encode())
        return cls(store / _keyed(key, b"directory").hex(), key)

    @classmethod
    def of_all(cls, store: Path, secret: bytes) -> Place:
        """That of the models that the box's operator has published for every device."""
        return cls(store / PUBLISHED, _keyed(secret, b"published"))

    def name(self, digest: bytes) -> bytes:
        """The name here of the blob with this SHA-256: 32 bytes."""
        return _keyed(self.key, digest)

    def graph_name(self, fingerprint: str) -> str:
        """The name here of a graph: 64 hexadecimal digits."""
        return _keyed(self.key, b"graph " + fingerprint.encode()).hex()

    def seal(self, content: bytes) -> bytes:
        """What only this box can have written beside this content: 32 bytes."""
        return _keyed(self.key, b"sealed content " + content)

    def blob(self, digest: bytes) -> Path:
        """Where the blob is once it is whole."""
        return blob_path(self.directory, self.name(digest))

    def part(self, digest: bytes, number: int, kind: str = "part") -> Path:
        """Where it is on its way; `kind` is "part", "coarse" or "middle"."""
        return part_path(self.directory, self.name(digest), number, kind)


def _keyed(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")

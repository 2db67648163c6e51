"""What earlier runs left in a store's directory, and what of it is still good.

Nothing but the digest at its end tells whether a blob's bytes are right. A process that dies
leaves what it wrote; a machine that does may not, and planes have no digest of their own: they
are good until the machine is started again. Where nothing tells of that, every start counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.machine.events import Progress
from ionn_edge.storage.blobs import Found, blob_path, boot, part_path, remove, scan
from ionn_edge.storage.graphs import is_graph
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place

_BOOT = "boot"


@dataclass(frozen=True, slots=True)
class Strange:
    """A directory of no known device: one that is not paired any more, or of another secret."""

    directory: Path
    size_bytes: int
    used_at: float

    @classmethod
    def of(cls, directory: Path) -> Strange:
        """What is in it. Raises OSError."""
        found = list(scan(directory))
        used_at = max((each.used_at for each in found), default=0.0)
        return cls(directory, sum(each.size_bytes for each in found), used_at)


def leftovers(place: Place) -> tuple[list[Found], list[Part]]:
    """Whole blobs, and of every other name the part that is furthest. What else is ours goes.

    Raises OSError.
    """
    whole: list[Found] = []
    sizes: dict[tuple[bytes, int], dict[str, int]] = {}
    for found in scan(place.directory):
        if found.kind == "whole":
            whole.append(found)
        else:
            sizes.setdefault((found.name, found.number), {})[found.kind] = found.size_bytes
    complete = {found.name for found in whole}
    furthest: dict[bytes, Part] = {}
    for (name, number), each in sizes.items():
        held = Progress(each.get("part", 0), each.get("coarse", 0) // 2, each.get("middle", 0) // 2)
        part = Part(place, name, number, held=held)
        rival = furthest.get(name)
        if name in complete or not part.on_disk_bytes or (rival and rival.reach >= part.reach):
            part.remove()
            continue
        if rival is not None:
            rival.remove()
        furthest[name] = part
    return whole, list(furthest.values())


def drop_planes(directories: Iterable[Path], store: Path) -> None:
    """Drop all planes unless the machine has run since they were written. Raises OSError."""
    if _same_boot(store):
        return
    for directory in directories:
        for found in scan(directory):
            if found.kind in ("coarse", "middle"):
                remove(part_path(directory, found.name, found.number, found.kind))
    # Only now: planes that are not to be trusted are gone. Not written, they go next time.
    with contextlib.suppress(OSError):
        (store / _BOOT).touch(0o600)
        (store / _BOOT).write_text(boot() or "")


def drop_files(directory: Path) -> None:
    """Drop every file of weights and graphs; others are somebody else's. Raises OSError."""
    for found in scan(directory):
        if found.kind == "whole":
            remove(blob_path(directory, found.name))
        else:
            remove(part_path(directory, found.name, found.number, found.kind))
    for path in list(directory.iterdir()):
        if is_graph(path.name):
            remove(path)


def _same_boot(store: Path) -> bool:
    now = boot()
    try:
        return now is not None and now == (store / _BOOT).read_text()
    except (OSError, ValueError):
        return False

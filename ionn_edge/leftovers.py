"""What earlier runs left in a store's directory, and what of it is still good.

Nothing but the digest at its end tells whether a blob's bytes are right. A process that dies
leaves what it wrote; a machine that does may not, and planes have no digest of their own: they
are good until the machine is started again. Where nothing tells of that, every start counts.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ionn_edge.blobs import Found, boot, part_path, remove, scan
from ionn_edge.events import Progress
from ionn_edge.parts import Part


def leftovers(directory: Path) -> tuple[list[Found], list[Part]]:
    """Whole blobs, and of every other digest the part that is furthest. What else is ours goes.

    Raises OSError.
    """
    whole: list[Found] = []
    sizes: dict[tuple[bytes, int], dict[str, int]] = {}
    keeps_planes = _same_boot(directory)
    for found in scan(directory):
        if found.kind == "whole":
            whole.append(found)
        elif found.kind == "part" or keeps_planes:
            sizes.setdefault((found.digest, found.number), {})[found.kind] = found.size_bytes
        else:
            remove(part_path(directory, found.digest, found.number, found.kind))
    complete = {found.digest for found in whole}
    furthest: dict[bytes, Part] = {}
    for (digest, number), each in sizes.items():
        held = Progress(each.get("part", 0), each.get("coarse", 0) // 2, each.get("middle", 0))
        part = Part(directory, digest, number, held=held)
        rival = furthest.get(digest)
        if digest in complete or not part.on_disk_bytes or (rival and rival.reach >= part.reach):
            part.remove()
            continue
        if rival is not None:
            rival.remove()
        furthest[digest] = part
    # Only now: planes that are not to be trusted are gone. Not written, they go next time.
    with contextlib.suppress(OSError):
        (directory / "boot").write_text(boot() or "")
    return whole, list(furthest.values())


def _same_boot(directory: Path) -> bool:
    now = boot()
    try:
        return now is not None and now == (directory / "boot").read_text()
    except (OSError, ValueError):
        return False

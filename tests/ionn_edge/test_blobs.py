"""Files of weights that go: at once by name, and the space of long ones beside."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from ionn_edge.storage import blobs
from ionn_edge.storage.blobs import (
    LONG_BYTES,
    cannot_store,
    keep,
    remove,
    remove_beside,
    wait_removed,
)


def test_the_space_of_long_files_is_freed_beside(tmp_path: Path) -> None:
    goes_on = threading.Event()
    busy = blobs._freeing.submit(goes_on.wait, 20)
    descriptors = len(os.listdir("/proc/self/fd"))
    for name, size in (("short", 1), ("long", LONG_BYTES)):
        path = tmp_path / name
        path.touch(0)
        os.truncate(path, size)
        remove(path)
        assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1, "the long one's"
    goes_on.set()
    busy.result()
    blobs._freeing.submit(int).result()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_what_cannot_go_stays_and_links_are_not_followed(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.touch()
    os.truncate(kept, LONG_BYTES)
    link.symlink_to(kept)
    remove(link)
    remove(tmp_path)
    remove(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == [kept]


def test_many_files_go_beside_but_for_what_is_written_anew(tmp_path: Path) -> None:
    goes_on = threading.Event()
    blobs._freeing.submit(goes_on.wait, 20)
    paths = [tmp_path / str(number) for number in range(100)]
    for path in paths:
        path.write_bytes(b"old")
    remove_beside([*paths, tmp_path / "nothing"])
    keep(paths[7])
    paths[7].write_bytes(b"new")
    goes_on.set()
    wait_removed()
    assert list(tmp_path.iterdir()) == [paths[7]]
    assert not blobs._going


def test_a_client_is_not_told_where_things_are(tmp_path: Path) -> None:
    said = str(cannot_store(tmp_path, OSError(f"{tmp_path}/weights is in the way")))
    assert said == "the edge cannot store weights: oserror"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))
    assert str(cannot_store(tmp_path, full)).endswith(": no space left on device")

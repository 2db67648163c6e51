"""Blobs on their way in by planes: what is on disk, what it counts for, what goes on from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy
import pytest

from ionn_edge.machine.events import Model, Progress
from ionn_edge.storage import blobs as blobs_module
from ionn_edge.storage import parts as parts_module
from ionn_edge.storage.blobs import Mismatch, StorageError, append, read_at
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place
from ionn_edge.storage.store import NoRoom, Store
from wire import RemoteProtocolError
from wire.messages import Segment
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, coarse_words
from wire.segments import encode_segment

VALUES = numpy.linspace(-3, 3, 100, dtype=numpy.float32)
BLOB = VALUES.tobytes()
DIGEST = hashlib.sha256(BLOB).digest()
PLANES = {
    "part": BLOB,
    "coarse": bytes(coarse_words(BLOB)),
    "middle": (VALUES.view("<u4") >> 16).astype("<u2").tobytes(),
}
MODEL = Model("f" * 64, 1, ((DIGEST, 400, "float32"),))
SECRET, ME = b"secret" * 5, "d" * 64
OTHER = Model("e" * 64, 1, ((bytes(32), 300, "uint8"),))


def opened(directory: Path, budget_bytes: int = 2000) -> Store:
    store = Store(directory, budget_bytes)
    store.open(SECRET, [ME])
    return store


def place(directory: Path) -> Place:
    """The device's, in a directory that is there."""
    found = Place.of_device(directory, SECRET, ME)
    found.directory.mkdir(exist_ok=True)
    return found


def claimed(store: Store, owner: object = "owner", model: Model = MODEL) -> Part:
    store.admit(ME, model, owner)
    part = store.shelf(ME).part(DIGEST, owner)
    assert part is not None
    part.resume()
    return part


def send(part: Part, plane: int, start: int, stop: int, coding: str = "planes") -> None:
    payload = encode_segment("float32", plane, BLOB, start, stop - start, coding)
    segment = Segment(0, plane, start, stop - start, coding, payload.nbytes)
    part.store(segment, "float32", (payload[:3], payload[3:]))


def kinds(directory: Path) -> dict[str, int]:
    return {path.name.rpartition(".")[2]: path.stat().st_size for path in directory.glob("*/*.*.*")}


def test_planes_are_files_whose_length_tells_until_the_blob_is_whole(tmp_path: Path) -> None:
    store = opened(tmp_path)
    part = claimed(store)
    send(part, COARSE, 0, 60)
    assert kinds(tmp_path) == {"coarse": 120}
    assert part.precision is None
    send(part, COARSE, 60, 100)
    assert part.precision == "float8"
    send(part, MIDDLE, 0, 100, "raw")
    assert part.precision == "bfloat16"
    send(part, FINE, 0, 30)
    assert kinds(tmp_path) == {"coarse": 200, "middle": 200, "part": 120}
    assert part.path.read_bytes() == BLOB[:120]
    send(part, FINE, 30, 100, "raw")
    assert part.full
    store.shelf(ME).finish(part)
    assert kinds(tmp_path) == {}
    assert place(tmp_path).blob(DIGEST).read_bytes() == BLOB


def test_planes_and_what_is_made_of_them_count_for_the_budget_while_they_are_there(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    part = claimed(store)
    assert store.used_bytes == 400
    assert store.widen(ME, "owner") == []
    # The blob, 4 bytes per element of planes, and the worker's tensor of 4 bytes per element.
    assert store.used_bytes == 400 + 400 + 400
    for plane in (COARSE, MIDDLE, FINE):
        send(part, plane, 0, 100)
        on_disk = sum(path.stat().st_size for path in tmp_path.glob("*/*.*.*"))
        assert on_disk + 400 <= store.used_bytes
    store.shelf(ME).finish(part)
    assert store.used_bytes == 400


def test_each_client_that_sends_planes_has_a_tensor_of_its_own(tmp_path: Path) -> None:
    store = opened(tmp_path, 3000)
    for count, owner in enumerate(("one", "two"), start=1):
        claimed(store, owner)
        store.widen(ME, owner)
        assert store.used_bytes == 1200 * count


def test_nobody_runs_on_planes_that_nobody_sends_or_that_another_began(tmp_path: Path) -> None:
    store = opened(tmp_path, 1200)
    part = claimed(store)
    store.widen(ME, "owner")
    send(part, COARSE, 0, 60)
    store.shelf(ME).release("owner")
    assert store.used_bytes == 800
    store = opened_again(store, 800)
    adopted = claimed(store)
    assert adopted.held == Progress(0, 60)
    assert store.used_bytes == 800
    send(adopted, COARSE, 60, 100)
    assert adopted.precision is None


def opened_again(store: Store, budget_bytes: int) -> Store:
    store.close()
    return opened(store.directory, budget_bytes)


def test_room_for_planes_is_made_by_eviction_or_there_is_none(tmp_path: Path) -> None:
    store = opened(tmp_path, 1200)
    store.admit(ME, OTHER, "other")
    claimed(store)
    with pytest.raises(NoRoom, match="try later"):
        store.widen(ME, "owner", busy={(ME, OTHER.fingerprint)})
    assert store.widen(ME, "owner") == [(ME, OTHER.fingerprint)]
    assert store.used_bytes == 1200


def test_planes_beyond_the_budget_are_refused_and_the_blob_itself_is_not(tmp_path: Path) -> None:
    store = opened(tmp_path, 1199)
    part = claimed(store)
    with pytest.raises(NoRoom, match="needs 800 bytes more"):
        store.widen(ME, "owner")
    send(part, WHOLE, 0, 100)
    assert part.full


def test_a_disk_too_small_for_the_planes_is_noticed_before_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    claimed(store)

    class Full:
        f_bavail, f_frsize = 1, 399

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(StorageError, match="400 bytes of weights are missing"):
        store.widen(ME, "owner")


@pytest.mark.parametrize(
    ("files", "held"),
    [
        ({"coarse": 120}, Progress(0, 60)),
        ({"coarse": 121}, Progress(0, 60)),
        ({"coarse": 200, "middle": 60}, Progress(0, 100, 30)),
        ({"coarse": 200, "middle": 200, "part": 43}, Progress(40, 100, 100)),
        ({"coarse": 999, "middle": 999}, Progress(0, 100, 100)),
        ({"coarse": 120, "middle": 60}, Progress(0, 60)),
        ({"middle": 60}, Progress()),
        ({"part": 40, "coarse": 120}, Progress(40)),
        ({"part": 43, "middle": 200}, Progress(40)),
        ({"coarse": 1}, Progress()),
    ],
    ids=[
        "coarse", "half a word", "middle", "fine", "too long", "middle without coarse",
        "middle alone", "whole with a little coarse", "whole without coarse", "next to nothing",
    ],
)  # fmt: skip
def test_what_an_earlier_run_left_is_gone_on_with_as_far_as_it_makes_sense(
    tmp_path: Path, files: dict[str, int], held: Progress
) -> None:
    for kind, size in files.items():
        place(tmp_path).part(DIGEST, 5, kind).write_bytes(PLANES[kind][:size].ljust(size))
    (tmp_path / "boot").write_text(blobs_module.boot() or "")
    store = opened(tmp_path, 10_000)
    part = claimed(store)
    assert store.shelf(ME).held(DIGEST, "owner") == held
    # And it can be gone on with, from there, without an error on the way.
    planes = (COARSE, MIDDLE) if held.coarse or not held.whole_bytes else ()
    for plane, start in zip(planes, (held.coarse, held.middle), strict=False):
        if start < 100:
            send(part, plane, start, 100)
    assert part.held.coarse in (0, 100)


def test_of_several_parts_the_one_that_is_furthest_is_kept(tmp_path: Path) -> None:
    place(tmp_path).part(DIGEST, 0, "part").write_bytes(BLOB[:96])
    place(tmp_path).part(DIGEST, 1, "coarse").write_bytes(bytes(200))
    place(tmp_path).part(DIGEST, 2, "coarse").write_bytes(bytes(10))
    (tmp_path / "boot").write_text(blobs_module.boot() or "")
    assert opened(tmp_path).shelf(ME).held(DIGEST) == Progress(0, 100)
    assert kinds(tmp_path) == {"coarse": 200}


def test_other_bytes_than_float32_give_up_planes_that_are_there(tmp_path: Path) -> None:
    place(tmp_path).part(DIGEST, 0, "coarse").write_bytes(bytes(200))
    (tmp_path / "boot").write_text(blobs_module.boot() or "")
    store = opened(tmp_path)
    part = claimed(store, model=Model("f" * 64, 1, ((DIGEST, 400, "int32"),)))
    assert part.held == Progress()
    assert kinds(tmp_path) == {}
    part.store(Segment(0, WHOLE, 0, 100, "raw", 400), "int32", (BLOB,))
    assert part.full


def test_the_next_writer_of_equal_bytes_may_have_larger_elements(tmp_path: Path) -> None:
    store = opened(tmp_path)
    part = claimed(store, "first", Model("f" * 64, 1, ((DIGEST, 400, "uint8"),)))
    part.store(Segment(0, WHOLE, 0, 11, "raw", 11), "uint8", (BLOB[:11],))
    store.shelf(ME).release("first")
    part = claimed(store, "second")
    assert part.held == Progress(8)
    send(part, WHOLE, 2, 100)
    assert part.full


def test_a_segment_that_is_not_the_next_one_is_refused_on_the_disk_as_well(tmp_path: Path) -> None:
    part = claimed(opened(tmp_path))
    send(part, COARSE, 0, 50)
    for plane, start in ((COARSE, 40), (COARSE, 60), (MIDDLE, 10), (WHOLE, 10)):
        with pytest.raises(RemoteProtocolError, match="expected"):
            send(part, plane, start, 100)
    assert part.held == Progress(0, 50)


def test_a_broken_coding_leaves_everything_as_it_was(tmp_path: Path) -> None:
    part = claimed(opened(tmp_path))
    send(part, COARSE, 0, 50)
    with pytest.raises(RemoteProtocolError) as refusal:
        part.store(Segment(0, COARSE, 50, 50, "planes", 5), "float32", (b"12345",))
    assert refusal.value.code == "coding"
    assert part.held == Progress(0, 50)
    assert kinds(tmp_path) == {"coarse": 100}


def test_planes_dropped_while_they_are_written_leave_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    part = claimed(store)
    send(part, COARSE, 0, 50)
    store.shelf(ME).drop(part)
    assert kinds(tmp_path) == {}
    with pytest.raises(StorageError):
        send(part, COARSE, 50, 100)
    late = claimed(opened_elsewhere(tmp_path))
    late.dropped = True
    send(late, COARSE, 0, 50)
    assert kinds(late.directory.parent) == {}


def opened_elsewhere(directory: Path) -> Store:
    return opened(directory / "elsewhere")


def test_planes_that_are_not_as_another_left_them_are_given_up(tmp_path: Path) -> None:
    # Another's codes: of its MIDDLE, other elements' exponents would be lacking.
    place(tmp_path).part(DIGEST, 5, "coarse").write_bytes(bytes(200))
    (tmp_path / "boot").write_text(blobs_module.boot() or "")
    part = claimed(opened(tmp_path))
    assert part.held == Progress(0, 100)
    with pytest.raises(Mismatch, match="do not decode"):
        send(part, MIDDLE, 0, 100)


def test_a_disk_that_fails_to_read_planes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = claimed(opened(tmp_path))
    send(part, COARSE, 0, 100)

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ionn_edge.storage.parts.read_at", broken)
    with pytest.raises(StorageError, match="nput/output error"):
        send(part, MIDDLE, 0, 100)


def test_a_blob_that_is_wrong_at_its_end_says_so(tmp_path: Path) -> None:
    part = claimed(opened(tmp_path))
    for plane in (COARSE, MIDDLE):
        send(part, plane, 0, 100)
    with place(tmp_path).part(DIGEST, part.number, "middle").open("r+b") as file:
        file.write(b"\x0f")
    with pytest.raises(Mismatch, match="do not match its digest"):
        send(part, FINE, 0, 100)
    part.restart()
    assert kinds(tmp_path) == {}
    send(part, WHOLE, 0, 100)
    assert part.full


def test_a_write_that_the_kernel_cuts_short_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [bytes([number % 256]) * 3 for number in range(3000)]
    whole_write = os.pwritev

    def short(descriptor: int, buffers: list[bytes], offset: int) -> int:
        return whole_write(descriptor, [b"".join(buffers)[:100]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    path = tmp_path / "blob"
    append(path, 0, pieces, 9000)
    assert path.read_bytes() == b"".join(pieces)
    with pytest.raises(EOFError, match="ends at 9000"):
        read_at(path, 8999, 2)


def test_pieces_are_not_copied_on_their_way_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []

    def record(_path: Path, _held: int, pieces: object, _reserve: int) -> None:
        written.extend(pieces)  # type: ignore[call-overload]

    monkeypatch.setattr(parts_module, "append", record)
    pieces = [memoryview(BLOB)[at : at + 40] for at in range(0, 400, 40)]
    part = claimed(opened(tmp_path))
    part.store(Segment(0, WHOLE, 0, 100, "raw", 400), "float32", pieces)
    assert all(given is taken for given, taken in zip(pieces, written, strict=True))

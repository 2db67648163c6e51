"""What strange files do to a store, and what its death at any moment does: nothing worse than a
weight that has to be sent again."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ionn_edge.machine.events import Model
from ionn_edge.storage.blobs import Mismatch, StorageError, digest_of
from ionn_edge.storage.places import Place
from ionn_edge.storage.secret import FILE, cache_secret
from ionn_edge.storage.store import Store
from wire.messages import Segment

DATA = {name: name.encode() * 100 for name in "abcdef"}
DIGEST = {name: hashlib.sha256(data).digest() for name, data in DATA.items()}
SECRET = b"s" * 32
ME = "1" * 64
MODEL = Model("f" * 64, 2, tuple((DIGEST[name], 100, "uint8") for name in "ab"))


def opened(directory: Path, budget_bytes: int = 1000) -> Store:
    store = Store(directory, budget_bytes)
    store.open(SECRET, [ME])
    return store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where the device's files go, before a box has run."""
    there = Place.of_device(tmp_path, SECRET, ME)
    there.directory.mkdir()
    return there


def write(store: Store, name: str, owner: object) -> None:
    part = store.shelf(ME).part(DIGEST[name], owner)
    assert part is not None
    start = part.held_bytes
    part.store(Segment(0, 0, start, 100 - start, "raw", 100), "uint8", (DATA[name][start:],))
    store.shelf(ME).finish(part)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_store_in_which_others_could_put_weights_in_place_of_ours_is_none(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StorageError, match="others on this machine can change"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o755)
    opened(tmp_path).close()


# Files.


def test_only_plain_files_with_names_of_ours_are_looked_at(tmp_path: Path, place: Place) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(DATA["a"])
    name = place.name(DIGEST["a"]).hex()
    odd = [
        *(
            name.upper(),
            name[:-1],
            f"{name}0",
            f"{name}.part",
            f"{name}.-1.part",
            f"{name}.00.part",
        ),
        *(
            f"{name}.07.coarse",
            f"{name}.{10**9}.part",
            f"{name}.1.fine",
            f"{name}.١.part",
            "g" * 64,
        ),
    ]
    for each in odd:
        (place.directory / each).write_bytes(DATA["a"])
    (place.directory / name).symlink_to(outside)
    (place.directory / f"{name}.3.part").symlink_to(outside)
    (place.directory / place.name(DIGEST["b"]).hex()).mkdir()
    os.mkfifo(place.directory / f"{name}.4.part")
    before = {path.name for path in place.directory.iterdir()}
    store = opened(tmp_path, 1)
    assert store.used_bytes == 0
    assert {path.name for path in place.directory.iterdir()} == before
    assert outside.read_bytes() == DATA["a"]


@pytest.mark.parametrize("number", [0, 10**9 - 1])
def test_part_numbers_go_on_after_the_largest_that_can_be(
    tmp_path: Path, place: Place, number: int
) -> None:
    place.part(DIGEST["a"], number).write_bytes(DATA["a"][:40])
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, MODEL, owner)
    for name in "ab":
        part = store.shelf(ME).part(DIGEST[name], owner)
        assert part is not None
        part.resume()
        assert part.held_bytes == (40 if name == "a" else 0)
        part.store(Segment(0, 0, part.held_bytes, 10, "raw", 10), "uint8", (bytes(10),))
    store.close()
    # What was written has a name that the next start finds again.
    assert {part.held_bytes for part in opened(tmp_path).shelf(ME).parts} == {50, 10}


def test_a_file_that_says_it_is_huge_counts_and_goes(tmp_path: Path, place: Place) -> None:
    for name in "ab":
        os.truncate(_touched(place.blob(DIGEST[name])), 1 << 40)
    os.truncate(_touched(place.part(DIGEST["c"], 0)), 1 << 42)
    store = opened(tmp_path)
    assert store.used_bytes == 0
    assert list(place.directory.iterdir()) == []


def _touched(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("what", ["link", "file", "dangling"])
def test_a_devices_directory_that_is_none_gives_way(tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis").write_text("mine")
    store = tmp_path / "store"
    store.mkdir()
    directory = Place.of_device(store, SECRET, ME).directory
    if what == "file":
        directory.write_text("no directory")
    else:
        directory.symlink_to(elsewhere if what == "link" else tmp_path / "nowhere")
    there = opened(store)
    owner = object()
    there.admit(ME, MODEL, owner)
    write(there, "a", owner)
    assert not directory.is_symlink()
    assert directory.is_dir()
    assert [path.name for path in elsewhere.iterdir()] == ["thesis"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, MODEL, owner)
    part = store.shelf(ME).part(DIGEST["a"], owner)
    assert part is not None
    part.path.symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic links"):
        part.store(Segment(0, 0, 0, 100, "raw", 100), "uint8", (DATA["a"],))
    assert outside.read_text() == "mine"


def test_a_directory_in_a_blobs_place_is_an_error_that_says_so(
    tmp_path: Path, place: Place
) -> None:
    place.blob(DIGEST["a"]).mkdir()
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, MODEL, owner)
    with pytest.raises(StorageError, match="the edge cannot store weights: "):
        write(store, "a", owner)
    assert not store.shelf(ME).is_whole(DIGEST["a"])


def test_what_older_versions_kept_for_all_together_goes(tmp_path: Path) -> None:
    name = DIGEST["a"].hex()
    ours = [name, f"{name}.0.part", f"{name}.0.coarse", f"{'f' * 64}-{'0' * 16}.graph"]
    theirs = ["calibration-0.json", "notes", "boot"]
    for each in ours + theirs:
        (tmp_path / each).write_bytes(b"kept")
    opened(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"calibration-0.json", "notes", "boot", "lock"}


def test_directories_of_nobody_known_count_and_go_first(tmp_path: Path) -> None:
    for number, device in enumerate(("2" * 64, "3" * 64)):
        directory = Place.of_device(tmp_path, SECRET, device).directory
        directory.mkdir()
        (directory / ("0" * 64)).write_bytes(bytes(300))
        (directory / f"{'1' * 64}-{'2' * 16}.graph").write_bytes(b"graph")
        os.utime(directory / ("0" * 64), (number, number))
    (directory / "thesis").write_text("mine")
    store = opened(tmp_path, 700)
    assert store.used_bytes == 600
    owner = object()
    store.admit(ME, MODEL, owner)
    assert [each.size_bytes for each in store.strange] == [300]
    assert store.used_bytes == 500
    for name in "ab":
        write(store, name, owner)
    store.prune(0, {(ME, MODEL.fingerprint)})
    assert (store.strange, store.used_bytes) == ([], 200)
    assert [path.name for path in directory.iterdir()] == ["thesis"]
    # Whose it was comes again, and finds nothing.
    assert store.shelf("3" * 64).used_bytes == 0


def test_one_who_comes_after_the_start_has_what_it_left(tmp_path: Path) -> None:
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, MODEL, owner)
    write(store, "a", owner)
    store.close()
    store = Store(tmp_path, 1000)
    store.open(SECRET)
    assert [each.size_bytes for each in store.strange] == [100]
    shelf = store.shelf(ME)
    assert store.strange == []
    (name,) = shelf.unverified([DIGEST["a"], DIGEST["b"]])
    assert shelf.verified(name, digest_of(shelf.place.directory / name.hex()))
    assert shelf.is_whole(DIGEST["a"])


def test_no_directory_of_the_store_is_anybody_elses_to_read(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    before = os.umask(0)
    try:
        store = opened(directory)
        owner = object()
        store.admit(ME, MODEL, owner)
        write(store, "a", owner)
    finally:
        os.umask(before)
    for path in (directory, *directory.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


# The secret.


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    secret = cache_secret(tmp_path / "state")
    assert len(secret) == 32
    assert cache_secret(tmp_path / "state") == secret
    assert cache_secret(tmp_path / "other") != secret
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("harm", ["gone", "empty", "short", "long", "readable"])
def test_a_secret_that_is_not_one_is_replaced_and_costs_the_cache_only(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = cache_secret(tmp_path)
    path = tmp_path / FILE
    if harm == "gone":
        path.unlink()
    elif harm == "readable":
        path.chmod(0o644)
    else:
        path.write_bytes({"empty": b"", "short": secret[:31], "long": secret + b"."}[harm])
    with caplog.at_level(logging.WARNING):
        after = cache_secret(tmp_path)
    assert after != secret
    assert len(after) == 32
    assert ("of no use any more" in caplog.text) == (harm != "gone")
    assert path.stat().st_mode & 0o077 == 0
    assert cache_secret(tmp_path) == after
    assert secret.hex() not in caplog.text


@pytest.mark.parametrize("what", ["directory", "state is a file"])
def test_a_secret_that_cannot_be_kept_is_a_clear_error(tmp_path: Path, what: str) -> None:
    if what == "directory":
        (tmp_path / "state" / FILE).mkdir(parents=True)
    else:
        (tmp_path / "state").write_text("")
    with pytest.raises(StorageError, match="the cache's secret cannot be kept"):
        cache_secret(tmp_path / "state")


def test_a_secret_that_is_a_link_is_replaced_and_what_it_led_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"e" * 32)
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert cache_secret(tmp_path) != b"e" * 32
    assert (tmp_path / "elsewhere").read_bytes() == b"e" * 32


# Death.

WRITER = """
import hashlib, os, sys
from pathlib import Path
from ionn_edge.storage.blobs import Mismatch, digest_of
from ionn_edge.machine.events import Model
from ionn_edge.storage.store import Store
from wire.messages import Segment

directory, secret, me, names, budget = sys.argv[1:6]
data = {name: name.encode() * 40_000 for name in "abcdef"}
store = Store(Path(directory), int(budget))
store.open(bytes.fromhex(secret), [me])
shelf = store.shelf(me)
print("open", flush=True)
while True:
    for chosen in names.split(","):
        owner = object()
        rows = tuple((hashlib.sha256(data[n]).digest(), 40_000, "uint8") for n in chosen)
        for name in shelf.unverified([row[0] for row in rows]):
            shelf.verified(name, digest_of(shelf.place.directory / name.hex()))
        store.admit(me, Model(chosen * 8, 1, rows), owner)
        for (digest, _, _), name in zip(rows, chosen):
            part = shelf.part(digest, owner)
            if part is None:
                continue
            try:
                part.resume()
            except Mismatch:
                part.restart()
            while not part.full:
                start = part.held_bytes
                count = min(7_000, 40_000 - start)
                part.store(
                    Segment(0, 0, start, count, "raw", count), "uint8",
                    (data[name][start : start + count],),
                )
            shelf.finish(part)
        shelf.graphs.keep((chosen * 64)[:64].replace("g", "a"), data[chosen[0]][:5000])
        shelf.release(owner)
"""


def test_a_store_survives_being_killed_at_any_moment(tmp_path: Path) -> None:
    """Whatever is found whole is right or found out; the budget holds; nothing piles up."""
    draw = random.Random(5)
    data = {name: name.encode() * 40_000 for name in "abcdef"}
    arguments = [str(tmp_path), SECRET.hex(), ME, "abc,cd,ef,af,bde", "160000"]
    sound_once = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            # Not a sleep: so many bytes of a directory's listings, then the axe.
            for _ in range(draw.randrange(1, 200)):
                sum(1 for _ in tmp_path.rglob("*"))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        store = Store(tmp_path, 160_000)
        store.open(SECRET, [ME])
        shelf = store.shelf(ME)
        assert store.used_bytes <= 160_000
        files = [path for path in shelf.place.directory.iterdir() if path.suffix != ".graph"]
        assert len(files) == len(shelf.blobs) + len(shelf.parts)
        for name in shelf.unverified():
            assert shelf.verified(name, digest_of(shelf.place.directory / name.hex()))
            sound_once += 1
        for part in shelf.parts:
            written = part.path.read_bytes()
            assert written in [each[: len(written)] for each in data.values()]
        for fingerprint in shelf.graphs.kept():
            assert shelf.graphs.load(fingerprint) is not None
        store.close()
    assert sound_once


def test_wrong_bytes_that_a_power_cut_left_are_found_out(tmp_path: Path, place: Place) -> None:
    # A length that got to the disk before the bytes did.
    place.blob(DIGEST["a"]).write_bytes(bytes(100))
    place.part(DIGEST["b"], 0).write_bytes(bytes(100))
    store = opened(tmp_path)
    shelf = store.shelf(ME)
    for name in shelf.unverified():
        assert not shelf.verified(name, digest_of(place.directory / name.hex()))
    owner = object()
    store.admit(ME, MODEL, owner)
    part = shelf.part(DIGEST["b"], owner)
    assert part is not None
    with pytest.raises(Mismatch):
        part.resume()
    part.restart()
    for name in "ab":
        write(store, name, owner)
    assert shelf.models == {MODEL.fingerprint: (200, 200)}

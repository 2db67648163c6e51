"""What the box holds: on disk, under a budget, across its own death."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.machine.events import Model
from ionn_edge.storage.blobs import Mismatch, StorageError, digest_of
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place
from ionn_edge.storage.shelf import Shelf
from ionn_edge.storage.store import NoRoom, Store, WrongSize
from wire.messages import Segment
from wire.planes import WHOLE

DATA = {name: name.encode() * 100 for name in "abcdef"}
DIGEST = {name: hashlib.sha256(data).digest() for name, data in DATA.items()}
SECRET = b"secret" * 5
ME, YOU = "d" * 64, "e" * 64
NAME = {name: Place.of_device(Path(), SECRET, ME).name(each) for name, each in DIGEST.items()}


def model(names: str, fingerprint: str = "") -> Model:
    weights = tuple((DIGEST[name], len(DATA[name]), "uint8") for name in names)
    return Model(fingerprint or names, len(names), weights)


def opened(directory: Path, budget_bytes: int = 1000, quota_bytes: int | None = None) -> Store:
    store = Store(directory, budget_bytes, quota_bytes)
    store.open(SECRET, [ME, YOU])
    return store


def mine(store: Store) -> Shelf:
    return store.shelf(ME)


def place(directory: Path, device: str = ME) -> Place:
    return Place.of_device(directory, SECRET, device)


def planted(directory: Path, device: str = ME) -> Place:
    """The place of a device that was here before the store is opened."""
    there = place(directory, device)
    there.directory.mkdir(exist_ok=True)
    return there


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return opened(tmp_path)


def write(part: Part, data: bytes) -> None:
    """More of a blob of bytes, as a segment in two chunks."""
    segment = Segment(0, WHOLE, part.held_bytes, len(data), "raw", len(data))
    part.store(segment, "uint8", (data[:7], memoryview(data)[7:]))


def part_of(directory: Path, digest: bytes, number: int, size_bytes: int) -> Part:
    there = planted(directory)
    part = Part(there, there.name(digest), number)
    part.claim(digest, size_bytes, "uint8", "owner")
    return part


def held_bytes(store: Store, name: str, owner: object | None = None) -> int:
    return mine(store).held(DIGEST[name], owner).whole_bytes


def upload(store: Store, names: str, owner: object) -> None:
    for name in names:
        part = mine(store).part(DIGEST[name], owner)
        if part is not None:
            write(part, DATA[name][part.held_bytes :])
            mine(store).finish(part)


def admit(store: Store, names: str, busy: frozenset[tuple[str, str]] = frozenset()) -> object:
    """A client that uploads a whole model."""
    owner = object()
    store.admit(ME, model(names), owner, busy)
    upload(store, names, owner)
    return owner


def files(directory: Path) -> set[str]:
    """What the device's directory in that of the store has."""
    return {path.name for path in place(directory).directory.iterdir()}


def whole(names: str) -> set[str]:
    return {NAME[name].hex() for name in names}


def verify(store: Store) -> None:
    shelf = mine(store)
    for name in shelf.unverified():
        shelf.verified(name, digest_of(shelf.place.directory / name.hex()))


# Receiving.


def test_a_blob_is_a_file_named_by_its_digest_once_it_is_whole(store: Store) -> None:
    owner = object()
    store.admit(ME, model("a"), owner)
    part = mine(store).part(DIGEST["a"], owner)
    assert part is not None
    write(part, DATA["a"][:60])
    assert not mine(store).is_whole(DIGEST["a"])
    assert files(store.directory) == {f"{NAME['a'].hex()}.0.part"}
    write(part, DATA["a"][60:])
    assert part.full
    mine(store).finish(part)
    assert mine(store).is_whole(DIGEST["a"])
    assert files(store.directory) == whole("a")
    assert place(store.directory).blob(DIGEST["a"]).read_bytes() == DATA["a"]


def test_disk_blocks_for_the_whole_blob_are_reserved_with_the_first_chunk(tmp_path: Path) -> None:
    part = part_of(tmp_path, DIGEST["a"], 0, 1 << 20)
    write(part, b"x" * 10)
    stat = part.path.stat()
    assert stat.st_size == 10
    assert stat.st_blocks * 512 >= 1 << 20


def test_wrong_bytes_are_noticed_with_the_last_chunk_and_can_be_dropped(store: Store) -> None:
    owner = object()
    store.admit(ME, model("a"), owner)
    part = mine(store).part(DIGEST["a"], owner)
    assert part is not None
    write(part, b"?" + DATA["a"][1:60])
    with pytest.raises(Mismatch, match=DIGEST["a"].hex()[:16]):
        write(part, DATA["a"][60:])
    mine(store).drop(part)
    assert files(store.directory) == set()
    assert held_bytes(store, "a") == 0
    upload(store, "a", owner)
    assert files(store.directory) == whole("a")
    assert store.used_bytes == 100


def test_two_clients_of_one_model_cannot_spoil_each_others_upload(store: Store) -> None:
    good, bad = object(), object()
    store.admit(ME, model("a"), bad)
    store.admit(ME, model("a"), good)
    spoilt, sound = mine(store).part(DIGEST["a"], bad), mine(store).part(DIGEST["a"], good)
    assert spoilt is not None
    assert sound is not None
    write(spoilt, b"?" * 60)
    write(sound, DATA["a"][:40])
    assert held_bytes(store, "a", good) == 40
    write(sound, DATA["a"][40:])
    mine(store).finish(sound)
    assert mine(store).is_whole(DIGEST["a"])
    # The other one's copy is of no use any more.
    assert mine(store).part(DIGEST["a"], bad) is None
    assert files(store.directory) == whole("a")
    assert store.used_bytes == 100


# Resuming.


def test_what_a_client_left_is_the_next_ones_to_continue(store: Store) -> None:
    first, second = object(), object()
    store.admit(ME, model("ab"), first)
    part = mine(store).part(DIGEST["a"], first)
    assert part is not None
    write(part, DATA["a"][:70])
    mine(store).release(first)
    store.admit(ME, model("ab"), second)
    assert held_bytes(store, "a", second) == 70
    assert mine(store).part(DIGEST["a"], second) is part
    part.resume()
    upload(store, "ab", second)
    assert mine(store).is_whole(DIGEST["a"])


def test_of_what_several_clients_left_the_furthest_is_kept(store: Store) -> None:
    owners = [object() for _ in range(4)]
    for owner, count in zip(owners, (10, 30, 20, 0), strict=True):
        store.admit(ME, model("a"), owner)
        part = mine(store).part(DIGEST["a"], owner)
        assert part is not None
        if count:
            write(part, DATA["a"][:count])
    assert store.used_bytes == 400
    for owner in owners:
        mine(store).release(owner)
    assert store.used_bytes == 100
    assert held_bytes(store, "a") == 30
    assert len(files(store.directory)) == 1


def test_what_nobody_writes_goes_once_the_blob_is_whole(store: Store) -> None:
    first, second = object(), object()
    for owner in (first, second):
        store.admit(ME, model("a"), owner)
    part = mine(store).part(DIGEST["a"], first)
    assert part is not None
    write(part, DATA["a"][:10])
    mine(store).release(first)
    upload(store, "a", second)
    assert files(store.directory) == whole("a")
    assert store.used_bytes == 100


def test_the_received_prefix_survives_the_edges_sudden_death(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from ionn_edge.machine.events import Model
from ionn_edge.storage.store import Store
from wire.messages import Segment
store = Store(Path({str(tmp_path)!r}), 1000)
store.open({SECRET!r})
store.admit({ME!r}, Model("f", 1, ((bytes.fromhex({DIGEST["a"].hex()!r}), 100, "uint8"),)), "me")
part = store.shelf({ME!r}).part(bytes.fromhex({DIGEST["a"].hex()!r}), "me")
part.store(Segment(0, 0, 0, 70, "raw", 70), "uint8", ({DATA["a"][:70]!r},))
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, model("a"), owner)
    assert held_bytes(store, "a", owner) == 70
    part = mine(store).part(DIGEST["a"], owner)
    assert part is not None
    part.resume()
    write(part, DATA["a"][70:])
    mine(store).finish(part)
    assert planted(tmp_path).blob(DIGEST["a"]).read_bytes() == DATA["a"]


def test_a_connection_that_fell_silent_loses_its_upload_to_the_next(store: Store) -> None:
    old, new = object(), object()
    store.admit(ME, model("a"), old)
    part = mine(store).part(DIGEST["a"], old)
    assert part is not None
    write(part, DATA["a"][:70])
    store.admit(ME, model("a"), new, silent={old})
    assert held_bytes(store, "a", new) == 70
    assert mine(store).part(DIGEST["a"], new) is part
    assert mine(store).part(DIGEST["a"], old) is None
    assert store.used_bytes == 100


def test_a_damaged_prefix_is_found_out_when_the_blob_is_full(tmp_path: Path) -> None:
    (planted(tmp_path).directory / f"{NAME['a'].hex()}.3.part").write_bytes(b"?" * 70)
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, model("a"), owner)
    part = mine(store).part(DIGEST["a"], owner)
    assert part is not None
    part.resume()
    with pytest.raises(Mismatch):
        write(part, DATA["a"][70:])
    part.restart()
    assert part.held_bytes == 0
    upload(store, "a", owner)
    assert mine(store).is_whole(DIGEST["a"])


def test_a_part_that_was_full_when_the_edge_died_is_checked_when_resumed(tmp_path: Path) -> None:
    (planted(tmp_path).directory / f"{NAME['a'].hex()}.0.part").write_bytes(DATA["a"])
    (planted(tmp_path).directory / f"{NAME['b'].hex()}.1.part").write_bytes(b"?" * 100)
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, model("ab"), owner)
    sound, damaged = mine(store).part(DIGEST["a"], owner), mine(store).part(DIGEST["b"], owner)
    assert sound is not None
    assert damaged is not None
    sound.resume()
    assert sound.full
    with pytest.raises(Mismatch):
        damaged.resume()


def test_a_part_longer_than_the_weight_is_not_claimed(tmp_path: Path) -> None:
    (planted(tmp_path).directory / f"{NAME['a'].hex()}.0.part").write_bytes(b"?" * 101)
    store = opened(tmp_path)
    owner = object()
    store.admit(ME, model("a"), owner)
    assert held_bytes(store, "a", owner) == 0


def test_of_several_parts_the_longest_is_kept(tmp_path: Path) -> None:
    for number, size in enumerate((10, 30, 20, 0)):
        (planted(tmp_path).directory / f"{NAME['a'].hex()}.{number}.part").write_bytes(
            DATA["a"][:size]
        )
    opened(tmp_path)
    assert files(tmp_path) == {f"{NAME['a'].hex()}.1.part"}


def test_whole_blobs_of_an_earlier_run_are_held_once_verified(tmp_path: Path) -> None:
    for name in "ab":
        planted(tmp_path).blob(DIGEST[name]).write_bytes(DATA[name])
    damaged = bytearray(DATA["b"])
    damaged[50] ^= 1
    planted(tmp_path).blob(DIGEST["b"]).write_bytes(damaged)
    store = opened(tmp_path)
    assert not mine(store).is_whole(DIGEST["a"])
    assert held_bytes(store, "a") == 0
    verify(store)
    assert mine(store).unverified() == []
    assert held_bytes(store, "a") == 100
    assert files(tmp_path) == whole("a")


def test_somebody_elses_files_are_left_alone(tmp_path: Path) -> None:
    names = {"thesis.txt", "a" * 63, "A" * 64, f"{'a' * 64}.part", f"{'a' * 64}.bak"}
    for name in names:
        (tmp_path / name).write_text("mine")
        (planted(tmp_path).directory / name).write_text("mine")
    (planted(tmp_path).directory / ("b" * 64)).mkdir()
    store = opened(tmp_path, budget_bytes=1)
    assert store.used_bytes == 0
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert files(tmp_path) == names | {"b" * 64}


# The budget.


def test_a_model_larger_than_the_budget_is_refused_with_both_sizes(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=250)
    with pytest.raises(NoRoom, match=r"take 300 bytes.*budget is 250 bytes"):
        store.admit(ME, model("abc"), object())
    assert mine(store).models == {}
    store.admit(ME, model("ab"), object())


def test_equal_weights_count_once_within_and_across_models(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=300)
    admit(store, "aab")
    assert store.used_bytes == 200
    admit(store, "bc")
    assert store.used_bytes == 300
    assert mine(store).models == {"aab": (200, 200), "bc": (200, 200)}


def test_the_least_recently_used_model_goes_first_and_whole(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=450)
    admit(store, "ab")
    admit(store, "cd")
    mine(store).touch("ab")
    assert store.admit(ME, model("e"), object()) == [(ME, "cd")]
    assert list(mine(store).models) == ["ab", "e"]
    assert files(tmp_path) == whole("ab")


def test_a_model_that_is_executing_stays(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=450)
    admit(store, "ab")
    admit(store, "cd")
    assert store.admit(ME, model("e"), object(), {(ME, "ab")}) == [(ME, "cd")]
    with pytest.raises(NoRoom, match="try later"):
        store.admit(ME, model("cdf"), object(), {(ME, "ab"), (ME, "e")})
    assert list(mine(store).models) == ["ab", "e"]


def test_nothing_is_evicted_for_a_model_that_does_not_fit_anyway(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=400)
    admit(store, "ab")
    admit(store, "cd")
    with pytest.raises(NoRoom):
        store.admit(ME, model("abe"), object(), {(ME, "cd")})
    assert list(mine(store).models) == ["ab", "cd"]
    assert files(tmp_path) == whole("abcd")


def test_evicting_keeps_what_another_model_or_the_newcomer_shares(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=400)
    admit(store, "ab")
    admit(store, "bc")
    # "ab" goes, and only its "a" with it; its "b" is still used by "bc".
    assert store.admit(ME, model("de"), object()) == [(ME, "ab")]
    assert files(tmp_path) == whole("bc")
    store = opened_again(store, 300)
    admit(store, "abc")
    assert store.admit(ME, model("cd"), object()) == [(ME, "abc")]
    assert files(tmp_path) == whole("c")


def opened_again(store: Store, budget_bytes: int) -> Store:
    store.close()
    again = opened(store.directory, budget_bytes)
    verify(again)
    return again


def test_an_evicted_upload_is_dropped_and_its_late_chunk_leaves_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=100)
    owner = object()
    store.admit(ME, model("a"), owner)
    part = mine(store).part(DIGEST["a"], owner)
    assert part is not None
    write(part, DATA["a"][:10])
    assert store.admit(ME, model("b"), object()) == [(ME, "a")]
    assert mine(store).part(DIGEST["a"], owner) is None
    with pytest.raises(StorageError):
        write(part, DATA["a"][10:])
    first = part_of(tmp_path, DIGEST["c"], 7, 100)
    first.dropped = True
    write(first, DATA["c"])
    assert files(tmp_path) == set()


def test_what_earlier_runs_left_counts_and_goes_first(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=400)
    admit(store, "a")
    admit(store, "b")
    os.utime(planted(tmp_path).blob(DIGEST["a"]), (2, 2))
    os.utime(planted(tmp_path).blob(DIGEST["b"]), (1, 1))
    store = opened_again(store, 400)
    assert store.used_bytes == 200
    assert mine(store).models == {}
    admit(store, "c")
    # Room for 100 more is there; the older orphan goes for the rest, and no model.
    assert store.admit(ME, model("de"), object()) == []
    assert files(tmp_path) == whole("ac")


def test_a_smaller_budget_takes_effect_at_the_start(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=400)
    admit(store, "abc")
    store = opened_again(store, 150)
    assert store.used_bytes <= 150


def test_a_blob_declared_with_another_size_is_refused(store: Store) -> None:
    admit(store, "a")
    liar = Model("liar", 1, ((DIGEST["a"], 99, "uint8"),))
    with pytest.raises(WrongSize, match=r"99 bytes.*has 100"):
        store.admit(ME, liar, object())


@settings(max_examples=60, deadline=None)
@given(
    offers=st.lists(
        st.tuples(st.sampled_from(["a", "ab", "bc", "cde", "f", "abcd"]), st.booleans()),
        max_size=12,
    )
)
def test_the_budget_is_never_exceeded_whatever_is_offered(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[str, bool]]
) -> None:
    store = opened(tmp_path_factory.mktemp("store"), budget_bytes=400)
    for names, stays in offers:
        owner = object()
        try:
            store.admit(ME, model(names), owner)
        except NoRoom:
            continue
        upload(store, names if stays else names[:1], owner)
        if not stays:
            mine(store).release(owner)
        assert store.used_bytes <= 400
        on_disk = sum(
            len(path.read_bytes()) for path in place(store.directory).directory.glob("?" * 64 + "*")
        )
        assert on_disk <= store.used_bytes
        for held_bytes, total_bytes in mine(store).models.values():
            assert held_bytes <= total_bytes
    store.close()


# Disks and directories.


def test_a_full_disk_is_a_clear_error_and_keeps_what_was_held(tmp_path: Path) -> None:
    part = part_of(tmp_path, hashlib.sha256(b"x" * 8000).digest(), 0, 8000)
    write(part, b"x" * 3000)
    # The size limit of files stands in for the end of the disk: the kernel refuses alike.
    with (
        _file_size_limit(5000),
        pytest.raises(StorageError, match="the edge cannot store weights: "),
    ):
        write(part, b"x" * 4000)
    assert part.held_bytes == part.path.stat().st_size == 3000
    write(part, b"x" * 5000)
    assert part.full


def test_space_that_cannot_be_reserved_is_noticed_with_the_first_chunk(tmp_path: Path) -> None:
    part = part_of(tmp_path, bytes(32), 0, 1 << 62)
    with pytest.raises(StorageError, match="the edge cannot store weights: "):
        write(part, b"x" * 100)
    assert part.held_bytes == part.path.stat().st_size == 0


class _file_size_limit:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_disk_too_small_for_the_model_is_noticed_before_a_byte_is_sent(tmp_path: Path) -> None:
    store = opened(tmp_path, budget_bytes=1 << 60)
    huge = Model("huge", 1, ((DIGEST["a"], 1 << 59, "uint8"),))
    with pytest.raises(StorageError, match=r"of weights are missing, and the edge's disk is full"):
        store.admit(ME, huge, object())
    assert mine(store).models == {}


def test_only_one_edge_uses_a_store(store: Store) -> None:
    with pytest.raises(StorageError, match=r"another edge uses the store .*--store"):
        opened(store.directory)
    store.close()
    opened(store.directory)


def test_a_store_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        opened(tmp_path / "file" / "store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        opened(tmp_path)

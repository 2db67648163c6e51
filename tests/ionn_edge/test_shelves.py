"""Devices beside each other in one store: what none of them learns, keeps, or loses to another."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.machine.events import Model
from ionn_edge.storage import blobs
from ionn_edge.storage import holdings as holdings_module
from ionn_edge.storage import shelf as shelf_module
from ionn_edge.storage.blobs import StorageError, digest_of, wait_removed
from ionn_edge.storage.places import Place
from ionn_edge.storage.store import NoRoom, Store
from wire.messages import Segment

DATA = {name: name.encode() * 100 for name in "abcdefgh"}
DIGEST = {name: hashlib.sha256(data).digest() for name, data in DATA.items()}
SECRET = b"s" * 32
ME, YOU, THEM = "1" * 64, "2" * 64, "3" * 64


def model(names: str) -> Model:
    weights = tuple((DIGEST[name], len(DATA[name]), "uint8") for name in names)
    return Model(hashlib.sha256(names.encode()).hexdigest(), len(names), weights)


def opened(directory: Path, budget_bytes: int = 1000, quota_bytes: int | None = None) -> Store:
    store = Store(directory, budget_bytes, quota_bytes)
    store.open(SECRET, [ME, YOU, THEM])
    return store


def upload(store: Store, device: str, names: str, stays: bool = True) -> object:
    """A client of the device that offers a model and sends all of it."""
    owner = object()
    store.admit(device, model(names), owner)
    send(store, device, names, owner)
    if not stays:
        store.shelf(device).release(owner)
    return owner


def send(store: Store, device: str, names: str, owner: object) -> None:
    shelf = store.shelf(device)
    for name in names:
        part = shelf.part(DIGEST[name], owner)
        if part is not None:
            segment = Segment(0, 0, part.held_bytes, 100 - part.held_bytes, "raw", 100)
            part.store(segment, "uint8", (DATA[name][part.held_bytes :],))
            shelf.finish(part)


def begin(store: Store, device: str, name: str, owner: object) -> None:
    """A tenth of a weight comes, if it is this owner's to bring and has not begun."""
    part = store.shelf(device).part(DIGEST[name], owner)
    if part is not None and not part.held_bytes:
        part.store(Segment(0, 0, 0, 10, "raw", 10), "uint8", (DATA[name][:10],))


def held(store: Store, device: str) -> set[str]:
    return {name for name in DATA if store.shelf(device).is_whole(DIGEST[name])}


def models(store: Store, device: str) -> list[str]:
    names = {model(each).fingerprint: each for each in MODELS}
    return [names[each] for each in store.shelf(device).models]


MODELS = (
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "ab",
    "cd",
    "ef",
    "abc",
    "def",
    "abcd",
    "efgh",
    "gh",
    "cdef",
)


# What shows.


def test_equal_weights_of_two_devices_have_nothing_in_common(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "ab")
    assert held(store, ME) == {"a", "b"}
    assert held(store, YOU) == set()
    upload(store, YOU, "ab")
    names = [
        {path.name for path in store.shelf(each).place.directory.iterdir()} for each in (ME, YOU)
    ]
    assert names[0].isdisjoint(names[1])
    digests = {digest.hex() for digest in DIGEST.values()}
    assert not digests & {path.name for path in tmp_path.rglob("*")}
    assert not {ME, YOU} & {path.name for path in tmp_path.rglob("*")}
    # And each counts for itself.
    assert store.used_bytes == 400


def test_another_secret_has_other_names(tmp_path: Path) -> None:
    upload(opened(tmp_path), ME, "a")
    here = Place.of_device(tmp_path, SECRET, ME)
    there = Place.of_device(tmp_path, b"t" * 32, ME)
    assert here.directory != there.directory
    assert here.name(DIGEST["a"]) != there.name(DIGEST["a"])
    assert here.key.hex() not in repr(here)


def test_what_another_device_does_changes_no_answer(tmp_path: Path) -> None:
    alone, beside = opened(tmp_path / "alone", 600, 300), opened(tmp_path / "beside", 600, 300)
    upload(beside, YOU, "abc")
    for store in (alone, beside):
        upload(store, ME, "ab")
        with pytest.raises(NoRoom):
            store.admit(ME, model("abcd"), object())
    shelves = [store.shelf(ME) for store in (alone, beside)]
    assert shelves[0].models == shelves[1].models
    assert shelves[0].used_bytes == shelves[1].used_bytes
    assert alone.quota() == beside.quota()
    for name in DATA:
        assert shelves[0].held(DIGEST[name]) == shelves[1].held(DIGEST[name])


def test_a_file_of_another_device_is_none_of_mine(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, YOU, "ab")
    store.close()
    yours, mine = (Place.of_device(tmp_path, SECRET, each) for each in (YOU, ME))
    # Under its own name, and under the name that mine would have.
    (mine.directory / yours.name(DIGEST["a"]).hex()).write_bytes(DATA["a"])
    (mine.directory / mine.name(DIGEST["c"]).hex()).write_bytes(DATA["b"])
    (mine.directory / mine.name(DIGEST["d"]).hex()).write_bytes(DATA["d"])
    store = opened(tmp_path)
    shelf = store.shelf(ME)
    assert len(shelf.unverified()) == 3
    sound = [
        shelf.verified(name, digest_of(mine.directory / name.hex())) for name in shelf.unverified()
    ]
    assert sorted(sound) == [False, False, True]
    assert held(store, ME) == {"d"}
    assert len(list(mine.directory.iterdir())) == 1


# Who gives way.


def test_a_device_that_fills_its_quota_evicts_its_own(tmp_path: Path) -> None:
    store = opened(tmp_path, 1000, 300)
    upload(store, YOU, "def")
    upload(store, ME, "ab")
    assert store.admit(ME, model("cd"), object()) == [(ME, model("ab").fingerprint)]
    assert models(store, YOU) == ["def"]
    with pytest.raises(NoRoom, match="one device may have 300 bytes"):
        store.admit(ME, model("abcd"), object())


def test_who_has_more_than_a_share_gives_way_first_and_the_least_recently_used(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path, 600)
    upload(store, YOU, "ab", stays=False)
    for names in ("cd", "ef"):
        upload(store, THEM, names, stays=False)
    # Yours is the longest unused; but they have more than a third.
    assert store.admit(ME, model("ab"), object()) == [(THEM, model("cd").fingerprint)]
    assert models(store, YOU) == ["ab"]


def test_who_keeps_to_its_share_is_not_evicted_while_it_is_here(tmp_path: Path) -> None:
    store = opened(tmp_path, 400)
    upload(store, YOU, "ab")
    upload(store, ME, "cd")
    with pytest.raises(NoRoom, match="try later"):
        store.admit(ME, model("abc"), object(), {(ME, model("cd").fingerprint)})
    # Its own, then, though yours is older.
    assert store.admit(ME, model("ef"), object()) == [(ME, model("cd").fingerprint)]
    assert models(store, YOU) == ["ab"]


def test_one_that_took_everything_gives_way_though_it_is_here(tmp_path: Path) -> None:
    store = opened(tmp_path, 400)
    upload(store, YOU, "ab")
    upload(store, YOU, "cd")
    assert store.admit(ME, model("e"), object()) == [(YOU, model("ab").fingerprint)]
    assert models(store, YOU) == ["cd"]


def test_what_is_running_stays_whoever_has_how_much(tmp_path: Path) -> None:
    store = opened(tmp_path, 400)
    upload(store, YOU, "abcd")
    with pytest.raises(NoRoom, match="try later"):
        store.admit(ME, model("e"), object(), {(YOU, model("abcd").fingerprint)})
    assert models(store, YOU) == ["abcd"]


def test_who_is_gone_gives_way_to_who_is_here(tmp_path: Path) -> None:
    store = opened(tmp_path, 400)
    upload(store, YOU, "a", stays=False)
    upload(store, THEM, "b")
    upload(store, ME, "cd")
    assert store.admit(ME, model("e"), object()) == [(YOU, model("a").fingerprint)]
    assert models(store, THEM) == ["b"]


def test_a_full_disk_is_made_room_on_as_a_full_budget_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, 100_000)
    upload(store, YOU, "ab", stays=False)
    upload(store, THEM, "cdef", stays=False)
    upload(store, ME, "gh")

    class Full:
        f_bavail, f_frsize = 1, 150

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    assert store.admit(ME, model("ab"), object()) == [(THEM, model("cdef").fingerprint)]
    assert models(store, YOU) == ["ab"]
    running = {(each.device, f) for each in store.shelves for f in each.models}
    with pytest.raises(StorageError, match=r"400 bytes of weights are missing, and .* full"):
        store.admit(ME, model("cdef"), object(), running)
    assert models(store, YOU) == ["ab"]


def test_what_nobody_claimed_since_the_start_goes_first_of_those_with_most(tmp_path: Path) -> None:
    store = opened(tmp_path, 600)
    upload(store, YOU, "ab")
    upload(store, THEM, "abcd")
    store.close()
    store = opened(tmp_path, 600)
    assert store.admit(ME, model("ef"), object()) == []
    assert len(store.shelf(YOU).blobs) == 2
    assert len(store.shelf(THEM).blobs) == 2


def test_a_smaller_quota_takes_effect_at_the_start(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "abcd")
    upload(store, YOU, "ab")
    store.close()
    store = opened(tmp_path, 1000, 250)
    assert store.shelf(ME).used_bytes == 200
    assert store.shelf(YOU).used_bytes == 200


@settings(max_examples=80, deadline=None)
@given(
    offers=st.lists(
        st.tuples(
            st.sampled_from([ME, YOU, THEM]),
            st.sampled_from(MODELS),
            st.sampled_from(["sends", "leaves", "drops out"]),
            st.booleans(),
        ),
        max_size=14,
    )
)
def test_no_budget_is_exceeded_and_nobody_within_a_share_loses_what_is_in_use(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[str, str, str, bool]]
) -> None:
    store = opened(tmp_path_factory.mktemp("store"), 600, 400)
    for device, names, how, busy in offers:
        before = _attended(store)
        present = {each for each, there in before.items() if there} | {device}
        used = {each: store.shelf(each).used_bytes for each in (ME, YOU, THEM)}
        running = {(each, f) for each, there in before.items() for f in there if busy}
        owner = object()
        try:
            evicted = store.admit(device, model(names), owner, running)
        except NoRoom:
            continue
        for other, fingerprint in evicted:
            assert (other, fingerprint) not in running
            if other != device and fingerprint in before[other]:
                assert used[other] > 600 / len(present)
        if how != "drops out":
            send(store, device, names, owner)
        if how != "sends":
            store.shelf(device).release(owner)
        assert store.used_bytes <= 600
        for each in (ME, YOU, THEM):
            shelf = store.shelf(each)
            assert shelf.used_bytes <= 400
            on_disk = sum(path.stat().st_size for path in shelf.place.directory.iterdir())
            assert on_disk <= shelf.used_bytes
            for held_bytes, total_bytes in shelf.models.values():
                assert held_bytes <= total_bytes
    store.close()


def _attended(store: Store) -> Mapping[str, set[str]]:
    return {each: store.shelf(each).attended for each in (ME, YOU, THEM)}


# Forgetting, pruning, publishing.


def test_forgetting_a_device_leaves_nothing_of_it_and_all_of_the_others(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "ab")
    upload(store, YOU, "ab")
    half = object()
    store.admit(ME, model("cd"), half)
    begin(store, ME, "c", half)
    graphs = store.shelf(ME).graphs
    graphs.keep(model("ab").fingerprint, b"graph")
    store.shelf(ME).wipe()
    assert list(store.shelf(ME).place.directory.iterdir()) == []
    assert (store.shelf(ME).used_bytes, store.shelf(YOU).used_bytes) == (0, 200)
    # What was on its way to the disk comes too late.
    graphs.keep(model("cd").fingerprint, b"graph")
    assert store.shelf(ME).graphs.kept() == []
    assert store.shelf(ME).part(DIGEST["c"], half) is None
    upload(store, ME, "cd")
    assert held(store, ME) == {"c", "d"}


def test_pruning_drops_what_nobody_uses_and_then_what_is_idle(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, YOU, "ab")
    upload(store, ME, "cd", stays=False)
    upload(store, ME, "ef")
    assert store.prune(400, ()) == [(ME, model("cd").fingerprint)]
    assert store.prune(0, {(ME, model("ef").fingerprint)}) == [(YOU, model("ab").fingerprint)]
    assert store.used_bytes == 200


def test_a_published_model_is_everybodys_and_nobody_evicts_it(tmp_path: Path) -> None:
    store = opened(tmp_path, 600)
    upload(store, THEM, "ab")
    upload(store, ME, "ab")
    store.published.publish(model("ab"), b"graph", store.shelf(ME))
    assert held(store, YOU) == held(store, ME) == {"a", "b"}
    assert (store.published.used_bytes, store.shelf(ME).used_bytes) == (200, 0)
    assert store.shelf(ME).models == {model("ab").fingerprint: (200, 200)}
    assert (store.quota(), store.devices_bytes) == (600, 400), "which nobody is told"
    upload(store, YOU, "abcd")
    assert store.shelf(YOU).used_bytes == 200
    # One who has a copy has none any more when it comes again.
    assert len(store.shelf(THEM).blobs) == 2
    upload(store, THEM, "ab")
    assert (held(store, THEM), store.shelf(THEM).used_bytes) == ({"a", "b"}, 0)
    assert store.shelf(THEM).models == {model("ab").fingerprint: (200, 200)}
    with pytest.raises(NoRoom, match="not so much room beside what its operator has published"):
        store.admit(YOU, model("defgh"), object())
    store.prune(0, ())
    assert held(store, THEM) == {"a", "b"}
    store.close()
    # After a restart it is nobody's until its weights have been checked.
    store = opened(tmp_path, 600)
    assert held(store, YOU) == set()
    assert store.published.models == {model("ab").fingerprint: model("ab")}
    for name in store.published.unverified():
        store.published.verified(name, digest_of(store.published.place.directory / name.hex()))
    assert held(store, YOU) == {"a", "b"}


def test_what_is_published_while_it_is_sent_need_not_be_sent_to_its_end(tmp_path: Path) -> None:
    store = opened(tmp_path)
    slow, late = object(), object()
    for device, owner in ((YOU, slow), (ME, late)):
        store.admit(device, model("ab"), owner)
    part = store.shelf(YOU).part(DIGEST["a"], slow)
    assert part is not None
    part.store(Segment(0, 0, 0, 50, "raw", 50), "uint8", (DATA["a"][:50],))
    other = store.shelf(ME).part(DIGEST["a"], late)
    assert other is not None
    other.store(Segment(0, 0, 0, 100, "raw", 100), "uint8", (DATA["a"],))
    upload(store, ME, "ab")
    store.published.publish(model("ab"), b"graph", store.shelf(ME))
    for device, owner in ((YOU, slow), (ME, late)):
        assert store.shelf(device).part(DIGEST["a"], owner) is None
        assert held(store, device) == {"a", "b"}
    store.shelf(ME).finish(other)
    for device in (ME, YOU):
        assert list(store.shelf(device).place.directory.glob(f"{'?' * 64}.0.*")) == []
        assert store.shelf(device).blobs == {}


@pytest.mark.parametrize("survived", range(12))
def test_publishing_that_is_cut_off_costs_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    store = opened(tmp_path)
    upload(store, ME, "abc")
    left, cut_off = [survived], False
    with monkeypatch.context() as patched:
        for owner, name in ((os, "link"), (Path, "rename"), (Path, "unlink")):
            patched.setattr(owner, name, _cut_off(getattr(owner, name), left))
        try:
            store.published.publish(model("abc"), b"graph", store.shelf(ME))
        except KeyboardInterrupt:
            cut_off = True
    store.close()
    store = opened(tmp_path)
    for holdings in (store.published, store.shelf(ME)):
        for blob in holdings.unverified():
            holdings.verified(blob, digest_of(holdings.place.directory / blob.hex()))
    # For each weight it looks for an old file, makes a link, and drops the device's file; between
    # these, graph and record get their names.
    assert cut_off == (survived < 11)
    published = survived >= 8
    assert len(store.published.models) == published
    assert held(store, YOU) == ({"a", "b", "c"} if published else set())
    assert held(store, ME) == {"a", "b", "c"}


def _cut_off(real: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*args, **kwargs)

    return call


def test_what_cannot_be_published_stays_the_devices(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "abc")
    shelf = store.shelf(ME)
    (shelf.place.directory / shelf.name(DIGEST["b"]).hex()).unlink()
    with pytest.raises(StorageError, match="no such file"):
        store.published.publish(model("abc"), b"graph", shelf)
    assert (store.published.models, store.published.used_bytes) == ({}, 0)
    assert list(store.published.place.directory.iterdir()) == []
    assert held(store, ME) >= {"a", "c"}


def test_unpublishing_takes_it_from_all_who_rely_on_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "ab")
    upload(store, ME, "abc")
    for names in ("ab", "abc"):
        store.published.publish(model(names), b"graph", store.shelf(ME))
    upload(store, YOU, "abcd")
    upload(store, THEM, "ef")
    assert store.unpublish(model("ab").fingerprint) == []
    assert held(store, THEM) >= {"a", "b", "c"}
    evicted = set(store.unpublish(model("abc").fingerprint))
    assert evicted == {
        (ME, model("ab").fingerprint),
        (ME, model("abc").fingerprint),
        (YOU, model("abcd").fingerprint),
    }
    assert held(store, ME) == set()
    assert list(store.published.place.directory.iterdir()) == []
    assert held(store, THEM) == {"e", "f"}


@pytest.mark.parametrize("harm", ["cut", "flipped", "renamed", "of another box", "a link"])
def test_a_record_that_this_box_did_not_write_publishes_nothing(tmp_path: Path, harm: str) -> None:
    store = opened(tmp_path)
    upload(store, ME, "ab")
    store.published.publish(model("ab"), b"graph", store.shelf(ME))
    store.close()
    (record,) = tmp_path.glob("published/*.model")
    data = record.read_bytes()
    if harm == "cut":
        record.write_bytes(data[:-1])
    elif harm == "flipped":
        record.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "renamed":
        record.rename(record.with_name("0" * 64 + ".model"))
    elif harm == "of another box":
        record.write_bytes(Place.of_all(tmp_path, b"t" * 32).seal(data[32:]) + data[32:])
    else:
        record.rename(tmp_path / "elsewhere")
        record.symlink_to(tmp_path / "elsewhere")
    store = opened(tmp_path)
    assert store.published.models == {}
    assert store.published.used_bytes == 0
    assert list(tmp_path.glob("published/*.model")) == []


@settings(max_examples=100, deadline=None)
@given(
    deeds=st.lists(
        st.tuples(
            st.sampled_from(
                ["uploads", "begins", "leaves", "publish", "unpublish", "forget", "prune"]
            ),
            st.sampled_from([ME, YOU]),
            st.sampled_from(("a", "ab", "bc", "abcd", "de")),
        ),
        max_size=16,
    )
)
def test_bookkeeping_and_files_agree_whatever_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, str, str]]
) -> None:
    store = opened(tmp_path_factory.mktemp("store"), 700, 400)
    owners: dict[str, object] = {}
    for what, device, names in deeds:
        shelf, asked = store.shelf(device), model(names)
        if what in ("uploads", "begins"):
            owner = owners[device] = object()
            try:
                store.admit(device, asked, owner)
            except NoRoom:
                continue
            send(store, device, names if what == "uploads" else names[:1], owner)
        elif what == "leaves" and device in owners:
            shelf.release(owners.pop(device))
        elif what == "publish" and all(shelf.is_whole(DIGEST[name]) for name in names):
            store.published.publish(asked, b"graph", shelf)
        elif what == "unpublish" and asked.fingerprint in store.published.models:
            store.unpublish(asked.fingerprint)
        elif what == "forget":
            shelf.wipe()
        elif what == "prune":
            store.prune(100 * len(names), ())
        _check_files(store)
    store.close()


def _check_files(store: Store) -> None:
    assert store.used_bytes <= 700
    for holdings in (store.published, *store.shelves):
        directory = holdings.place.directory
        files = {
            path.name for path in directory.iterdir() if path.suffix not in (".model", ".graph")
        }
        parts = {part.path.name for part in holdings.parts if part.held_bytes}
        assert files == {name.hex() for name in holdings.blobs} | parts
    public = {store.published.name(digest) for digest in DIGEST.values()}
    assert store.published.blobs.keys() <= public
    for each in store.published.models.values():
        assert all(store.published.is_whole(digest) for digest in each.sizes)
    for shelf in store.shelves:
        for fingerprint in shelf.fingerprints:
            held_bytes, total_bytes = shelf.models[fingerprint]
            known = {model(names).fingerprint: names for names in (*MODELS, "bc", "de")}
            assert total_bytes == 100 * len(known[fingerprint])
            assert held_bytes <= total_bytes


# Many small things.


def test_who_offers_ever_new_models_has_the_oldest_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "MOST_MODELS", 3)
    store = opened(tmp_path)
    upload(store, YOU, "abcd")
    for each in ("a", "ab", "abc"):
        upload(store, ME, each, stays=False)
    owner = object()
    busy = {(ME, model("a").fingerprint)}
    assert store.admit(ME, model("abcd"), owner, busy) == [(ME, model("ab").fingerprint)]
    send(store, ME, "abcd", owner)
    assert store.admit(ME, model("b"), object()) == [(ME, model("a").fingerprint)]
    assert models(store, ME) == ["abc", "abcd", "b"]
    assert held(store, ME) == set("abcd"), "others have a use for them"
    assert models(store, YOU) == ["abcd"]


def test_what_comes_again_while_it_goes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings_module, "AT_ONCE", 1)
    store, goes_on = opened(tmp_path), threading.Event()
    upload(store, ME, "abc")
    unfinished = object()
    store.admit(ME, model("de"), unfinished)
    begin(store, ME, "d", unfinished)
    blobs._freeing.submit(goes_on.wait, 20)
    store.shelf(ME).wipe()
    upload(store, ME, "ab")
    goes_on.set()
    wait_removed()
    here = store.shelf(ME).place
    assert {each.name for each in here.directory.iterdir()} == {
        here.blob(DIGEST[name]).name for name in "ab"
    }
    assert held(store, ME) == set("ab")
    assert all(digest_of(here.blob(DIGEST[name])) == DIGEST[name] for name in "ab")
    store.close()


def test_who_has_ever_more_small_weights_has_the_oldest_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "MOST_NAMES", 4)
    store = opened(tmp_path)
    for each in ("ab", "cd"):
        upload(store, ME, each, stays=False)
    assert store.admit(ME, model("a"), object()) == [(ME, model("ab").fingerprint)]
    assert held(store, ME) == set("acd")
    store.close()
    # Of an earlier run, nobody knows what is used.
    store = opened(tmp_path)
    for name in DATA:
        path = store.shelf(ME).place.blob(DIGEST[name])
        path.write_bytes(DATA[name])
        os.utime(path, (ord(name), ord(name)))
    store.close()
    store = opened(tmp_path)
    upload(store, ME, "a")
    assert len(store.shelf(ME).blobs) == 4
    store.close()

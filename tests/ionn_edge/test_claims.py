"""What a model lacks is found out in steps, between which anything may happen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.machine.events import Model
from ionn_edge.storage.claims import Claims
from ionn_edge.storage.holdings import WrongSize
from ionn_edge.storage.store import NoRoom, Store
from tests.ionn_edge.test_shelves import (
    DATA,
    DIGEST,
    ME,
    YOU,
    begin,
    held,
    model,
    opened,
    send,
    upload,
)
from wire.messages import Segment

WANTED = "abcdef"


def publish(store: Store, device: str, names: str) -> None:
    store.published.publish(model(names), b"graph", store.shelf(device))


def facts(claims: Claims) -> tuple[object, ...]:
    return (
        *(claims.sizes, claims.public, claims.total_bytes, sorted(claims.copies)),
        *(claims.unbegun.rows, claims.unbegun.size_bytes, claims.unbegun.float_bytes),
        *({digest: part and part.number for digest, part in claims.begun.items()},),
        *(claims.growth_bytes, claims.missing_bytes),
    )


def happen(store: Store, what: str, name: str, owners: list[object]) -> None:
    """Something of another connection, or of the operator."""
    shelf = store.shelf(ME)
    match what:
        case "offer":
            owners.append(object())
            store.admit(ME, model(name), owners[-1])
        case "begin" if owners:
            begin(store, ME, name, owners[-1])
        case "send" if owners:
            send(store, ME, name, owners[-1])
        case "leave" if owners:
            shelf.release(owners.pop())
        case "evict" if model(name).fingerprint in shelf.fingerprints:
            shelf.evict([model(name).fingerprint])
        case "lose":
            shelf.drop_blob(shelf.name(DIGEST[name]))
        case "publish" if shelf.is_whole(DIGEST[name]):
            publish(store, ME, name)
        case "unpublish" if model(name).fingerprint in store.published.models:
            store.unpublish(model(name).fingerprint)


HAPPENINGS = ("offer", "begin", "send", "leave", "evict", "lose", "publish", "unpublish")


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(HAPPENINGS), st.sampled_from(WANTED)),
        max_size=20,
    )
)
@settings(max_examples=150, deadline=None)
def test_what_changes_meanwhile_is_looked_at_again(
    happenings: list[tuple[int, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store, owners = opened(Path(directory), 5000), list[object]()
        upload(store, ME, "ab")
        shelf = store.shelf(ME)
        with shelf.claims(model(WANTED)) as slowly:
            steps = slowly.look()
            for count, what, name in happenings:
                for _ in range(count):
                    next(steps, None)
                happen(store, what, name, owners)
            # A generator that has ended does not go on; another one does.
            exhausted(slowly.look())
            with shelf.claims(model(WANTED)) as at_once:
                exhausted(at_once.look())
                assert slowly.settle(()) == at_once.settle(())
                assert facts(slowly) == facts(at_once)
        store.close()


def exhausted(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def test_room_is_made_for_what_is_lacking_at_last(tmp_path: Path) -> None:
    store = opened(tmp_path, quota_bytes=400)
    mine = object()
    with store.shelf(ME).claims(model("abc")) as claims:
        exhausted(claims.look())
        rival = upload(store, ME, "ad")
        assert (
            store.admit(ME, model("abc"), mine, {(ME, model("ad").fingerprint)}, (), claims) == []
        )
    assert store.shelf(ME).used_bytes == 400, "what another brought meanwhile is lacking no more"
    assert held(store, ME) == set("ad")
    send(store, ME, "bc", mine)
    assert held(store, ME) == set("abcd")
    store.shelf(ME).release(rival)
    store.close()


def test_what_has_not_begun_is_room_and_nothing_else(tmp_path: Path) -> None:
    store, owner = opened(tmp_path, quota_bytes=400), object()
    shelf = store.shelf(ME)
    store.admit(ME, model("abc"), owner)
    assert (shelf.used_bytes, shelf.parts) == (300, [])
    with pytest.raises(NoRoom):
        store.admit(ME, model("de"), object(), {(ME, model("abc").fingerprint)})
    begin(store, ME, "a", owner)
    assert (shelf.used_bytes, len(shelf.parts)) == (300, 1)
    send(store, ME, "ab", owner)
    assert (shelf.used_bytes, shelf.parts) == (300, [])
    shelf.release(owner)
    assert shelf.used_bytes == 200, "nobody brings the rest"
    store.close()


def test_who_comes_again_takes_over_what_its_old_connection_was_to_bring(tmp_path: Path) -> None:
    store, old, new = opened(tmp_path, quota_bytes=300), object(), object()
    shelf = store.shelf(ME)
    store.admit(ME, model("abc"), old)
    begin(store, ME, "a", old)
    assert store.admit(ME, model("abc"), new, silent={old}) == []
    assert shelf.used_bytes == 300
    assert shelf.part(DIGEST["b"], old) is None, "it is the new one's to bring"
    send(store, ME, "abc", new)
    assert held(store, ME) == set("abc")
    store.close()


def test_planes_have_room_before_their_blobs_have_begun(tmp_path: Path) -> None:
    store, owner = opened(tmp_path, 900), object()
    rows = tuple((DIGEST[name], 100, "float32") for name in "ab")
    store.admit(ME, Model("f" * 64, 2, rows), owner)
    store.widen(ME, owner)
    shelf = store.shelf(ME)
    assert shelf.used_bytes == 600, "beside the bytes, planes, and tensors made of them"
    store.widen(ME, owner)
    assert shelf.used_bytes == 600
    part = shelf.part(DIGEST["a"], owner)
    assert part is not None
    assert (part.widened, shelf.used_bytes) == (True, 600)
    part.store(Segment(0, 0, 0, 25, "raw", 100), "float32", (DATA["a"],))
    shelf.finish(part)
    assert shelf.used_bytes == 400
    store.close()


def test_a_size_that_cannot_be_is_found_out_while_it_is_looked(tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, ME, "a")
    upload(store, YOU, "b")
    liar = Model("e" * 64, 2, ((DIGEST["b"], 99, "uint8"), (DIGEST["a"], 99, "uint8")))
    with store.shelf(ME).claims(liar) as claims, pytest.raises(WrongSize, match="99"):
        exhausted(claims.look())
    publish(store, YOU, "b")
    other = Model("d" * 64, 1, ((DIGEST["b"], 98, "uint8"),))
    with pytest.raises(WrongSize, match="98"):
        store.admit(ME, other, object())
    store.close()

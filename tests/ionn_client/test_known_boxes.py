"""What a device remembers of boxes, and what becomes of a file that is not as it was written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ionn_client.boxes.known_boxes import FILE, KnownBox, KnownBoxes, default_state
from ionn_client.errors import PairingError
from pairing.identity import Identity

BOX, OTHER = Identity.create("box"), Identity.create("other")
HERE = "ionn://192.0.2.7:7431"


def known(identity: Identity = BOX, **fields: Any) -> KnownBox:
    return KnownBox(
        **{
            "name": "box",
            "address": HERE,
            "certificate": identity.certificate.decode(),
            "token": "t" * 43,
            "paired_at_s": 1e9,
            "confirmed": True,
            **fields,
        }
    )


def test_a_box_is_found_by_name_and_address(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path / "state")
    assert boxes.all() == []
    assert boxes.find("box") is None
    box = boxes.add(known())
    assert box.fingerprint == BOX.fingerprint
    for what in ("box", HERE, "192.0.2.7", "192.0.2.7:7431"):
        assert KnownBoxes(tmp_path / "state").find(what) == box
    for what in ("BOX", "192.0.2.7:7432", "192.0.2.8", "", "http://box", "ionn://box/x"):
        assert boxes.find(what) is None
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_name_goes_before_an_address(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    boxes.add(known(name="there", address="ionn://here"))
    here = boxes.add(known(OTHER, name="here", address="ionn://elsewhere"))
    assert boxes.find("here") == here


def test_of_two_at_one_address_the_latest_is_meant(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    late = boxes.add(known(OTHER, name="a", paired_at_s=2e9))
    boxes.add(known(name="b", paired_at_s=1e9))
    assert boxes.find(HERE) == late


def test_a_box_never_takes_anothers_place(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    first = boxes.add(known())
    assert boxes.add(known(OTHER)).name == "box-2"
    assert boxes.find("box") == first
    long = "ä" * 32
    boxes.add(known(Identity.create("x"), name=long))
    assert len(boxes.add(known(Identity.create("y"), name=long)).name.encode()) <= 64


def test_the_token_that_held_last_outlives_two_pairings_that_fail(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    sure = boxes.add(known(token="held"))
    for token in ("one", "two"):
        tried = boxes.add(known(token=token, confirmed=False))
    boxes.refuse(tried)
    assert boxes.all() == [sure]


def test_a_pairing_that_fails_does_not_clear_a_liar(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    liar = boxes.add(known())
    boxes.quarantine(liar.fingerprint, "it lied")
    for outcome, why in ((boxes.refuse, "it lied"), (boxes.confirm, None)):
        outcome(boxes.add(known(token="new", confirmed=False)))
        (box,) = boxes.all()
        assert (box.confirmed, box.quarantined) == (True, why)


def test_a_box_that_is_paired_anew_is_the_same_box(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    boxes.add(known(quarantined="it lied"))
    boxes.add(known(token="new", address="ionn://elsewhere"))
    (box,) = boxes.all()
    assert (box.name, box.token, box.address, box.quarantined) == (
        "box", "new", "ionn://elsewhere", None
    )  # fmt: skip


def test_a_box_is_forgotten_and_quarantined_for_good(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    box = boxes.add(known())
    boxes.quarantine(box.fingerprint, "its answer was off by 3")
    found = KnownBoxes(tmp_path).find("box")
    assert found is not None
    assert found.quarantined == "its answer was off by 3"
    boxes.moved(box.fingerprint, "ionn://192.0.2.9:1")
    assert KnownBoxes(tmp_path).find("192.0.2.9:1") is not None
    boxes.remove(box.fingerprint)
    assert KnownBoxes(tmp_path).all() == []


# Probation: the box has not yet said that it kept its half.


def test_probation_ends_one_way_or_the_other(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    box = boxes.add(known(confirmed=False))
    boxes.confirm(box)
    assert [box.confirmed for box in boxes.all()] == [True]
    boxes.refuse(box)
    assert len(boxes.all()) == 1, "what is confirmed is not on probation"
    boxes.remove(box.fingerprint)
    boxes.refuse(boxes.add(known(confirmed=False)))
    assert boxes.all() == []


def test_pairing_anew_in_vain_loses_nothing(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    boxes.add(known(token="old"))
    again = boxes.add(known(token="new", confirmed=False))
    assert (again.token, again.former_token) == ("new", "old")
    boxes.refuse(again)
    (box,) = boxes.all()
    assert (box.token, box.former_token, box.confirmed) == ("old", None, True)


def test_pairing_anew_drops_what_was(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    boxes.add(known(token="old"))
    boxes.confirm(boxes.add(known(token="new", confirmed=False)))
    (box,) = boxes.all()
    assert (box.token, box.former_token, box.confirmed) == ("new", None, True)


def test_two_that_pair_at_once_do_not_settle_each_others_pairing(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    first = boxes.add(known(token="first", confirmed=False))
    second = boxes.add(known(token="second", confirmed=False))
    boxes.refuse(first)
    assert boxes.all() == [second], "nobody knows yet"
    boxes.confirm(first)
    assert [(box.token, box.confirmed) for box in boxes.all()] == [("second", False)]
    boxes.refuse(second)
    assert [(box.token, box.confirmed) for box in boxes.all()] == [("first", True)]
    third = boxes.add(known(token="third", confirmed=False))
    boxes.confirm(third)
    boxes.confirm(first)
    assert [(box.token, box.confirmed) for box in boxes.all()] == [("third", True)]


# Several programs, and files that are not as they were written.


def test_programs_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    identities = [Identity.create(f"box {n}") for n in range(6)]
    threads = [
        threading.Thread(target=KnownBoxes(tmp_path).add, args=(known(identity, name=f"b{n}"),))
        for n, identity in enumerate(identities)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KnownBoxes(tmp_path).all()) == 6


def written(directory: Path, data: bytes) -> KnownBoxes:
    path = directory / FILE
    path.touch(0o600)
    path.write_bytes(data)
    return KnownBoxes(directory)


def one(**fields: Any) -> dict[str, Any]:
    plain = {"name": "box", "address": HERE, "certificate": BOX.certificate.decode(),
             "token": "t", "paired_at_s": 1.0, "confirmed": True, "quarantined": None,
             "former_token": None}  # fmt: skip
    return {key: value for key, value in {**plain, **fields}.items() if value is not ...}


def file_of(*boxes: Any, **fields: Any) -> bytes:
    return json.dumps({"format": 1, "boxes": boxes, **fields}).encode()


def test_the_file_as_it_is_written(tmp_path: Path) -> None:
    assert [box.name for box in written(tmp_path, file_of(one())).all()] == ["box"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        file_of(one())[:-10],
        file_of(one(), format=2),
        file_of(one(), more=1),
        file_of(boxes=None),
        file_of(boxes={"a": 1}),
        file_of(None),
        file_of([]),
        file_of(one(), one()),
        file_of(one(name=...)),
        file_of(one(more=1)),
        file_of(one(fingerprint="ab")),
        file_of(one(name="")),
        file_of(one(name="\x1b[2J")),
        file_of(one(name=7)),
        file_of(one(address="http://box")),
        file_of(one(address=7)),
        file_of(one(certificate="")),
        file_of(one(certificate=BOX.key.decode())),
        file_of(one(certificate="ä")),
        file_of(one(token="")),
        file_of(one(token="a\r\nHost: b")),
        file_of(one(token="ä")),
        file_of(one(token=None)),
        file_of(one(former_token="\n")),
        file_of(one(paired_at_s="now")),
        file_of(one(paired_at_s=1e300)),
        file_of(one(paired_at_s=-1)),
        file_of(one(paired_at_s=float("nan"))),
        file_of(one(confirmed=1)),
        file_of(one(quarantined=7)),
        file_of(one(quarantined="x" * 5000)),
    ],
)
def test_a_damaged_file_is_told_and_never_overwritten(tmp_path: Path, data: bytes) -> None:
    boxes = written(tmp_path, data)
    with pytest.raises(PairingError, match="damaged"):
        boxes.all()
    with pytest.raises(PairingError, match="damaged"):
        boxes.add(known())
    assert (tmp_path / FILE).read_bytes() == data


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.data())
def test_a_changed_file_is_believed_or_told(tmp_path: Path, data: st.DataObject) -> None:
    text = bytearray(file_of(one(quarantined="it lied")))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for changed in (bytes(text), bytes(text[:cut])):
        try:
            boxes = written(tmp_path, changed).all()
        except PairingError:
            continue
        assert all(len(box.fingerprint) == 64 for box in boxes)


def test_a_file_that_others_can_open_is_not_believed(tmp_path: Path) -> None:
    boxes = KnownBoxes(tmp_path)
    boxes.add(known())
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(PairingError, match="chmod 600"):
        boxes.find("box")


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    boxes = KnownBoxes(tmp_path / "state")
    with pytest.raises(PairingError, match="cannot"):
        boxes.add(known())
    with pytest.raises(PairingError, match="cannot read"):
        boxes.all()


def test_tokens_are_not_shown() -> None:
    assert "secret" not in repr(known(token="secret", former_token="secret"))


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state() == tmp_path / "ionn" / "client"
    assert KnownBoxes().directory == default_state()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state() == tmp_path / ".local" / "state" / "ionn" / "client"

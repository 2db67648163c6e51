"""What is known of paired devices: kept whole or not at all, and believed only if it is sound."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ionn_edge.doors import devices
from ionn_edge.doors.devices import Device, Paired, Registry, RegistryError
from pairing.identity import Identity
from pairing.private import StateError, write_private
from pairing.tokens import token_digest

GLASSES, WATCH = Identity.create("glasses"), Identity.create("watch")


def paired(identity: Identity, name: str, at: float = 1.0) -> Paired:
    device = Device(identity.fingerprint, name)
    return Paired(device, identity.certificate, token_digest(name), at)


async def kept(directory: Path) -> Registry:
    registry = Registry(directory)
    registry.open()
    await registry.add(paired(WATCH, "watch", 2.0))
    await registry.add(paired(GLASSES, "glasses", 1.0))
    return registry


def again(directory: Path) -> Registry:
    registry = Registry(directory)
    registry.open()
    return registry


async def test_who_is_added_is_known_after_a_restart_and_who_is_removed_is_not(
    tmp_path: Path,
) -> None:
    registry = await kept(tmp_path)
    assert again(tmp_path).all() == registry.all()
    assert [each.device.name for each in registry.all()] == ["glasses", "watch"]
    registry.seen(WATCH.fingerprint, 7.0)
    await registry.keep()
    await registry.remove(GLASSES.fingerprint)
    await registry.remove(GLASSES.fingerprint)
    (left,) = again(tmp_path).all()
    assert (left.device.name, left.seen_at) == ("watch", 7.0)
    assert os.stat(registry.path).st_mode & 0o777 == 0o600


async def test_a_device_goes_by_its_name_or_the_beginning_of_its_id(tmp_path: Path) -> None:
    registry = await kept(tmp_path)
    for what in ("glasses", GLASSES.fingerprint, GLASSES.fingerprint[:6].upper()):
        assert [each.device.name for each in registry.find(what)] == ["glasses"]
    for what in ("", "g", GLASSES.fingerprint[:5], "nobody"):
        assert registry.find(what) == []


async def test_a_name_never_hides_anothers_id(tmp_path: Path) -> None:
    registry = await kept(tmp_path)
    # A device says itself what it is called.
    for number, claimed in enumerate((WATCH.fingerprint, WATCH.fingerprint[:12])):
        impostor = Identity.create(f"impostor {number}")
        await registry.add(paired(impostor, claimed))
    assert [each.device.id for each in registry.find(WATCH.fingerprint)] == [WATCH.fingerprint]
    short = registry.find(WATCH.fingerprint[:12])
    assert sorted(each.device.name for each in short) == [WATCH.fingerprint[:12], "watch"]


async def test_who_is_removed_stays_out_though_pairing_it_anew_fails_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await kept(tmp_path)
    began, goes_on = threading.Event(), threading.Event()

    def full(path: Path, _: bytes) -> None:
        monkeypatch.undo()
        began.set()
        goes_on.wait(60)
        raise StateError(f"cannot write {path}")

    monkeypatch.setattr(devices, "write_private", full)
    adding = asyncio.create_task(registry.add(paired(GLASSES, "renamed")))
    await asyncio.to_thread(began.wait, 20)
    removing = asyncio.create_task(registry.remove(GLASSES.fingerprint))
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(RegistryError):
        await adding
    await removing
    for known in (registry, again(tmp_path)):
        assert known.get(GLASSES.fingerprint) is None


async def test_a_removal_that_was_not_kept_is_kept_later(tmp_path: Path) -> None:
    registry = await kept(tmp_path)
    file = registry.path.read_bytes()
    registry.path.unlink()
    registry.path.mkdir()
    with pytest.raises(RegistryError):
        await registry.remove(GLASSES.fingerprint)
    registry.path.rmdir()
    registry.path.write_bytes(file)
    assert registry.unkept
    await registry.keep()
    assert [each.device.name for each in again(tmp_path).all()] == ["watch"]


async def test_no_more_is_kept_than_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await kept(tmp_path)
    monkeypatch.setattr(devices, "MAX_BYTES", len(registry.path.read_bytes()))
    with pytest.raises(RegistryError, match="too long"):
        await registry.add(paired(Identity.create("third"), "third"))
    assert len(registry.all()) == len(again(tmp_path).all()) == 2


async def test_what_cannot_be_written_is_not_known_either(tmp_path: Path) -> None:
    registry = await kept(tmp_path / "state")
    file = registry.path.read_bytes()
    registry.path.unlink()
    registry.path.mkdir()
    stranger = Identity.create("stranger")
    with pytest.raises(RegistryError, match="cannot write"):
        await registry.add(paired(stranger, "stranger"))
    assert registry.get(stranger.fingerprint) is None
    with pytest.raises(RegistryError):
        await registry.add(paired(GLASSES, "renamed"))
    known = registry.get(GLASSES.fingerprint)
    assert known is not None
    assert known.device.name == "glasses"
    # Who is out is out, though the file says otherwise.
    with pytest.raises(RegistryError):
        await registry.remove(GLASSES.fingerprint)
    assert registry.get(GLASSES.fingerprint) is None
    registry.path.rmdir()
    registry.path.write_bytes(file)


def altered(file: bytes, **changes: Any) -> bytes:
    plain = json.loads(file)
    plain["devices"][0].update(changes)
    return json.dumps(plain).encode()


DAMAGE: dict[str, Any] = {
    "empty": lambda _: b"",
    "cut": lambda file: file[: len(file) // 2],
    "cut by a byte": lambda file: file.rstrip()[:-1],
    "no text": lambda _: b"\xff\xfe\x00",
    "deep": lambda _: b"[" * 100_000,
    "a list": lambda _: b"[]",
    "a number": lambda _: b"7",
    "no devices": lambda _: b'{"format": 1}',
    "devices are a map": lambda _: b'{"format": 1, "devices": {"a": 1}}',
    "a device is a number": lambda _: b'{"format": 1, "devices": [1]}',
    "another format": lambda file: file.replace(b'"format": 1', b'"format": 2'),
    "another's certificate": lambda file: altered(file, certificate=WATCH.certificate.decode()),
    "no certificate": lambda file: altered(file, certificate="-----BEGIN CERTIFICATE-----"),
    "a key for an id": lambda file: altered(file, id="../../etc"),
    "a number for an id": lambda file: altered(file, id=3),
    "a name of control characters": lambda file: altered(file, name="a\x1b[2J"),
    "a number for a name": lambda file: altered(file, name=["a"]),
    "a short digest": lambda file: altered(file, token_digest="ab"),
    "no digest": lambda file: altered(file, token_digest=None),
    "no time": lambda file: altered(file, paired_at="today"),
    "an endless time": lambda file: altered(file, paired_at=float("inf")),
    "a truth for a time": lambda file: altered(file, seen_at=True),
    "twice": lambda file: json.dumps(
        {"format": 1, "devices": [json.loads(file)["devices"][0]] * 2}
    ).encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_file_is_a_clear_end_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = (await kept(tmp_path)).path
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(RegistryError, match=r"is damaged .*must pair again"):
        again(tmp_path)
    assert path.read_bytes() == before


async def test_a_file_that_others_may_change_is_not_believed(tmp_path: Path) -> None:
    path = (await kept(tmp_path)).path
    path.chmod(0o666)
    with pytest.raises(RegistryError, match="others on this machine"):
        again(tmp_path)


async def test_a_write_that_nobody_waits_for_any_more_brings_nobody_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await kept(tmp_path)
    begun, may_write = threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> bool:
        begun.set()
        may_write.wait(60)
        return write_private(path, data)

    monkeypatch.setattr(devices, "write_private", slow)
    registry.seen(WATCH.fingerprint, 7.0)
    keeping = asyncio.create_task(registry.keep())
    await asyncio.to_thread(begun.wait, 20)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    removing = asyncio.create_task(registry.remove(GLASSES.fingerprint))
    await asyncio.sleep(0)
    may_write.set()
    await removing
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [each.device.name for each in again(tmp_path).all()] == ["watch"]

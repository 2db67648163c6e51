"""Pairing from the device's side with a real box, and what each believes where either crashes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.boxes.access import Access, is_loopback
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.connection import Connection
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.boxes.pair import Attempt, no_address, pair
from ionn_client.errors import (
    CertificateChanged,
    EdgeUnreachable,
    NotPaired,
    PairingError,
)
from ionn_edge.doors.devices import RegistryError
from pairing.exchange import ClientExchange, EdgeExchange
from pairing.identity import checked_name
from pairing.uri import PairingUri
from tests.ionn_edge.visitors import House, house, wrong
from tests.support import know_box


def address(at: House) -> EdgeAddress:
    return EdgeAddress("127.0.0.1", at.port)


def by_code(at: House, code: str | None = None) -> Attempt:
    return Attempt.by_code(address(at), code or at.desk.code or "")


def by_uri(at: House) -> Attempt:
    return Attempt.by_uri(PairingUri.parse(at.desk.uri("127.0.0.1", at.port) or ""))


async def meet(client: Path) -> None:
    """Connect as `connect` does. Raises PairingError or ConnectionError."""
    access = Access.to("hall", client)
    async with access.http() as http:
        await Connection.open(http, access)


@pytest.fixture
def client(tmp_path: Path) -> Path:
    return tmp_path / "client"


# How it should be.


@pytest.mark.parametrize("how", [by_code, by_uri])
async def test_both_know_each_other(tmp_path: Path, client: Path, how: object) -> None:
    async with house(tmp_path) as at:
        attempt = by_code(at) if how is by_code else by_uri(at)
        box = await pair(replace(attempt, device="my glasses"), client)
        (paired,) = at.guard.registry.all()
        assert paired.device.name == "my glasses"
        assert box == KnownBoxes(client).find("hall")
        assert box.confirmed
        assert box.fingerprint == at.guard.identity.fingerprint
        await meet(client)


async def test_a_box_may_be_called_otherwise_here(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        box = await pair(replace(by_code(at), called="the big one"), client)
        assert KnownBoxes(client).find("the big one") == box


async def test_a_device_that_pairs_anew_is_known_by_its_new_token(
    tmp_path: Path, client: Path
) -> None:
    async with house(tmp_path) as at:
        first = await pair(by_code(at), client)
        again = await pair(by_code(at), client)
        assert first.token != again.token
        assert len(at.guard.registry.all()) == len(KnownBoxes(client).all()) == 1
        await meet(client)


@pytest.mark.parametrize(
    ("claimed", "name"),
    [("192.0.2.7", "box 192-0-2-7"), ("localhost", "box localhost"), ("[::1]", "box 1"),
     ("::", "box"), ("a.local:7", "a-local-7"), ("hall", "hall"), ("Büro 2", "Büro 2")],
)  # fmt: skip
def test_a_box_cannot_pose_as_anothers_address(claimed: str, name: str) -> None:
    assert no_address(claimed) == name


async def test_a_box_cannot_pose_as_another_that_is_known_by_its_host(
    tmp_path: Path, client: Path
) -> None:
    other = know_box(client, "ionn://hall:7431", name="mine")
    async with house(tmp_path) as at:
        assert (await pair(by_code(at), client)).name == "box hall"
    assert KnownBoxes(client).find("hall") == other


@given(st.text(min_size=1, max_size=64))
def test_whatever_a_box_calls_itself_is_a_name_here(claimed: str) -> None:
    try:
        checked_name(claimed)
    except ValueError:
        return
    name = no_address(claimed)
    assert checked_name(name) == name
    assert not is_loopback(name)


# How it goes wrong.


async def test_a_wrong_code_says_what_to_do(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        code = at.desk.code or ""
        with pytest.raises(PairingError, match="shows a new one now"):
            await pair(by_code(at, wrong(code)), client)
        with pytest.raises(PairingError, match="shows a new one now"):
            await pair(by_code(at, code), client)
        assert not at.guard.registry.all()
        assert not KnownBoxes(client).all()


async def test_the_wrong_code_that_closes_the_desk_sends_nobody_to_read_another(
    tmp_path: Path, client: Path
) -> None:
    async with house(tmp_path) as at:
        for told in (*4 * ["shows a new one now"], "ionn edge pair` there opens it again"):
            with pytest.raises(PairingError, match=told):
                await pair(by_code(at, wrong(at.desk.code or "")), client)
        assert at.desk.code is None


async def test_a_uri_of_another_box_says_nothing_to_this_one(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        with pytest.raises(CertificateChanged, match="Nothing was sent"):
            await pair(replace(by_uri(at), box="ab" * 32), client)
        assert at.desk.failures == 0


async def test_a_desk_that_is_closed_says_how_it_opens(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        at.desk.code = at.desk.secret = None
        with pytest.raises(PairingError, match="ionn edge pair"):
            await pair(Attempt.by_code(address(at), wrong("0000-0000")), client)


async def test_where_no_box_is(client: Path) -> None:
    with pytest.raises(EdgeUnreachable, match="no pairing with"):
        await pair(Attempt.by_code(EdgeAddress("127.0.0.1", 9), wrong("0000-0000")), client)


async def test_where_nothing_can_be_kept(tmp_path: Path, client: Path) -> None:
    client.touch()  # noqa: ASYNC240
    async with house(tmp_path) as at:
        with pytest.raises(PairingError, match="cannot"):
            await pair(by_code(at), client)
        assert not at.guard.registry.all()
        assert at.desk.failures == 0, "nobody was guessing"


# Where either crashes between the two phases.


class Crash(BaseException):
    """What takes a process away."""


async def test_a_device_that_crashes_before_it_has_said_so(
    tmp_path: Path, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: ClientExchange) -> bytes:
        raise Crash

    async with house(tmp_path) as at:
        with monkeypatch.context() as patched:
            patched.setattr(ClientExchange, "stored", crash)
            with pytest.raises(Crash):
                await pair(by_code(at), client)
        # The device has the box on probation; the box knows nothing.
        assert [box.confirmed for box in KnownBoxes(client).all()] == [False]
        assert not at.guard.registry.all()
        with pytest.raises(NotPaired, match="did not keep its half"):
            await meet(client)
        assert not KnownBoxes(client).all()
        await pair(by_code(at), client)
        await meet(client)


async def test_a_box_whose_last_word_gets_lost(
    tmp_path: Path, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: EdgeExchange) -> bytes:
        raise OSError("gone")

    async with house(tmp_path) as at:
        monkeypatch.setattr(EdgeExchange, "stored", crash)
        # It has kept its half, and says so when asked as it always is: by a connection.
        assert (await pair(by_code(at), client)).confirmed
        assert len(at.guard.registry.all()) == 1
        assert [box.confirmed for box in KnownBoxes(client).all()] == [True]


async def test_a_box_that_cannot_keep_its_half(
    tmp_path: Path, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise RegistryError("the disk is full")

    async with house(tmp_path) as at:
        monkeypatch.setattr(at.guard, "pair", full)
        with pytest.raises(PairingError, match="forgets its own"):
            await pair(by_code(at), client)
        assert not KnownBoxes(client).all()


@pytest.mark.parametrize("kept", [False, True])
async def test_a_box_that_crashes_for_longer(
    tmp_path: Path, client: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    async with house(tmp_path) as at:
        keep = at.guard.pair

        async def crash(*claim: object) -> None:
            if kept:
                await keep(*claim)  # type: ignore[arg-type]
            raise RegistryError("the power went")

        monkeypatch.setattr(at.guard, "pair", crash)
        monkeypatch.setattr(Access, "http", _unreachable)
        with pytest.raises(PairingError, match="next connection"):
            await pair(by_code(at), client)
        monkeypatch.undo()
        port = at.port
    assert [box.confirmed for box in KnownBoxes(client).all()] == [False]
    with pytest.raises(ConnectionError):
        await meet(client)
    assert len(KnownBoxes(client).all()) == 1, "a box that is away has not said no"
    async with house(tmp_path, port=port):
        if kept:
            await meet(client)
        else:
            with pytest.raises(NotPaired):
                await meet(client)
    assert [box.confirmed for box in KnownBoxes(client).all()] == [True] * kept


def _unreachable(_: Access) -> object:
    raise ConnectionError("no network")


# Once they are paired.


async def test_unpairing_is_heard_of(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        await pair(by_code(at), client)
        (paired,) = at.guard.registry.all()
        await at.guard.unpair(paired.device)
        with pytest.raises((NotPaired, ConnectionError), match="unpaired there"):
            await meet(client)


async def test_a_revoked_token_is_heard_of(tmp_path: Path, client: Path) -> None:
    async with house(tmp_path) as at:
        box = await pair(by_code(at), client)
        KnownBoxes(client).add(replace(box, token="x" * 43))
        with pytest.raises(NotPaired, match="unpaired there"):
            await meet(client)
        assert len(KnownBoxes(client).all()) == 1, "only a box on probation is forgotten by itself"

"""Who is talked to, and who hears nothing: real listeners that write down every byte they get."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ionn_client
from ionn_client import Options, Profiled
from ionn_client.boxes.access import Access, TurnedAway, is_loopback
from ionn_client.boxes.connection import Connection
from ionn_client.boxes.forget import forget
from ionn_client.boxes.known_boxes import FILE, KnownBoxes
from ionn_client.errors import (
    CertificateChanged,
    EdgeQuarantined,
    EdgeUnreachable,
    NotPaired,
    PairingError,
)
from pairing.identity import FILE as IDENTITY
from pairing.identity import Identity
from pairing.tls import client_context, server_context
from tests.support import know_box

BOX, OTHER = Identity.create("box"), Identity.create("other")
X = torch.ones(1, 8)
TIMEOUT_S = 60.0
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"


def refusing(status: int) -> bytes:
    return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()


class Listener:
    """Takes connections one by one, writes down what it hears, decrypted, and answers each."""

    def __init__(self, context: ssl.SSLContext | None, answer: bytes = b"") -> None:
        self.connections = 0
        self.heard = b""
        self._context = context
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"ionn://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(TIMEOUT_S)

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            link.settimeout(TIMEOUT_S)
            with link, contextlib.suppress(OSError):
                self._hear(link)

    def _hear(self, link: socket.socket) -> None:
        speaking = link
        if self._context is not None:
            speaking = self._context.wrap_socket(link, server_side=True)
        with speaking:
            while data := speaking.recv(4096):
                self.heard += data
                if self._context is None or self.heard.endswith(b"\r\n\r\n"):
                    speaking.sendall(self._answer)
                    return


Listen = Callable[..., Listener]


@pytest.fixture
def listen() -> Iterator[Listen]:
    with contextlib.ExitStack() as stack:

        def begun(context: ssl.SSLContext | None, answer: bytes = b"") -> Listener:
            listener = Listener(context, answer)
            stack.callback(listener.close)
            return listener

        yield begun


async def connect(access: Access) -> Connection:
    async with access.http() as http:
        return await Connection.open(http, access)


@pytest.fixture(scope="module")
def profiled() -> Profiled:
    return ionn_client.prepare(torch.nn.Linear(8, 8).eval(), (X,))


# The pin.


async def test_another_certificate_hears_nothing_and_ends_the_session(
    tmp_path: Path, listen: Listen, profiled: Profiled
) -> None:
    listener = listen(server_context(OTHER, []))
    know_box(tmp_path, listener.address, BOX)
    options = Options(state=tmp_path)
    async with ionn_client.connect(profiled, (X,), edge="box", options=options) as net:
        with pytest.raises(CertificateChanged, match="Nothing was sent") as stopped:
            await net.uploaded(TIMEOUT_S)
        for said in ("box", "ionn devices forget box", "pair again", BOX.fingerprint[:4]):
            assert said in str(stopped.value)
        for _ in range(3):
            assert (await net.query(X)).served_by == "client"
        assert net.status.phase == "rejected"
        assert net.status.error == str(stopped.value)
    assert listener.heard == b""
    assert listener.connections == 1, "a stop that is tried again is none"


async def test_tls_and_the_pin_are_two_checks(tmp_path: Path, listen: Listen) -> None:
    device = Identity.load(tmp_path, "device")
    listener = listen(server_context(OTHER, [device.certificate]))
    know_box(tmp_path, listener.address, BOX)
    misled = client_context(device, OTHER.certificate)
    with pytest.raises(CertificateChanged):
        await connect(replace(Access.to("box", tmp_path), context=misled))
    assert listener.heard == b""


async def test_the_box_itself_hears_the_token(tmp_path: Path, listen: Listen) -> None:
    device = Identity.load(tmp_path, "device")
    listener = listen(server_context(BOX, [device.certificate]), refusing(500))
    box = know_box(tmp_path, listener.address, BOX)
    with pytest.raises(ConnectionError):
        await connect(Access.to("box", tmp_path))
    assert b"GET /ionn HTTP/1.1" in listener.heard
    assert f"Authorization: Bearer {box.token}".encode() in listener.heard


async def test_to_be_forgotten_is_not_asked_of_others(tmp_path: Path, listen: Listen) -> None:
    listener = listen(server_context(OTHER, []))
    know_box(tmp_path, listener.address, BOX)
    with pytest.raises(CertificateChanged):
        await forget(Access.to("box", tmp_path))
    assert listener.heard == b""


@pytest.mark.parametrize(("status", "error"), [(500, EdgeUnreachable), (403, NotPaired)])
async def test_a_box_that_does_not_forget_is_told(
    tmp_path: Path, listen: Listen, status: int, error: type[Exception]
) -> None:
    device = Identity.load(tmp_path, "device")
    listener = listen(server_context(BOX, [device.certificate]), refusing(status))
    know_box(tmp_path, listener.address, BOX)
    with pytest.raises(error):
        await forget(Access.to("box", tmp_path))


# Who does not want this device.


@pytest.mark.parametrize("status", [401, 403])
async def test_a_box_that_knows_us_no_more_is_not_asked_again(
    tmp_path: Path, listen: Listen, profiled: Profiled, status: int
) -> None:
    device = Identity.load(tmp_path, "device")
    listener = listen(server_context(BOX, [device.certificate]), refusing(status))
    know_box(tmp_path, listener.address, BOX)
    options = Options(state=tmp_path)
    async with ionn_client.connect(profiled, (X,), edge="box", options=options) as net:
        with pytest.raises(NotPaired, match="unpaired there"):
            await net.uploaded(TIMEOUT_S)
        assert (await net.query(X)).served_by == "client"
    assert listener.connections == 1
    assert KnownBoxes(tmp_path).find("box") is not None


GUESTS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_door_that_is_closed_to_us_only_is_told_from_one_that_is_closed(
    tmp_path: Path, listen: Listen, profiled: Profiled
) -> None:
    listener = listen(server_context(BOX, []), GUESTS)
    know_box(tmp_path, listener.address, BOX)
    with pytest.raises((TurnedAway, NotPaired), match="unpaired there"):
        await connect(Access.to("box", tmp_path))
    assert b"Bearer" not in listener.heard
    options = Options(state=tmp_path, backoff_s=0.01)
    async with ionn_client.connect(profiled, (X,), edge="box", options=options) as net:
        with pytest.raises(NotPaired, match="unpaired there"):
            await net.uploaded(TIMEOUT_S)


async def test_a_box_on_probation_that_does_not_know_us_is_forgotten(
    tmp_path: Path, listen: Listen
) -> None:
    listener = listen(server_context(BOX, []), GUESTS)
    know_box(tmp_path, listener.address, BOX, confirmed=False)
    with pytest.raises(NotPaired, match="did not keep its half"):
        await connect(Access.to("box", tmp_path))
    assert KnownBoxes(tmp_path).all() == []


async def test_a_broken_box_on_probation_stays(tmp_path: Path) -> None:
    know_box(tmp_path, "ionn://127.0.0.1:9", BOX, confirmed=False)
    with pytest.raises(ConnectionError):
        await connect(Access.to("box", tmp_path))
    assert len(KnownBoxes(tmp_path).all()) == 1


async def test_a_quarantined_box_is_not_asked(
    tmp_path: Path, listen: Listen, profiled: Profiled
) -> None:
    listener = listen(server_context(BOX, []))
    know_box(tmp_path, listener.address, BOX)
    Access.to("box", tmp_path).quarantine("its answer was off by 3")
    options = Options(state=tmp_path)
    async with ionn_client.connect(profiled, (X,), edge="box", options=options) as net:
        with pytest.raises(EdgeQuarantined, match="off by 3"):
            await net.uploaded(TIMEOUT_S)
        assert (await net.query(X)).served_by == "client"
    assert listener.connections == 0


# The wrong kind of door.


async def test_a_plain_listener_in_a_boxs_place_hears_no_token(
    tmp_path: Path, listen: Listen
) -> None:
    listener = listen(None, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    know_box(tmp_path, listener.address, BOX)
    with pytest.raises(ConnectionError) as refused:
        await connect(Access.to("box", tmp_path))
    assert not isinstance(refused.value, PairingError)
    assert b"Bearer" not in listener.heard


async def test_a_paired_box_is_told_from_a_broken_one(tmp_path: Path, listen: Listen) -> None:
    listener = listen(server_context(BOX, []), GUESTS)
    with pytest.raises(TurnedAway, match="paired devices only"):
        await connect(Access.to(listener.address, tmp_path))


async def test_nobody_is_sent_elsewhere(tmp_path: Path, listen: Listen) -> None:
    device = Identity.load(tmp_path, "device")
    listener = listen(server_context(BOX, [device.certificate]), REDIRECT)
    know_box(tmp_path, listener.address, BOX)
    with pytest.raises(ConnectionError, match="elsewhere"):
        await connect(Access.to("box", tmp_path))


# Which edge is meant.


def test_an_edge_elsewhere_is_paired_first(tmp_path: Path, profiled: Profiled) -> None:
    for edge in ("192.0.2.7", "ionn://192.0.2.7:7431", "box", "box.local:7431", "0.0.0.0"):
        with pytest.raises(NotPaired, match="ionn pair"):
            Access.to(edge, tmp_path)
        with pytest.raises(NotPaired):
            ionn_client.connect(profiled, (X,), edge=edge, options=Options(state=tmp_path))
    with pytest.raises(ValueError, match="address"):
        Access.to("http://192.0.2.7", tmp_path)


def test_an_edge_on_this_machine_may_be_unpaired(tmp_path: Path) -> None:
    for edge in ("127.0.0.1:9", "ionn://[::1]:9", "localhost", "ionn://LOCALHOST.:9"):
        access = Access.to(edge, tmp_path)
        assert access.box is None
        assert access.headers == {}
        assert access.url("/ionn").startswith("http://")
    assert not list(tmp_path.iterdir()), "nothing is kept for who pairs with nobody"


async def test_dns_leads_no_plain_talk_off_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 7431))]

    # As where "localhost." is asked of the network, which may be anybody's.
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with pytest.raises(ConnectionError, match=r"leads to 192\.0\.2\.7, not to here"):
        await connect(Access.to("localhost.", tmp_path))


@pytest.mark.parametrize("host", ["localhost.evil.example", "127.0.0.1.nip.io", "2130706433",
                                  "127.1", "", "::", "0.0.0.0", "loopback"])  # fmt: skip
def test_what_only_looks_like_this_machine_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_a_known_box_on_this_machine_is_not_talked_to_plainly(tmp_path: Path) -> None:
    know_box(tmp_path, "ionn://127.0.0.1:7431", BOX)
    access = Access.to("127.0.0.1:7431", tmp_path)
    assert access.url("/ionn") == "https://127.0.0.1:7431/ionn"
    assert str(access) == "box (ionn://127.0.0.1:7431)"


def test_what_is_known_must_be_readable_even_for_this_machine(tmp_path: Path) -> None:
    know_box(tmp_path, "ionn://127.0.0.1:7431", BOX)
    (tmp_path / FILE).write_bytes(b"{")
    with pytest.raises(PairingError, match="damaged"):
        Access.to("127.0.0.1:7431", tmp_path)


def test_a_lost_identity_is_told(tmp_path: Path) -> None:
    know_box(tmp_path, "ionn://192.0.2.7:7431", BOX)
    (tmp_path / IDENTITY).unlink()
    with pytest.raises(NotPaired, match="pair again"):
        Access.to("box", tmp_path)
    assert not (tmp_path / IDENTITY).exists()


def test_a_damaged_identity_is_told(tmp_path: Path) -> None:
    know_box(tmp_path, "ionn://192.0.2.7:7431", BOX)
    (tmp_path / IDENTITY).write_bytes(b"x")
    with pytest.raises(PairingError, match="delete it"):
        Access.to("box", tmp_path)

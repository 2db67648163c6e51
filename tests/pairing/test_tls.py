"""TLS between those who know each other: handshakes in memory, of the real OpenSSL."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass

import pytest

from pairing.identity import Identity, IdentityError
from pairing.tls import client_context, peer_fingerprint, server_context, trust

BOX, OTHER_BOX = Identity.create("box"), Identity.create("box")
DEVICE, OTHER_DEVICE = Identity.create("device"), Identity.create("device")
SAID = b"the token and the model"


@dataclass
class Met:
    """What came of two contexts that met. client, server: why that side ended it."""

    client: ssl.SSLError | None = None
    server: ssl.SSLError | None = None
    seen_by_server: str | None = None
    seen_by_client: str | None = None
    version: str | None = None
    heard: bytes = b""


def meet(client: ssl.SSLContext, server: ssl.SSLContext) -> Met:
    """Shake hands in memory; then the client says something, if it believes the server."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(down, up, server_hostname="box")
    other = server.wrap_bio(up, down, server_side=True)
    met, agreed = Met(), False
    for _ in range(6):
        if met.client is None and not agreed:
            try:
                one.do_handshake()
                agreed = True
                met.seen_by_client, met.version = peer_fingerprint(one), one.version()
                one.write(SAID)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                met.client = error
        if met.server is None:
            try:
                other.do_handshake()
                met.seen_by_server = peer_fingerprint(other)
                met.heard += other.read()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                met.server = error
    return met


def test_two_that_know_each_other_talk() -> None:
    met = meet(
        client_context(DEVICE, BOX.certificate),
        server_context(BOX, [OTHER_DEVICE.certificate, DEVICE.certificate]),
    )
    assert met == Met(
        seen_by_client=BOX.fingerprint,
        seen_by_server=DEVICE.fingerprint,
        version="TLSv1.3",
        heard=SAID,
    )


def test_another_box_hears_nothing() -> None:
    met = meet(
        client_context(DEVICE, BOX.certificate), server_context(OTHER_BOX, [DEVICE.certificate])
    )
    assert isinstance(met.client, ssl.SSLCertVerificationError)
    assert met.heard == b""
    assert met.seen_by_server is None


def test_an_unknown_device_is_shown_the_door() -> None:
    met = meet(
        client_context(OTHER_DEVICE, BOX.certificate), server_context(BOX, [DEVICE.certificate])
    )
    assert met.server is not None
    assert met.heard == b""


def test_a_device_is_known_from_then_on() -> None:
    context = server_context(BOX, [])
    trust(context, DEVICE.certificate)
    met = meet(client_context(DEVICE, BOX.certificate), context)
    assert met.seen_by_server == DEVICE.fingerprint


def test_who_shows_nothing_gets_in_to_pair() -> None:
    met = meet(client_context(None, None), server_context(BOX, [DEVICE.certificate]))
    assert (met.seen_by_client, met.seen_by_server) == (BOX.fingerprint, None)
    assert met.heard == SAID


def test_a_box_is_never_a_device() -> None:
    # The pin is a trust anchor, which must not make its owner an authority.
    met = meet(client_context(BOX, BOX.certificate), server_context(BOX, [DEVICE.certificate]))
    assert met.server is not None


@pytest.mark.parametrize("side", ["client", "server"])
def test_nothing_older_is_spoken(side: str) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    if side == "client":
        met = meet(old, server_context(BOX, []))
        assert met.server is not None
    else:
        met = meet(client_context(DEVICE, BOX.certificate), old)
        assert met.client is not None
    assert met.heard == b""


def test_nobody_resumes() -> None:
    assert server_context(BOX, []).num_tickets == 0


def test_what_devices_are_called_is_not_told_to_strangers() -> None:
    # A server may list whom it trusts in its request for a certificate: ours does not.
    name = b"a name to be kept"
    context = server_context(BOX, [Identity.create(name.decode()).certificate])
    client, up, down = client_context(None, None), ssl.MemoryBIO(), ssl.MemoryBIO()
    heard = []
    client._msg_callback = lambda *message: heard.append(message[-1])  # type: ignore[attr-defined]
    one = client.wrap_bio(down, up, server_hostname="box")
    other = context.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for side in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert any(b"box" in message for message in heard)
    assert not any(name in message for message in heard)


@pytest.mark.parametrize("certificate", [b"", b"no certificate", b"\xff\xfe", DEVICE.key])
def test_what_is_no_certificate_is_not_trusted(certificate: bytes) -> None:
    with pytest.raises(IdentityError):
        trust(server_context(BOX, []), certificate)
    with pytest.raises(IdentityError):
        client_context(DEVICE, certificate)


def test_what_is_no_identity_makes_no_context() -> None:
    with pytest.raises(IdentityError):
        server_context(Identity(BOX.certificate, OTHER_BOX.key), [])


def test_nobody_is_at_the_end_of_a_plain_connection() -> None:
    assert peer_fingerprint(None) is None


def test_a_system_without_files_in_memory_keeps_keys_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    met = meet(client_context(DEVICE, BOX.certificate), server_context(BOX, [DEVICE.certificate]))
    assert met.seen_by_server == DEVICE.fingerprint
    assert met.heard == SAID

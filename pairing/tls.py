"""TLS 1.3 between those who know each other's certificates, and nobody else.

No authority signs anything: a pinned certificate is the trust anchor itself. Which device may do
what is the registry's to say, once it is known who is there; see docs/decisions/0021.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator

from pairing.identity import Identity, IdentityError, fingerprint_of


def server_context(identity: Identity, trusted: Iterable[bytes]) -> ssl.SSLContext:
    """For a box. trusted: paired devices' certificates, PEM.

    Who shows no certificate gets in, to pair; who shows one must be among the trusted. Raises
    IdentityError.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_OPTIONAL
    # Nobody resumes: a device that was unpaired must not come back by a ticket.
    context.num_tickets = 0
    for certificate in trusted:
        trust(context, certificate)
    return context


def trust(context: ssl.SSLContext, certificate: bytes) -> None:
    """Let a device with this certificate (PEM) in from now on. Raises IdentityError."""
    try:
        context.load_verify_locations(cadata=certificate.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(f"not a certificate: {error}") from None


def client_context(identity: Identity | None, pin: bytes | None) -> ssl.SSLContext:
    """For a device. pin: the one certificate (PEM) that the box may have.

    Without a pin any box is let through, for pairing only: the caller must judge what
    `peer_fingerprint` says before it says anything itself. Raises IdentityError.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    # Boxes move: who it is says the certificate, not the address.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if pin is None else ssl.CERT_REQUIRED
    if pin is not None:
        trust(context, pin)
    return context


def peer_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket | None) -> str | None:
    """Who is at the other end; None if it is not encrypted, or showed no certificate."""
    der = None if connection is None else connection.getpeercert(binary_form=True)
    return None if der is None else fingerprint_of(der)


def _context(protocol: int, identity: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    if identity is not None:
        with _as_file(identity.key + identity.certificate) as path:
            try:
                context.load_cert_chain(path)
            except (ssl.SSLError, OSError) as error:
                raise IdentityError(f"not an identity: {error}") from None
    return context


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The path of a file of this process's only: ssl takes keys from files."""
    if hasattr(os, "memfd_create"):
        opened = os.memfd_create("identity", os.MFD_CLOEXEC)
        with open(opened, "wb") as memory:
            memory.write(data)
            memory.flush()
            yield f"/proc/self/fd/{opened}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name

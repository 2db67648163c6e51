"""Identities: made once, kept, and believed only when they are of one piece."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from pairing.identity import (
    FILE,
    Identity,
    IdentityError,
    checked_name,
    fingerprint_of,
    from_der,
    short,
    to_der,
)

DER = serialization.Encoding.DER
ONE = Identity.create("one")


def test_an_identity_is_kept(tmp_path: Path) -> None:
    made = Identity.load(tmp_path / "state", "box")
    assert Identity.load(tmp_path / "state", "another name") == made
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600
    assert Identity.load(tmp_path / "elsewhere", "box").fingerprint != made.fingerprint


def test_two_programs_that_begin_at_once_are_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: Identity.load(tmp_path, "box"), range(8))
    assert len({identity.fingerprint for identity in made}) == 1


def test_who_comes_second_takes_what_the_first_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, first = Identity.create, []

    def overtaken(name: str) -> Identity:
        monkeypatch.undo()
        first.append(Identity.load(tmp_path, "first"))
        return create(name)

    monkeypatch.setattr(Identity, "create", overtaken)
    assert [Identity.load(tmp_path, "second")] == first


@pytest.mark.parametrize("text", [b"", b"\xff", ONE.key, ONE.certificate[:-40]])
def test_what_is_no_certificate_has_no_bytes_of_one(text: bytes) -> None:
    with pytest.raises(IdentityError, match="not a certificate"):
        to_der(text)


def test_a_fingerprint_is_that_of_the_certificate() -> None:
    der = ssl.PEM_cert_to_DER_cert(ONE.certificate.decode())
    assert ONE.fingerprint == hashlib.sha256(der).hexdigest() == fingerprint_of(der)
    assert short(ONE.fingerprint).replace(" ", "") == ONE.fingerprint[:16]
    assert to_der(from_der(der)) == der


def test_a_certificate_holds_whatever_the_clock_says() -> None:
    certificate = x509.load_pem_x509_certificate(ONE.certificate)
    assert certificate.not_valid_before_utc < datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_two_of_one_name_are_two_subjects() -> None:
    subjects = {
        x509.load_pem_x509_certificate(Identity.create("box").certificate).subject.rfc4514_string()
        for _ in range(2)
    }
    assert len(subjects) == 2


def test_the_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(ONE)


OTHER = Identity.create("other")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 4096,
        ONE.certificate,
        ONE.key,
        (ONE.key + ONE.certificate)[:-40],
        (ONE.key + ONE.certificate)[40:],
        ONE.key + OTHER.certificate,
        ONE.key.replace(b"A", b"B") + ONE.certificate,
        b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_damaged_file_is_told_and_left(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / FILE
    path.touch(0o600)
    path.write_bytes(data)
    with pytest.raises(IdentityError, match="delete it"):
        Identity.load(tmp_path, "box")
    assert path.read_bytes() == data


def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    Identity.load(tmp_path, "box")
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(IdentityError, match="chmod"):
        Identity.load(tmp_path, "box")


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(IdentityError, match="cannot"):
        Identity.load(tmp_path / "state", "box")


# Certificates of strangers.


def certificate(
    *,
    curve: ec.EllipticCurve | None = None,
    signer: ec.EllipticCurvePrivateKey | None = None,
    ca: bool | None = False,
    name: str = "device",
) -> bytes:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(datetime.datetime(2000, 1, 1))
    builder = builder.not_valid_after(datetime.datetime(2100, 1, 1))
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(DER)


def of_rsa() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(datetime.datetime(2000, 1, 1))
    builder = builder.not_valid_after(datetime.datetime(2100, 1, 1))
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(DER)


def test_one_like_ours_is_taken() -> None:
    der = certificate()
    assert to_der(from_der(der)) == der


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (certificate(ca=True), "sign others"),
        (certificate(ca=None), "certificate"),
        (certificate(curve=ec.SECP384R1()), "P-256"),
        (certificate(signer=ec.generate_private_key(ec.SECP256R1())), "certificate"),
        (of_rsa(), "P-256"),
        (b"", "certificate"),
        (to_der(ONE.certificate)[:-1], "certificate"),
        (to_der(ONE.certificate) + b"\x00", "certificate"),
        (ONE.certificate, "certificate"),
        (b"\x30\x82\xff\xff" + b"\x00" * 3000, "at most"),
    ],
)
def test_others_are_not(der: bytes, why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        from_der(der)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_certificate_is_another_or_none(at: int, bits: int) -> None:
    der = bytearray(to_der(ONE.certificate))
    der[at % len(der)] ^= bits
    with contextlib.suppress(IdentityError):
        assert fingerprint_of(to_der(from_der(bytes(der)))) != ONE.fingerprint


@pytest.mark.parametrize("name", ["", " box", "box ", "-box", ".box", "a\nb", "a\x1b[2J", "x" * 65,
                                  "\u202eevil", "ä" * 33, "\U0001d160" * 16])  # fmt: skip
def test_names_that_people_cannot_read_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        checked_name(name)


@pytest.mark.parametrize("name", ["b", "kitchen box", "Büro 2", "x" * 64, "箱"])
def test_names_that_they_can_are_taken(name: str) -> None:
    assert checked_name(name) == name
    assert Identity.create(name).fingerprint

"""A device's or box's identity: a key of its own, and the certificate that it signs itself.

Nobody vouches for anybody: what is remembered of the other side is the certificate, by its
SHA-256 (the *fingerprint*), so a certificate says nothing that anyone would have to believe.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pairing.private import StateError, read_private, write_private

FILE = "identity.pem"
MAX_NAME_BYTES = 64
MAX_CERTIFICATE_BYTES = 2048
# A wearable without a battery for its clock starts in 1970: certificates are older than that, and
# end never (RFC 5280, section 4.1.2.5).
NOT_BEFORE = datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
# What cryptography raises for certificates and keys that are none, or none that it knows.
UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion,
    x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # Where warnings are errors.
)  # fmt: skip
USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


class IdentityError(StateError):
    """An identity or a certificate is not one of ours. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """certificate, key: PEM. The key never leaves this machine."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate's DER, in hexadecimal: what others know this one by."""
        return fingerprint_of(to_der(self.certificate))

    @classmethod
    def create(cls, name: str) -> Identity:
        """A new one. name: 1 to 64 bytes, printable. Raises ValueError for another."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, checked_name(name))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM), secret)

    @classmethod
    def load(cls, directory: Path, name: str) -> Identity:
        """The one that is kept there; made, and kept, if there is none. Raises IdentityError."""
        path = directory / FILE
        try:
            data = read_private(path)
            if data is None:
                made = cls.create(name)
                if write_private(path, made.key + made.certificate, replace=False):
                    return made
                data = read_private(path)  # Somebody else was first.
        except StateError as error:
            raise IdentityError(str(error)) from error
        return _parsed(path, data or b"")


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate's DER, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def short(fingerprint: str) -> str:
    """A fingerprint as people compare it: its first 64 bits, in fours."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, 16, 4))


def to_der(certificate: bytes) -> bytes:
    """A PEM certificate of ours as DER. Raises IdentityError for anything else."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        return parsed.public_bytes(serialization.Encoding.DER)
    except UNREADABLE as error:
        raise IdentityError(f"not a certificate: {error}") from None


def from_der(der: bytes) -> bytes:
    """A stranger's certificate as PEM, once it is known to be made as ours are.

    Raises IdentityError for one that is too long, of another key type, signed by another, or
    allowed to sign others.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError(f"a certificate of {len(der)} bytes: {MAX_CERTIFICATE_BYTES} at most")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _check(certificate)
    except UNREADABLE as error:
        raise IdentityError(f"not a certificate of a device's: {error}") from None
    return certificate.public_bytes(serialization.Encoding.PEM)


def checked_name(name: str) -> str:
    """A name that people can read and type, in its normal form. Raises ValueError for another."""
    # First: the normal form of a short name may be a long one.
    name = unicodedata.normalize("NFC", name)
    if not 0 < len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES or name != name.strip():
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes and no spaces round it")
    if not name.isprintable() or name[0] in "-.":
        raise ValueError(f"a name is printable and begins with neither - nor a dot, not {name!r}")
    return name


def _self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    # Two devices of one name are two subjects, so that none is looked up in place of the other.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8)),
        ]
    )
    use = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(subject, subject, key.public_key())
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(use, critical=True)
        .add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
        .sign(key, hashes.SHA256())
    )


def _check(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("its key is not on P-256")
    if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("it may sign others")
    certificate.verify_directly_issued_by(certificate)


def _parsed(path: Path, data: bytes) -> Identity:
    advice = f"{path} is not an identity of ours; delete it to get a new one, then pair again"
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
        _check(certificate)
    except UNREADABLE as error:
        raise IdentityError(f"{advice} ({error})") from None
    if key.public_key() != certificate.public_key():
        raise IdentityError(f"{advice} (its key and its certificate are not of one piece)")
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM), secret)

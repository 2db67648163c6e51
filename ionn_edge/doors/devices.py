"""Who is paired with this box: identities, names and tokens' digests, in one private file.

What the file says is what holds: certificates are trusted in handshakes because they are in it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pairing.identity import IdentityError, checked_name, fingerprint_of, to_der
from pairing.private import MAX_BYTES, StateError, read_private, write_private

FILE = "devices.json"
_FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Of an id, at least so much names a device.
LEAST_ID_CHARS = 6


class RegistryError(Exception):
    """What is known of paired devices cannot be read or kept."""


@dataclass(frozen=True, slots=True)
class Device:
    """A client that the box knows. id: hex SHA-256 of its certificate. name: for people."""

    id: str
    name: str


# Everybody, on a box that is unpaired.
LOOPBACK = Device("loopback", "this machine")


@dataclass(frozen=True, slots=True)
class Paired:
    """What the box keeps of a device. certificate: PEM. Times are seconds since 1970.

    seen_at: when it last connected or left; None if it never has.
    """

    device: Device
    certificate: bytes
    token_digest: str
    paired_at: float
    seen_at: float | None = None


class Registry:
    """The paired devices, in memory and in a file. unkept: when devices were seen is not there yet.

    Who is added or removed is so in the file before the call returns.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._paired: dict[str, Paired] = {}
        self._writing = asyncio.Lock()
        self._turn = threading.Lock()
        self._keeps = self._kept = 0
        self.unkept = False

    def open(self) -> None:
        """Read the file, if there is one. Raises RegistryError if it is not what was written."""
        try:
            data = read_private(self.path)
        except StateError as error:
            raise RegistryError(str(error)) from error
        if data is None:
            return
        try:
            self._paired = _decoded(data)
        except (ValueError, KeyError, TypeError, RecursionError, IdentityError) as error:
            raise RegistryError(
                f"{self.path} is damaged ({error}). Restore it from a backup, or delete it: then"
                " no device is paired, and each must pair again"
            ) from error

    def get(self, device: str) -> Paired | None:
        """What is known of the device with this id."""
        return self._paired.get(device)

    def all(self) -> list[Paired]:
        """In the order of pairing."""
        return sorted(self._paired.values(), key=lambda paired: paired.paired_at)

    def find(self, what: str) -> list[Paired]:
        """The one whose id it is; else those whose name it is, and those whose id begins so.

        A device names itself: its name must not hide another's id.
        """
        exact = self.get(what.lower())
        if exact is not None:
            return [exact]
        start = what.lower() if len(what) >= LEAST_ID_CHARS else None
        return [
            paired
            for paired in self.all()
            if paired.device.name == what or (start and paired.device.id.startswith(start))
        ]

    async def add(self, paired: Paired) -> None:
        """Know a device from now on, under this name and token only. Raises RegistryError."""
        before = self._paired.get(paired.device.id)
        self._paired[paired.device.id] = paired
        try:
            await self.keep()
        except BaseException:
            self._restore(paired, before)
            raise

    def _restore(self, failed: Paired, before: Paired | None) -> None:
        device = failed.device.id
        now = self._paired.get(device)
        if now is None or now.token_digest != failed.token_digest:
            return  # It was removed meanwhile, which holds.
        if before is None:
            self._paired.pop(device, None)
        else:
            self._paired[device] = before

    async def remove(self, device: str) -> None:
        """Know it no more. Raises RegistryError if the file still does; this process does not."""
        if self._paired.pop(device, None) is not None:
            await self.keep()

    def seen(self, device: str, now: float) -> None:
        """It connected or left. In memory only: see `unkept`."""
        paired = self._paired.get(device)
        if paired is not None:
            self._paired[device] = replace(paired, seen_at=now)
            self.unkept = True

    async def keep(self) -> None:
        """Write what is known now. Raises RegistryError."""
        async with self._writing:
            data, self.unkept = _encoded(self.all()), False
            if len(data) > MAX_BYTES:
                raise RegistryError(f"{self.path} would be too long: unpair who does not come")
            self._keeps += 1
            try:
                await asyncio.to_thread(self._write, data, self._keeps)
            except StateError as error:
                # Whoever was removed is still in the file: the next time may go better.
                self.unkept = True
                raise RegistryError(str(error)) from error

    def _write(self, data: bytes, number: int) -> None:
        # In a thread, which goes on where who waits for it is cancelled: what it has is older
        # than what is written next, and must not come after it.
        with self._turn:
            if number > self._kept:
                write_private(self.path, data)
                self._kept = number


def _encoded(known: list[Paired]) -> bytes:
    rows = [
        {
            "id": paired.device.id,
            "name": paired.device.name,
            "certificate": paired.certificate.decode(),
            "token_digest": paired.token_digest,
            "paired_at": paired.paired_at,
            "seen_at": paired.seen_at,
        }
        for paired in known
    ]
    return json.dumps({"format": _FORMAT, "devices": rows}, indent=1).encode() + b"\n"


def _decoded(data: bytes) -> dict[str, Paired]:
    plain = json.loads(data)
    if type(plain) is not dict or plain.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT}")
    known = [_row(row) for row in plain["devices"]]
    found = {paired.device.id: paired for paired in known}
    if len(found) != len(known):
        raise ValueError("a device is in it twice")
    return found


def _row(row: dict[str, Any]) -> Paired:
    certificate, name = row["certificate"], row["name"]
    if any(type(row[key]) is not str for key in ("id", "name", "certificate", "token_digest")):
        raise ValueError("something that is text is not")
    if checked_name(name) != name:
        raise ValueError("a name is not in its normal form")
    if fingerprint_of(to_der(certificate.encode())) != row["id"]:
        raise ValueError(f"the certificate of {row['id'][:12]!r} is another one's")
    if _DIGEST.fullmatch(row["token_digest"]) is None:
        raise ValueError("a token's digest is not 64 hexadecimal digits")
    seen_at = row["seen_at"]
    return Paired(
        Device(row["id"], name),
        certificate.encode(),
        row["token_digest"],
        _time(row["paired_at"]),
        None if seen_at is None else _time(seen_at),
    )


def _time(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:  # type: ignore[operator]
        raise ValueError("a time is not one")
    return float(value)  # type: ignore[arg-type]

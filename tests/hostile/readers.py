"""Files that somebody else may have written, and what reads them: files/KIND/NAME.

A reader is given a directory of its own with the file in it, under the name that it goes by. It
returns None where the file is taken for none, or raises the error that says what is wrong; any
other error, and whatever else it returns, is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ionn_client.boxes.known_boxes import FILE as BOXES
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.errors import PairingError
from ionn_client.reports.schedule_file import cached_schedules
from ionn_edge.calibration.calibrate import _read as read_calibration
from ionn_edge.doors.devices import FILE as DEVICES
from ionn_edge.doors.devices import Registry, RegistryError
from pairing.identity import FILE as IDENTITY
from pairing.identity import Identity, IdentityError
from planner import LayerCosts, Link
from planner.objective import Objective

DIRECTORY = Path(__file__).parent / "files"


@dataclass(frozen=True, slots=True)
class Reader:
    """name: of the file, where `read` looks for it. error: what it may raise."""

    name: str
    read: Callable[[Path], object]
    error: type[Exception]


def _schedules(directory: Path) -> object:
    costs = LayerCosts((1.0, 1.0), (0.1, 0.1), (10, 10), (10, 10, 10), (10, 10, 10))
    return cached_schedules(
        directory / "schedules.json", costs, Link(1e6, 1e6, 0.01), 1.0, Objective()
    )


def _registry(directory: Path) -> object:
    registry = Registry(directory)
    registry.open()
    return registry.all() or None


READERS = {
    "calibration": Reader(
        "calibration.json", lambda at: read_calibration(at / "calibration.json"), ValueError
    ),
    "schedules": Reader("schedules.json", _schedules, ValueError),
    "devices": Reader(DEVICES, _registry, RegistryError),
    "known_boxes": Reader(BOXES, lambda at: KnownBoxes(at).all() or None, PairingError),
    "identity": Reader(IDENTITY, lambda at: Identity.load(at, "me"), IdentityError),
}


def refusal(kind: str, data: bytes, directory: Path) -> str:
    """Why the file is not believed, "" where it is taken for none. AssertionError if it is."""
    reader = READERS[kind]
    path = directory / reader.name
    path.write_bytes(data)
    path.chmod(0o600)
    directory.chmod(0o700)
    try:
        read = reader.read(directory)
    except reader.error as error:
        return str(error)
    assert read is None, f"{read!r} was read"
    return ""

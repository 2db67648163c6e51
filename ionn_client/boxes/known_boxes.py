"""The boxes that this device is paired with: what each is called, where it was, and who it is.

One private file, `known_boxes.json`, in the client's state directory beside the device's identity.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ionn_client.boxes.address import EdgeAddress
from ionn_client.errors import PairingError
from pairing.directories import state_of
from pairing.identity import IdentityError, checked_name, fingerprint_of, from_der, to_der
from pairing.private import StateError, locked, read_private, write_private

FILE = "known_boxes.json"
FORMAT = 1
MAX_TEXT = 4096
YEAR_10000_S = 253_402_300_800


def default_state() -> Path:
    """Where identity and pairings live: $XDG_STATE_HOME/ionn/client, or under ~/.local/state.

    Raises ValueError for a user who has no home directory.
    """
    return state_of("client")


@dataclass(frozen=True, slots=True)
class KnownBox:
    """One box. Raises ValueError if a field is not what it should be.

    name: what people call it here. address: where it last was, "ionn://host:port".
    certificate: PEM, the pin. token: what it gave this device. paired_at_s: seconds since 1970,
    by this device's clock. confirmed: False while it is not known whether the box kept its half;
    former_token is then what held before, if anything did. quarantined: why it is not used any
    more, None if it is; on probation, why it was not before.
    """

    name: str
    address: str
    certificate: str
    token: str = field(repr=False)
    paired_at_s: float
    confirmed: bool = False
    quarantined: str | None = None
    former_token: str | None = field(repr=False, default=None)
    fingerprint: str = field(init=False, default="")

    def __post_init__(self) -> None:
        texts = (self.address, self.certificate, self.token, self.quarantined or "",
                 self.former_token or "t")  # fmt: skip
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
            raise ValueError("a text is missing, or is none")
        if not isinstance(self.name, str) or checked_name(self.name) != self.name:
            raise ValueError("a name is not in its usual form")
        EdgeAddress.parse(self.address)
        if type(self.confirmed) is not bool or not isinstance(self.paired_at_s, (int, float)):
            raise ValueError("a field has another type")
        if not 0 <= self.paired_at_s < YEAR_10000_S or not all(
            token and token.isascii() and token.isprintable()
            for token in (self.token, self.former_token or "t")
        ):
            raise ValueError("a time or a token is none")
        der = to_der(from_der(to_der(self.certificate.encode())))
        object.__setattr__(self, "fingerprint", fingerprint_of(der))


class KnownBoxes:
    """Reads the file anew each time, and changes it under a lock: several programs share it.

    Everything here raises PairingError if the file cannot be believed or written.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = default_state() if directory is None else directory

    def all(self) -> list[KnownBox]:
        """By name."""
        with _told():
            return self._read()

    def find(self, what: str) -> KnownBox | None:
        """The box of that name, or else the one paired last at that address."""
        boxes = self.all()
        for box in boxes:
            if box.name == what:
                return box
        try:
            address = str(EdgeAddress.parse(what))
        except ValueError:
            return None
        there = [box for box in boxes if box.address == address]
        return max(there, key=lambda box: box.paired_at_s, default=None)

    def near(self, what: str) -> str:
        """ " (did you mean NAME?)", or "" where no name here comes close."""
        found = difflib.get_close_matches(what, [box.name for box in self.all()], 1)
        return f" (did you mean {found[0]}?)" if found else ""

    def get(self, fingerprint: str) -> KnownBox | None:
        return next((box for box in self.all() if box.fingerprint == fingerprint), None)

    def add(self, box: KnownBox) -> KnownBox:
        """Keep it, in place of what was known of this very box; the name may get a number.

        A box never takes the place of another one, whatever it calls itself.
        """

        def with_it(boxes: list[KnownBox]) -> list[KnownBox]:
            nonlocal box
            others = [other for other in boxes if other.fingerprint != box.fingerprint]
            known = next((other for other in boxes if other.fingerprint == box.fingerprint), None)
            former = lied = None
            if known is not None and not box.confirmed:
                former = known.token if known.confirmed else known.former_token
                lied = known.quarantined
            name = _free(box.name, {other.name for other in others})
            box = replace(box, name=name, former_token=former, quarantined=box.quarantined or lied)
            return [*others, box]

        self._change(with_it)
        return box

    def remove(self, fingerprint: str) -> None:
        self._change(lambda boxes: [box for box in boxes if box.fingerprint != fingerprint])

    def confirm(self, box: KnownBox) -> None:
        """The box has shown that it kept its half: what was before is over.

        Where another program has begun to pair anew since, it is what holds if that fails.
        """

        def kept(known: KnownBox) -> KnownBox:
            if known.fingerprint != box.fingerprint:
                return known
            if known.token == box.token:
                return replace(known, confirmed=True, former_token=None, quarantined=None)
            return known if known.confirmed else replace(known, former_token=box.token)

        self._change(lambda boxes: map(kept, boxes))

    def refuse(self, box: KnownBox) -> None:
        """The box has shown that it did not: what held before holds again, if anything did.

        What another program has got since is not touched.
        """

        def without(boxes: list[KnownBox]) -> Iterable[KnownBox]:
            for known in boxes:
                its = known.fingerprint == box.fingerprint and known.token == box.token
                if not its or known.confirmed:
                    yield known
                elif known.former_token is not None:
                    yield replace(
                        known, token=known.former_token, former_token=None, confirmed=True
                    )

        self._change(without)

    def quarantine(self, fingerprint: str, why: str) -> None:
        """Use this box no more, until it is paired anew."""
        self._update(fingerprint, quarantined=why[:MAX_TEXT])

    def moved(self, fingerprint: str, address: str) -> None:
        """It was seen at another address, and proved who it is."""
        self._update(fingerprint, address=address)

    def _update(self, fingerprint: str, **fields: Any) -> None:
        self._change(
            lambda boxes: [
                replace(box, **fields) if box.fingerprint == fingerprint else box for box in boxes
            ]
        )

    def _change(self, changed: Callable[[list[KnownBox]], Iterable[KnownBox]]) -> None:
        with _told(), locked(self.directory):
            boxes = sorted(changed(self._read()), key=lambda box: box.name)
            plain = {"format": FORMAT, "boxes": [_plain(box) for box in boxes]}
            text = json.dumps(plain, indent=1, ensure_ascii=False)
            write_private(self.directory / FILE, text.encode())

    def _read(self) -> list[KnownBox]:
        path = self.directory / FILE
        data = read_private(path)
        if data is None:
            return []
        try:
            return _boxes(json.loads(data.decode()))
        except (ValueError, TypeError, RecursionError, IdentityError) as error:
            raise StateError(
                f"{path} is damaged ({error}). Restore it from a backup, or delete it and pair anew"
            ) from None


def described(box: KnownBox) -> dict[str, Any]:
    """What others may know of a box: everything but the token."""
    return {
        "name": box.name,
        "address": box.address,
        "fingerprint": box.fingerprint,
        "paired_at_s": box.paired_at_s,
        "confirmed": box.confirmed,
        "quarantined": box.quarantined,
    }


def _plain(box: KnownBox) -> dict[str, Any]:
    plain = asdict(box)
    del plain["fingerprint"]
    return plain


def _boxes(plain: Any) -> list[KnownBox]:
    if not isinstance(plain, dict) or set(plain) != {"format", "boxes"}:
        raise ValueError("it is of another kind")
    if plain["format"] != FORMAT:
        raise ValueError("a newer version of this program wrote it")
    if not isinstance(plain["boxes"], list):
        raise ValueError("its boxes are no list")
    boxes = [KnownBox(**box) for box in plain["boxes"]]
    if len({box.name for box in boxes}) < len(boxes):
        raise ValueError("two boxes have one name")
    return sorted(boxes, key=lambda box: box.name)


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    stem = name.encode()[:56].decode(errors="ignore")
    return next(
        numbered for n in range(2, len(taken) + 3) if (numbered := f"{stem}-{n}") not in taken
    )


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except StateError as error:
        raise PairingError(str(error)) from error

"""Looks what is wrong between this device and its boxes, and says what to do about it.

Changes nothing, pairs with nobody, and believes nothing that a box says of itself but what is
checked here.
"""

from __future__ import annotations

import asyncio
import os
import stat
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ionn_client.boxes.access import Access, TurnedAway
from ionn_client.boxes.connection import cause
from ionn_client.boxes.inquiry import TIMEOUT_S, TROUBLES, Inquiry, about, described, inquiring
from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.errors import EdgeRejected, PairingError
from pairing.identity import FILE, Identity, short
from pairing.private import StateError
from wire import (
    OLDEST_VERSION,
    VERSION,
    RemoteProtocolError,
    messages,
    printable,
    reason,
    version_span,
)

PINGS = 5
MAX_TEXT = 200
# Of the quota: soon something has to go.
NEARLY_FULL = 0.95
# Seconds since 1970 of 2024: this program is younger.
OLDEST_CLOCK_S = 1_704_067_200.0
# More than two quartz clocks differ by.
MAX_DRIFT_S = 0.005
State = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. box: whose, None for this device's own.

    state: "ok", "note" (worth knowing) or "bad" (it will not work so). advice: what to do, or "".
    """

    box: str | None
    what: str
    state: State
    text: str
    advice: str = ""


async def examine(edge: str | None = None, state: Path | None = None) -> list[Finding]:
    """This device, and the box `edge`, or all that it knows. Never raises for what it finds."""
    known = KnownBoxes(state)
    findings = [_state_directory(known.directory), *_identity(known.directory), _clock()]
    boxes: list[KnownBox] = []
    try:
        boxes = await asyncio.to_thread(known.all)
    except PairingError as error:
        findings.append(Finding(None, "known boxes", "bad", _plain(error)))
    else:
        findings.append(_known(boxes))
    edges = [box.name for box in boxes] if edge is None else [edge]
    examined = await asyncio.gather(*(examine_box(name, state) for name in edges))
    return findings + [finding for each in examined for finding in each]


# This device.


def _state_directory(directory: Path) -> Finding:
    what = "state directory"
    try:
        status = directory.stat()
    except FileNotFoundError:
        text = f"{directory} is not there yet"
        above = next(parent for parent in directory.absolute().parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            advice = f"make {above} writable for you, or give --state"
            return Finding(None, what, "bad", f"{text}, and cannot be made", advice)
        return Finding(None, what, "note", text, "nothing: the first pairing makes it")
    except OSError as error:
        text = f"{directory}: {reason(error)}"
        return Finding(None, what, "bad", text, "make it readable for you, or give --state")
    if not stat.S_ISDIR(status.st_mode):
        return Finding(None, what, "bad", f"{directory} is no directory", "move it out of the way")
    if status.st_mode & 0o077:
        text = f"{directory} is open to other users (mode {stat.S_IMODE(status.st_mode):o})"
        return Finding(None, what, "bad", text, f"chmod 700 {directory}")
    return Finding(None, what, "ok", str(directory))


def _identity(directory: Path) -> list[Finding]:
    what = "identity"
    try:
        if not (directory / FILE).exists():
            text = "this device has none yet"
            return [Finding(None, what, "note", text, "nothing: the first pairing makes it")]
        identity = Identity.load(directory, "ionn device")
    except (StateError, OSError) as error:
        return [Finding(None, what, "bad", _plain(error))]
    return [Finding(None, what, "ok", short(identity.fingerprint))]


def _clock() -> Finding:
    now = time.time()
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
    if now < OLDEST_CLOCK_S:
        text = f"it is {day} here, which cannot be"
        return Finding(None, "clock", "note", text, "set it: pairings do not need it, logs do")
    return Finding(None, "clock", "ok", f"{day} UTC")


def _known(boxes: list[KnownBox]) -> Finding:
    if not boxes:
        advice = "ionn discover, then ionn pair NAME"
        return Finding(None, "known boxes", "note", "none", advice)
    return Finding(None, "known boxes", "ok", ", ".join(box.name for box in boxes))


# A box.


async def examine_box(edge: str, state: Path | None = None) -> list[Finding]:
    """From the nearest to the farthest; what cannot be reached is not looked at."""
    try:
        access = await asyncio.to_thread(Access.to, edge, state)
        # So that nothing which is found out here is remembered.
        access = replace(access, boxes=None)
        findings = _trusted(edge, access)
    except (PairingError, ValueError) as error:
        return [Finding(edge, "trust", "bad", _plain(error))]
    reached = await _reached(edge, access)
    findings.append(reached)
    if reached.state == "bad":
        return findings
    findings += await _described(edge, access)
    told = {finding.text for finding in findings}
    findings += [each for each in await _conversed(edge, access) if each.text not in told]
    return findings


def _trusted(edge: str, access: Access) -> list[Finding]:
    box = access.box
    if box is None:
        text = f"{access.address} is on this machine, and used unpaired"
        return [Finding(edge, "trust", "ok", text)]
    findings = []
    if box.quarantined is not None:
        advice = f"see what is wrong there; then `ionn devices forget {box.name}` and pair again"
        findings.append(Finding(edge, "quarantine", "bad", _plain(box.quarantined), advice))
    if box.paired_at_s > time.time() + 86400:
        findings.append(Finding(edge, "clock", "note", "it was paired in the future", "set it"))
    if not box.confirmed:
        text = "the box has not confirmed the pairing yet"
        return [*findings, Finding(edge, "trust", "note", text, "nothing: a connection will tell")]
    return [*findings, Finding(edge, "trust", "ok", f"paired, pin {short(box.fingerprint)}")]


async def _reached(edge: str, access: Access) -> Finding:
    address, began = access.address, time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError, ValueError) as error:
        text = f"nobody answers at {address}: {cause(error)}"
        advice = (
            "is it on, in the same network, and running `ionn edge serve`? Has it moved:"
            " `ionn discover`"
        )
        return Finding(edge, "reach", "bad", text, advice)
    writer.close()
    milliseconds = 1000 * (time.monotonic() - began)
    return Finding(edge, "reach", "ok", f"{address} takes connections in {milliseconds:.1f} ms")


async def _described(edge: str, access: Access) -> list[Finding]:
    what = "TLS" if access.box is not None else "box"
    try:
        told = await described(access)
    except TROUBLES as error:
        return [await _failed(edge, what, access, error)]
    findings = []
    if access.box is not None:
        findings.append(
            Finding(edge, what, "ok", "encrypted, and the certificate is the pinned one")
        )
    name, agent = (_plain(told.get(key))[:MAX_TEXT] for key in ("name", "agent"))
    findings.append(Finding(edge, "box", "ok", f"{name!r}, {agent}"))
    findings.append(_versions(edge, told.get("protocol")))
    return findings


def _versions(edge: str, protocol: Any) -> Finding:
    what, ours = "protocol", f"this device speaks {version_span(OLDEST_VERSION, VERSION)}"
    try:
        oldest, newest = protocol["oldest"], protocol["newest"]
        if not (type(oldest) is int and type(newest) is int and 0 < oldest <= newest < 1 << 16):
            raise ValueError
    except (TypeError, KeyError, ValueError):
        return Finding(edge, what, "bad", "the box does not say which versions it speaks")
    text = f"the box speaks {version_span(oldest, newest)}, {ours}"
    if newest < OLDEST_VERSION:
        return Finding(edge, what, "bad", text, "update the box")
    if oldest > VERSION:
        return Finding(edge, what, "bad", text, "update this device")
    return Finding(edge, what, "ok", text)


async def _conversed(edge: str, access: Access) -> list[Finding]:
    what = "access"
    findings = []
    try:
        async with inquiring(access) as inquiry:
            welcome = await inquiry.greet("ionn-doctor")
            text = f"it serves this device, on {welcome.device} with {welcome.threads} threads"
            findings.append(Finding(edge, what, "ok", text))
            what = "quota"
            findings.append(_quota(edge, await inquiry.ask(messages.GetLoad(), messages.Load)))
            what = "round trip"
            times = [await _ping(inquiry, token) for token in range(PINGS)]
    except TROUBLES as error:
        return [*findings, await _failed(edge, what, access, error)]
    trips = [heard - sent for sent, heard, _ in times]
    text = f"{1000 * statistics.median(trips):.1f} ms (least {1000 * min(trips):.1f} ms)"
    findings += [Finding(edge, what, "ok", text), _drift(edge, times)]
    return [*findings, *await _told_isolation(edge, access)]


def _quota(edge: str, load: messages.Load) -> Finding:
    used, limit = load.used_bytes, load.memory_bytes
    text = f"{used / 1e6:.0f} of {limit / 1e6:.0f} MB that the box keeps for this device are used"
    if used > NEARLY_FULL * limit:
        advice = f"nothing, or `ionn forget {edge}`: weights that are longest unused go first"
        return Finding(edge, "quota", "note", text, advice)
    return Finding(edge, "quota", "ok", text)


async def _told_isolation(edge: str, access: Access) -> list[Finding]:
    what = "isolation"
    try:
        told = await about(access)
    except TROUBLES as error:
        return [await _failed(edge, what, access, error)]
    return [_isolation(edge, None if told is None else told.get("isolation"))]


def _isolation(edge: str, told: Any) -> Finding:
    """How apart the box keeps what its devices run, as it says itself: this cannot be checked."""
    what = "isolation"
    try:
        holds, fails = (tuple(told[key]) for key in ("holds", "fails"))
        if not all(isinstance(each, str) and each for each in holds + fails):
            raise TypeError
    except (TypeError, KeyError):
        text = "the box does not say what it keeps workers from"
        return Finding(edge, what, "note", text, "update the box, if it is an old one")
    if not fails:
        return Finding(edge, what, "ok", f"strong, it says: {_listed(holds)}")
    text = f"weak, it says: another device's model could get past {_listed(fails)}"
    advice = "use it if you trust all who use it; docs/security.md says what it takes"
    return Finding(edge, what, "note", text, advice)


def _listed(what: tuple[str, ...]) -> str:
    return _plain(", ".join(what))[:MAX_TEXT] or "nothing"


async def _ping(inquiry: Inquiry, token: int) -> tuple[float, float, float]:
    """When it was sent and answered by our clock, and answered by the box's."""
    sent = time.monotonic()
    pong = await inquiry.ask(messages.Ping(token), messages.Pong)
    if pong.token != token:
        raise RemoteProtocolError("it answers another ping than was sent")
    return sent, time.monotonic(), pong.clock_s


def _drift(edge: str, times: list[tuple[float, float, float]]) -> Finding:
    """Between two pongs no more time can have passed there than here, or less than none."""
    what = "box's clock"
    (sent, _, first), (_, heard, last) = times[0], times[-1]
    if not -MAX_DRIFT_S <= last - first <= heard - sent + MAX_DRIFT_S:
        text = f"it counted {last - first:.3f} s while {heard - sent:.3f} s passed here"
        return Finding(edge, what, "note", text, "nothing: the link is measured without it")
    return Finding(edge, what, "ok", "it counts as this device's does")


async def _failed(edge: str, what: str, access: Access, error: BaseException) -> Finding:
    told = None
    if not isinstance(error, RemoteProtocolError | EdgeRejected | TimeoutError):
        told = await access.explained(error)
    if isinstance(told, PairingError | TurnedAway):
        return Finding(edge, what, "bad", _plain(told))
    text = _plain(told or cause(error))
    return Finding(edge, what, "bad", text, "look at the box: `ionn edge` there says more")


def _plain(text: object) -> str:
    """On one line, without what terminals obey: it may be a stranger's."""
    return printable(str(text), "\N{REPLACEMENT CHARACTER}")

"""`ionn doctor`: what it finds, and what it makes of boxes that are none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from ionn_client import cli
from ionn_client.boxes import doctor, inquiry
from ionn_client.boxes.access import Access
from ionn_client.boxes.doctor import Finding, examine, examine_box
from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.errors import EdgeQuarantined
from ionn_client.processes import EdgeProcess
from pairing.identity import Identity
from wire import Encoder, messages

NOWHERE = "127.0.0.1:9"
EDGE = {"what": "an IONN edge box", "agent": "ionn 1", "name": "hall",
        "protocol": {"oldest": 2, "newest": 2}}  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def found(findings: list[Finding], what: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.what == what]
    return finding


def box(**changes: Any) -> KnownBox:
    certificate = Identity.create("hall").certificate.decode()
    known = KnownBox("hall", f"ionn://{NOWHERE}", certificate, "secret-token", time.time(), True)
    return replace(known, **changes)


async def test_an_edge_that_is_well_has_nothing_bad(edge: EdgeProcess, tmp_path: Path) -> None:
    findings = await examine(edge.address, tmp_path)
    assert [f for f in findings if f.state == "bad"] == []
    seen = {finding.what for finding in findings if finding.box is not None}
    assert seen == {
        *("trust", "reach", "box", "protocol", "access", "quota", "round trip", "box's clock"),
        "isolation",
    }
    assert " ms" in found(findings, "round trip").text
    assert "of 4295 MB" in found(findings, "quota").text
    isolation, told = found(findings, "isolation"), edge.banner["isolation"]
    assert isolation.state == ("note" if told["fails"] else "ok")
    assert all(each in isolation.text for each in told["fails"] or told["holds"])


async def test_an_edge_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    findings = await examine(NOWHERE, tmp_path)
    reach = found(findings, "reach")
    assert reach.state == "bad"
    assert "connection refused" in reach.text
    assert "ionn edge serve" in reach.advice


async def test_a_state_directory_that_cannot_be_made_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # Root may all.
    state = found(await examine(None, tmp_path / "a" / "b"), "state directory")
    assert state.state == "bad"
    assert str(tmp_path) in state.advice


async def test_what_is_wrong_twice_is_told_once(edge: EdgeProcess, tmp_path: Path) -> None:
    Identity.load(tmp_path, "ionn device")
    KnownBoxes(tmp_path).add(box(address=f"ionn://{edge.address.removeprefix('ionn://')}"))
    findings = await examine("hall", tmp_path)
    (told,) = [finding for finding in findings if finding.state == "bad"]
    assert told.what == "TLS"


async def test_a_box_elsewhere_that_is_not_known_is_told_how_to_pair(tmp_path: Path) -> None:
    (trust,) = await examine_box("ionn://192.0.2.1:7431", tmp_path)
    assert (trust.what, trust.state) == ("trust", "bad")
    assert "ionn pair" in trust.text


@pytest.mark.parametrize("edge", ["", "ionn://", "http://x", "a b", "\x1b[31m"])
async def test_what_is_no_address_is_one_finding(edge: str, tmp_path: Path) -> None:
    (finding,) = await examine_box(edge, tmp_path)
    assert finding.state == "bad"
    assert finding.text.isprintable()


async def test_this_devices_own_state_is_looked_at(tmp_path: Path) -> None:
    state = tmp_path / "state"
    findings = await examine(None, state)
    assert found(findings, "state directory").state == "note"
    assert found(findings, "identity").state == "note"
    Identity.load(state, "ionn device")
    KnownBoxes(state).add(box(quarantined="the edge gave wrong answers"))
    KnownBoxes(state).add(box(name="lab", paired_at_s=time.time() + 1e6, confirmed=False))
    findings = await examine(None, state)
    assert found(findings, "identity").state == "ok"
    assert found(findings, "known boxes").text == "hall, lab"
    quarantine = found(findings, "quarantine")
    assert (quarantine.box, quarantine.state) == ("hall", "bad")
    assert "forget hall" in quarantine.advice
    assert [f.box for f in findings if f.text == "it was paired in the future"] == ["lab"]
    assert "secret-token" not in repr(findings)


def test_a_verdict_is_kept_with_the_pairing_until_the_box_is_forgotten(tmp_path: Path) -> None:
    Identity.load(tmp_path, "ionn device")
    KnownBoxes(tmp_path).add(box())
    access = Access.to("hall", tmp_path)
    access.check_usable()
    access.quarantine("the edge gave wrong answers")
    with pytest.raises(EdgeQuarantined, match=r"wrong answers.*ionn devices forget hall"):
        Access.to("hall", tmp_path).check_usable()
    # Of an unpaired edge nothing is remembered.
    Access.to(NOWHERE.replace("127.0.0.1", "localhost"), tmp_path).quarantine("likewise")
    assert [known.name for known in KnownBoxes(tmp_path).all()] == ["hall"]


async def test_state_that_others_can_read_or_that_is_damaged_is_bad(tmp_path: Path) -> None:
    state = tmp_path / "state"
    Identity.load(state, "ionn device")
    state.chmod(0o755)
    (state / "known_boxes.json").write_text("{")
    (state / "identity.pem").chmod(0o644)
    findings = await examine(None, state)
    for what in ("state directory", "identity", "known boxes"):
        assert found(findings, what).state == "bad"
    assert "chmod 700" in found(findings, "state directory").advice


async def test_a_clock_of_1970_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 100.0)
    finding = found(await examine(None, tmp_path), "clock")
    assert (finding.state, "1970" in finding.text) == ("note", True)


# Boxes that are none.


@asynccontextmanager
async def server(describe: Handler, converse: Handler | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", describe)
    app.router.add_get("/ionn", converse or describe)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def says(body: bytes, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    return answer


def as_json(**changes: Any) -> bytes:
    return json.dumps({**EDGE, **changes}).encode()


@pytest.mark.parametrize(
    "handler",
    [
        says(b"hello"),
        says(b"[" * 60_000),
        says(b"null"),
        says(as_json(what="a printer")),
        says(b"x" * (2 << 20)),
        says(b"\xff\xfe\x00"),
        says(as_json(), status=500),
    ],
    ids=["text", "deep", "null", "a printer", "endless", "junk", "500"],
)
async def test_a_server_that_is_no_edge_is_bad_and_no_more(
    handler: Handler, tmp_path: Path
) -> None:
    async with server(handler) as address:
        findings = await examine_box(address, tmp_path)
    assert found(findings, "box").state == "bad"
    assert found(findings, "access").state == "bad"
    assert all(finding.text.isprintable() for finding in findings)


@pytest.mark.parametrize(
    ("protocol", "advice"),
    [
        ({"oldest": 7, "newest": 9}, "update this device"),
        ({"oldest": 1, "newest": 1}, "update the box"),
        ({"oldest": 9, "newest": 7}, ""),
        ({"oldest": True, "newest": True}, ""),
        ({"oldest": 2, "newest": 10**50}, ""),
        ({}, ""), (None, ""), ([2, 2], ""), ("2", ""),
    ],
)  # fmt: skip
async def test_versions_that_do_not_meet_say_who_is_to_be_updated(
    protocol: Any, advice: str, tmp_path: Path
) -> None:
    async with server(says(as_json(protocol=protocol))) as address:
        finding = found(await examine_box(address, tmp_path), "protocol")
    assert (finding.state, finding.advice) == ("bad", advice)


@pytest.mark.parametrize(
    ("newest", "said"), [(2, "the box speaks version 2,"), (3, "the box speaks versions 2 to 3,")]
)
async def test_versions_that_meet_are_told(newest: int, said: str, tmp_path: Path) -> None:
    protocol = {"oldest": 2, "newest": newest}
    async with server(says(as_json(protocol=protocol))) as address:
        finding = found(await examine_box(address, tmp_path), "protocol")
    assert finding.state == "ok"
    assert finding.text.startswith(said)


async def test_names_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[2J\nhall" + 1000 * "x"
    async with server(says(as_json(name=name, agent={"a": 1}))) as address:
        finding = found(await examine_box(address, tmp_path), "box")
    assert finding.text.isprintable()
    assert len(finding.text) < 500


def conversation(*frames: bytes, then: str = "close") -> Handler:
    async def converse(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.receive()
        for frame in frames:
            await socket.send_bytes(frame)
        if then == "wait":
            async for _ in socket:
                pass
        return socket

    return converse


def frames(*said: messages.Message) -> list[bytes]:
    return [bytes(frame) for message in said for frame in Encoder().encode(message)]


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (conversation(), "ends the conversation"),
        (conversation(b"\xff\xff"), "short list"),
        (conversation(*frames(messages.Pong(1, 1.0))), "it answers Pong"),
        (conversation(*frames(messages.Error("overloaded", "full"))), "full"),
        (conversation(then="wait"), "no answer"),
    ],
    ids=["silent", "junk", "another", "refusing", "endless"],
)
async def test_a_conversation_that_is_none_is_bad(
    handler: Handler, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text == "no answer":
        monkeypatch.setattr(inquiry, "TIMEOUT_S", 0.5)
    async with server(says(as_json()), handler) as address:
        finding = found(await examine_box(address, tmp_path), "access")
    assert finding.state == "bad"
    assert text in finding.text


@pytest.mark.parametrize(
    ("told", "state", "text"),
    [
        ({"holds": ["no network"], "fails": []}, "ok", "strong, it says: no network"),
        ({"holds": [], "fails": ["no network (netlink)"]}, "note", "no network (netlink)"),
        ({"holds": ["\x1b[2J" + 9999 * "x"], "fails": []}, "ok", "strong"),
        (None, "note", "does not say"),
        ({}, "note", "does not say"),
        ({"holds": "no network", "fails": 7}, "note", "does not say"),
        ({"holds": [{}], "fails": [[]]}, "note", "does not say"),
        ([], "note", "does not say"),
    ],
)
def test_what_a_box_says_of_its_isolation_is_told_and_not_believed(
    told: object, state: str, text: str
) -> None:
    finding = doctor._isolation("hall", told)
    assert (finding.what, finding.state) == ("isolation", state)
    assert text in finding.text
    assert finding.text.isprintable()
    assert len(finding.text) < 400


async def test_an_edge_without_the_question_does_not_say(tmp_path: Path) -> None:
    async with server(says(as_json())) as address:
        (isolation,) = await doctor._told_isolation(address, Access.to(address, tmp_path))
    assert (isolation.state, isolation.advice[:14]) == ("note", "update the box")


@pytest.mark.parametrize(("used", "state"), [(10, "ok"), (96, "note")])
def test_a_quota_that_is_nearly_used_up_is_noted(used: int, state: str) -> None:
    load = messages.Load(1, 0, 0, 1.0, used * 10**6, 10**8)
    finding = doctor._quota("hall", load)
    assert finding.state == state
    assert f"{used} of 100 MB" in finding.text
    assert ("ionn forget hall" in finding.advice) == (state == "note")


@pytest.mark.parametrize(("last", "state"), [(7.0, "ok"), (9.0, "note"), (3.0, "note")])
def test_a_clock_that_jumps_is_noted(last: float, state: str) -> None:
    times = [(100.0, 100.1, 5.0), (102.0, 102.1, last)]
    assert doctor._drift("hall", times).state == state


def test_the_command_says_it_line_by_line_or_as_json(edge: EdgeProcess, tmp_path: Path) -> None:
    runner, state = CliRunner(), str(tmp_path)
    good = runner.invoke(cli.app, ["doctor", "--edge", edge.address, "--state", state])
    assert good.exit_code == 0, good.output
    assert "round trip" in good.output
    bad = runner.invoke(cli.app, ["doctor", "--edge", NOWHERE, "--state", state, "--json"])
    assert bad.exit_code == 1
    rows = json.loads(bad.output)
    assert {"box", "what", "state", "text", "advice"} == set(rows[0])
    assert os.listdir(state) == []

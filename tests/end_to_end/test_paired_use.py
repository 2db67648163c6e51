"""What a person and a program do with a paired box: commands, and offloading as ever, encrypted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ionn_client
from ionn_client import Options, cli, prepare
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.errors import (
    OffloadError,
)
from ionn_client.processes import EdgeProcess
from ionn_edge.doors.announce import announced
from planner import Link
from tests.ionn_edge.visitors import house, once_announced, wrong

X = torch.linspace(-1, 1, 64).reshape(1, 64)


@pytest.fixture
def client(tmp_path: Path) -> Path:
    path = tmp_path / "client"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def edge() -> Iterator[EdgeProcess]:
    with EdgeProcess(paired=True, options=("--calibration", "off")) as process:
        yield process


def ionn(*args: str, typed: str = "") -> str:
    found = CliRunner().invoke(cli.app, list(args), input=typed)
    assert found.exit_code == 0, found.output
    return found.output


async def test_a_person_pairs_lists_and_forgets(tmp_path: Path, client: Path) -> None:
    state = ("--state", str(client))
    assert "paired with no box" in ionn("devices", *state)
    async with house(tmp_path) as at:
        box = f"127.0.0.1:{at.port}"
        slip = (at.desk.code or "")[:-1]
        typed = f"{slip}\n{at.desk.code}\n"
        said = await asyncio.to_thread(ionn, "pair", box, "--name", "glasses", *state, typed=typed)
        assert "Not a code" in said
        assert "Now: ionn run --edge hall" in said
        assert [paired.device.name for paired in at.guard.registry.all()] == ["glasses"]
        uri = at.desk.uri("127.0.0.1", at.port) or ""
        again = await asyncio.to_thread(ionn, "pair", uri, *state, "--json")
        assert json.loads(again)["name"] == "hall"
        typed = f"{at.desk.uri('127.0.0.1', at.port)}\n"
        unseen = await asyncio.to_thread(ionn, "pair", "-", *state, typed=typed)
        assert "Paired with hall" in unseen
    shown = ionn("devices", *state)
    for cell in ("hall", "paired", at.guard.identity.fingerprint[:4]):
        assert cell in shown
    KnownBoxes(client).quarantine(at.guard.identity.fingerprint, "[b]it[/b] lied")
    assert "[b]it[/b]" in ionn("devices", *state)
    assert "Forgotten: hall" in ionn("devices", "forget", "hall", *state)
    assert json.loads(ionn("devices", *state, "--json")) == []


async def test_a_box_is_found_and_paired_by_its_name(tmp_path: Path, client: Path) -> None:
    state = ("--state", str(client))
    async with house(tmp_path) as at:
        fingerprint, code = at.guard.identity.fingerprint, at.desk.code or ""
        async with announced("the [b]hall", "127.0.0.1", at.port, fingerprint):
            look = ("discover", "--seconds", "1.5", *state)
            await once_announced("To pair: ionn pair NAME", *look)
            pair = ("pair", "the [b]hall", "--code", code, *state)
            await once_announced("Paired with hall", *pair)
            found = json.loads(await once_announced(fingerprint, *look, "--json"))
    (box,) = [box for box in found if box["fingerprint"] == fingerprint]
    assert box == {
        "name": "the [b]hall",
        "address": f"ionn://127.0.0.1:{at.port}",
        "fingerprint": fingerprint,
        "paired_as": "hall",
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pair", "ionn://box:1/pair?box=x&secret=y"], "pairing URI looks like"),
        (["pair", "127.0.0.1:9", "--code", "1234"], "8 digits"),
        (["pair", "127.0.0.1:9", "--code", wrong("0000-0000")], ": connection refused"),
        (["pair", "127.0.0.1:port", "--code", wrong("0000-0000")], "bad port"),
        (["pair", "127.0.0.1:9", "--name", "-x", "--code", wrong("0000-0000")], "name"),
        (["devices", "forget", "nobody"], "no box is known"),
        (["forget", "nobody"], "pair first"),
        (["forget", "127.0.0.1:9"], "has not said"),
        (["ps", "--edge", "192.0.2.7"], "pair first"),
        (["run", "--edge", "192.0.2.7", "--network", "lenet"], "pair first"),
    ],
)
def test_mistakes_are_told_in_a_line(client: Path, args: list[str], said: str) -> None:
    found = CliRunner().invoke(cli.app, [*args, "--state", str(client)])
    assert isinstance(found.exception, OffloadError | ValueError)
    assert said in str(found.exception)


def test_three_slips_of_the_finger_cost_no_guess(client: Path) -> None:
    typed = "1\n12345678\nabc\n"
    found = CliRunner().invoke(
        cli.app, ["pair", "127.0.0.1:9", "--state", str(client)], input=typed
    )
    assert "still shows the same one" in str(found.exception)
    # Typing nothing at all ends it at once.
    found = CliRunner().invoke(cli.app, ["pair", "127.0.0.1:9", "--state", str(client)], input="")
    assert "nothing was typed. The box still shows the same code" in str(found.exception)


async def test_a_paired_device_offloads_as_ever_and_is_forgotten(edge: EdgeProcess) -> None:
    assert edge.state is not None
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    options = Options(
        device_slowdown=3000.0, assumed_link=Link(1e7, 1e7, 0.001), profile_runs=1, state=edge.state
    )
    profiled = await asyncio.to_thread(prepare, model, (X,), options=options)
    with torch.inference_mode():
        expected = model(X)
    async with ionn_client.connect(profiled, (X,), edge=edge.address, options=options) as net:
        await net.uploaded(timeout_s=60)
        answers = [await net.query(X) for _ in range(10)]
        assert all(torch.equal(answer.value, expected) for answer in answers)
        # On a busy machine a late one may have been overtaken here.
        assert any(answer.served_by != "client" for answer in answers)
        await net.forget()
        assert net.status.phase == "rejected"
        assert net.status.error == "the edge was asked to forget this device"
        assert (await net.query(X)).served_by == "client"
    async with ionn_client.connect(profiled, (X,), edge=edge.address, options=options) as net:
        net._driver._opener.turned_away = 4
        await net.uploaded(timeout_s=60)
        assert net._driver._opener.turned_away == 0, "what is past does not add up"
        assert net.status.sent_bytes > 0, "what was forgotten is sent again"
        assert net.status.skipped_bytes == 0


def test_commands_know_the_box(edge: EdgeProcess) -> None:
    state = ("--state", str(edge.state))
    (box,) = json.loads(ionn("devices", *state, "--json"))
    assert box["fingerprint"] == edge.banner["fingerprint"]
    assert "token" not in box
    assert json.loads(ionn("ps", "--edge", box["name"], *state, "--json"))["clients"] == 1
    assert "holds nothing" in ionn("forget", box["name"], *state)
    assert json.loads(ionn("forget", box["name"], *state, "--json"))["forgotten"]

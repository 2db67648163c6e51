"""`ionn edge devices`, `unpair` and `pair`, of a box that runs and of one that does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from ionn_edge import cli
from ionn_edge.commands import devices, pairing_text
from ionn_edge.commands.failing import give_up
from ionn_edge.doors.control import answering, claimed
from ionn_edge.doors.devices import Registry
from tests.ionn_edge.test_devices import GLASSES, WATCH, kept, paired
from tests.ionn_edge.visitors import Visitor, house


def called(*words: str, state: Path) -> Result:
    return CliRunner().invoke(cli.app, [*words, "--state", str(state)])


async def asked(*words: str, state: Path) -> Result:
    return await asyncio.to_thread(called, *words, state=state)


async def test_a_running_box_is_asked(tmp_path: Path) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path) as at:
        state = at.guard.state
        with claimed(state):
            async with answering(state, at.questions):
                shown = json.loads((await asked("pair", "--json", state=state)).stdout)
                assert shown["uri"].startswith(
                    f"ionn://127.0.0.1:{at.port}/pair?box={shown['fingerprint']}&"
                )
                await glasses.pair(at, shown["code"])
                text = (await asked("pair", state=state)).stdout
                assert at.desk.code is not None
                assert at.desk.code in text
                assert f"ionn pair 'ionn://127.0.0.1:{at.port}/pair?" in text
                await watch.pair(at)
                rows = json.loads((await asked("devices", "--json", state=state)).stdout)
                assert [(row["name"], row["connections"]) for row in rows] == [
                    ("glasses", 0),
                    ("watch", 0),
                ]
                done = await asked("unpair", "glasses", state=state)
                assert done.stdout == f"Unpaired glasses ({glasses.id[:12]}).\n"
                assert at.guard.registry.get(glasses.id) is None
                done = await asked("unpair", "glasses", state=state)
                assert (done.exit_code, done.stdout) == (1, "")
                assert "no paired device is called 'glasses'" in done.stderr


async def test_without_a_running_box_its_files_are_what_counts(tmp_path: Path) -> None:
    state, store = tmp_path / "state", tmp_path / "store"
    assert "no such directory" in (await asked("devices", state=state)).stderr
    state.mkdir(mode=0o700)
    assert "No device is paired" in (await asked("devices", state=state)).stdout
    registry = await kept(state)
    store.mkdir()
    registry.seen(WATCH.fingerprint, 3.0)
    await registry.keep()
    heads, glasses, watch = (await asked("devices", state=state)).stdout.splitlines()
    assert heads.split() == ["device", "id", "paired", "seen", "connections", "holds"]
    assert glasses.split()[:2] == ["glasses", GLASSES.fingerprint[:12]]
    assert "never" in glasses
    assert "never" not in watch
    done = await asked("unpair", "glasses", "--store", str(store), "--json", state=state)
    assert json.loads(done.stdout)["id"] == GLASSES.fingerprint
    after = Registry(state)
    after.open()
    assert [each.device.name for each in after.all()] == ["watch"]
    done = await asked("pair", state=state)
    assert (done.exit_code, "no box runs" in done.stderr) == (1, True)


async def test_two_devices_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    registry = await kept(tmp_path)
    await registry.add(paired(WATCH, "glasses"))
    done = await asked("unpair", "glasses", state=tmp_path)
    assert done.exit_code == 1
    for identity in (GLASSES, WATCH):
        assert identity.fingerprint[:12] in done.stderr
    store = str(tmp_path / "store")
    done = await asked("unpair", WATCH.fingerprint[:8], "--store", store, state=tmp_path)
    assert done.exit_code == 0, done.stderr


async def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    registry = await kept(tmp_path)
    registry.path.write_bytes(b"{")
    for words in (["devices"], ["unpair", "glasses"]):
        done = await asked(*words, state=tmp_path)
        assert (done.exit_code, done.stdout) == (1, "")
        (text,) = done.stderr.splitlines()
        assert text.startswith("ionn edge: ")
        assert "is damaged" in text


def test_a_terminal_is_shown_a_code_for_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    pairing = {
        "code": "4821-7360",
        "uri": "ionn://192.0.2.7:7431/pair?box=x",
        "fingerprint": "0" * 64,
    }
    plain = pairing_text.pairing_lines(pairing)
    assert not any("█" in line or "▀" in line for line in plain)
    monkeypatch.setattr(pairing_text, "on_terminal", lambda: True)
    drawn = pairing_text.pairing_lines(pairing)[len(plain) :]
    assert drawn
    assert len({len(line) for line in drawn}) <= 2
    assert pairing_text.pairing_lines({**pairing, "code": None, "uri": None}) == [
        pairing_text.CLOSED
    ]


@pytest.mark.parametrize(
    ("since_s", "text"), [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"),
     (7_200, "2 h ago"), (200_000, "2 days ago"), (-5, "0 s ago")],
)  # fmt: skip
def test_times_are_told_as_people_do(since_s: float, text: str) -> None:
    assert devices._ago(1e6, 1e6 + since_s) == text


def test_what_a_command_complains_of_is_one_line_that_no_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        give_up("no layer \x1b]0;title\x07 in\nfile \u202e")
    shown = capsys.readouterr().err
    assert shown == "ionn edge: no layer  ]0;title  in file  \n"

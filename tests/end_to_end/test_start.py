"""Commands that compute nothing start without torch, which takes seconds to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
import typer

from ionn_client import cli
from ionn_client.processes import EdgeProcess

# Commands one after the other, as a person types them, with what was imported by the end of each.
IONN = """
import json, sys
from ionn_client.cli import main
ended = []
for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    ended.append((command, code, sorted({"torch", "scipy"} & set(sys.modules))))
print(json.dumps(ended), file=sys.stderr)
"""
NOWHERE = "127.0.0.1:9"
WITHOUT_A_BOX = [
    ("--help", 0),
    ("no-command", 2),
    ("devices", 0),
    ("devices forget hall", 1),
    ("pair --help", 0),
    (f"pair {NOWHERE} --code 1234-5678", 2),
    ("discover --seconds 0.1", 0),
    (f"ps --edge {NOWHERE}", 1),
    ("doctor", 0),
    (f"doctor --edge {NOWHERE}", 1),
    (f"forget {NOWHERE}", 1),
    ("edge --help", 0),
    ("edge serve --help", 0),
    ("edge devices", 0),
    ("edge pair", 1),
    ("edge unpair glasses", 1),
    ("edge cache ls", 1),
]


def assert_light(home: Path, *commands: tuple[Sequence[str], int]) -> None:
    """Each ends with its code in this home directory, before any heavy package is imported."""
    state = {"XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", IONN, json.dumps([command for command, _ in commands])],
        env={**os.environ, **state},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in ended.stderr
    found = json.loads(ended.stderr.splitlines()[-1])
    assert found == [[list(command), code, []] for command, code in commands], ended.stderr


def test_without_a_box(tmp_path: Path) -> None:
    assert_light(tmp_path, *((command.split(), code) for command, code in WITHOUT_A_BOX))


def test_with_an_unpaired_box(edge: EdgeProcess, tmp_path: Path) -> None:
    commands = (("ps", "--edge"), ("doctor", "--edge"), ("forget",))
    assert_light(tmp_path, *(((*command, edge.address), 0) for command in commands))


def test_with_a_paired_box(tmp_path: Path) -> None:
    options = ("--calibration", "off", "--name", "hall")
    with EdgeProcess(paired=True, pairings=str(tmp_path / "there"), options=options) as box:
        device = ("--state", str(box.state))
        operator = ("--state", str(tmp_path / "there" / "edge"))
        uri = box.banner["pairing"]["uri"]
        assert_light(
            tmp_path,
            (("pair", uri, "--name", "glasses"), 1),  # Spent, which is said by the box.
            (("ps", "--edge", "hall", *device), 0),
            (("doctor", *device), 0),
            (("devices", *device), 0),
            (("forget", "hall", *device), 0),
            (("edge", "pair", *operator), 0),
            (("edge", "devices", *operator), 0),
            (("edge", "cache", "ls", *operator), 0),
            (("devices", "forget", "hall", *device), 0),
        )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_says_of_a_command_what_it_says_itself(name: str) -> None:
    where, summary = cli.COMMANDS[name]
    module, _, attribute = where.partition(".")
    found = getattr(import_module(f"ionn_client.commands.{module}"), attribute)
    said = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert said.partition("\n\n")[0] == summary

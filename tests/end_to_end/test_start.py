"""Commands that compute nothing start without torch, which takes seconds to import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from ionn_client import cli
from ionn_client.processes import EdgeProcess

# The `ionn` command, that says at its end what it has imported.
IONN = """
import atexit, sys
atexit.register(lambda: print(sorted({"torch", "scipy"} & set(sys.modules)), file=sys.stderr))
from ionn_client.cli import main
main()
"""
NOWHERE = "127.0.0.1:9"


def ionn(home: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """How a command ended in this home directory, and which heavy packages it had by then."""
    state = {"XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", IONN, *args],
        env={**os.environ, **state},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in ended.stderr
    said = ended.stderr.splitlines()
    return ended, ast.literal_eval(said[-1])


@pytest.mark.parametrize(
    ("command", "code"),
    [
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
    ],
)
def test_without_a_box(command: str, code: int, tmp_path: Path) -> None:
    ended, heavy = ionn(tmp_path, *command.split())
    assert (ended.returncode, heavy) == (code, []), ended.stderr


def test_with_an_unpaired_box(edge: EdgeProcess, tmp_path: Path) -> None:
    for command in ("ps --edge", "doctor --edge", "forget"):
        ended, heavy = ionn(tmp_path, *command.split(), edge.address)
        assert (ended.returncode, heavy) == (0, []), ended.stderr


def test_with_a_paired_box(tmp_path: Path) -> None:
    options = ("--calibration", "off", "--name", "hall")
    with EdgeProcess(paired=True, pairings=str(tmp_path / "there"), options=options) as box:
        device, operator = (
            ("--state", str(box.state)),
            ("--state", str(tmp_path / "there" / "edge")),
        )
        uri = box.banner["pairing"]["uri"]
        for command in (
            ("pair", uri, "--name", "glasses"),  # Spent: an error, after all has been imported.
            ("ps", "--edge", "hall", *device),
            ("doctor", *device),
            ("devices", *device),
            ("forget", "hall", *device),
            ("edge", "pair", *operator),
            ("edge", "devices", *operator),
            ("edge", "cache", "ls", *operator),
            ("devices", "forget", "hall", *device),
        ):
            ended, heavy = ionn(tmp_path, *command)
            assert (ended.returncode, heavy) == (int(uri in command), []), ended.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_says_of_a_command_what_it_says_itself(name: str) -> None:
    where, summary = cli.COMMANDS[name]
    module, _, attribute = where.partition(".")
    found = getattr(import_module(f"ionn_client.commands.{module}"), attribute)
    said = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert said.partition("\n\n")[0] == summary

"""Ctrl-C ends a command without a traceback, wherever it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The `ionn` command, with Ctrl-C pressed when it comes to import a certain module.
PRESSED = """
import os, signal, sys

awaited = sys.argv.pop(1)
# Ignored where the tests run in the background of a script.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Pressing:
    def find_spec(self, name, *_):
        if name == awaited:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressing())
from ionn_client.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "rich.table", "torch"])
def test_while_it_imports(module: str, tmp_path: Path) -> None:
    command = ["profile"] if module == "torch" else ["devices", "--state", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-c", PRESSED, module, *command], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_at_a_prompt(tmp_path: Path) -> None:
    command = (sys.executable, "-c", PRESSED, "nothing", "pair", "127.0.0.1:9", "--state", tmp_path)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as asking:
        assert asking.stderr is not None
        said = b""
        while not said.endswith(b"shows:"):
            said += asking.stderr.read(1) or pytest.fail(f"it asks for nothing: {said!r}")
        asking.send_signal(signal.SIGINT)
        assert asking.wait() == 130
        assert b"Traceback" not in asking.stderr.read()

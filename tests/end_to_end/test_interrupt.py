"""Ctrl-C ends a command without a traceback, wherever it is."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ionn_client.emulate import LinkProcess, LinkSpec
from tests.support import quick_edge

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


def test_amid_an_upload_what_there_is_by_then_is_told() -> None:
    pressed = [sys.executable, "-c", PRESSED, "nothing"]
    with quick_edge() as edge, LinkProcess(LinkSpec.parse("400kbit"), edge.address) as link:
        asking = ["run", "--edge", f"{link.host}:{link.port}", "--network", "lenet"]
        command = [*pressed, *asking, "--queries", "3000", "--interval", "0.02"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            shown = iter(running.stdout.readline, "")
            # The first partitions may be over before a busy machine has a line about them.
            assert any(re.search(r"partition \d+/.*query \d", line) for line in shown)
            running.send_signal(signal.SIGINT)
            told, complaints = running.communicate()
    assert (running.returncode, complaints) == (130, "")
    assert "exact answers equal the local model's." in " ".join(told.split())
    assert "the next run goes on from there." in told

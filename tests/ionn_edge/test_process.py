"""The edge as people and scripts start it: its own process, killed and stopped by signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ionn_edge import cli
from layergraph import execute as execute_here
from tests.ionn_edge.peer import Peer, blobs, chain, execute, partial, tensors_of
from wire import messages
from wire.planes import WHOLE

GRAPH, WEIGHTS = chain(3)
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.linspace(-1, 1, 8).reshape(1, 8)
TIMEOUT_S = 60


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tests' is kept where this user's own box keeps its state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def command(*options: str) -> list[str]:
    common = ["--unpaired", "--threads", "1", "--calibration", "off"]
    return [sys.executable, "-m", "ionn_edge", "serve", *common, *options]


@contextmanager
def edge(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(*options), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True


async def test_a_killed_edge_goes_on_at_the_segment_where_it_was(tmp_path: Path) -> None:
    with edge("--json", "--port", "0", "--store", str(tmp_path)) as first:
        said = json.loads(line(first))
        assert said["pid"] == first.pid
        assert said["url"] == f"ionn://127.0.0.1:{said['port']}"
        url = f"http://127.0.0.1:{said['port']}/ionn"
        async with Peer(url) as peer:
            epoch = (await peer.greet()).epoch
            await peer.offer(GRAPH)
            await peer.upload(0, BLOBS[0])
            await peer.upload(1, BLOBS[1], stop=19)
            (forkserver,) = children(first.pid)
            workers = children(forkserver)
            assert workers
            first.kill()
            await peer.heard_close()
    with edge("--json", "--port", str(said["port"]), "--store", str(tmp_path)) as second:
        assert json.loads(line(second))["port"] == said["port"]
        assert gone(forkserver)
        assert all(map(gone, workers))
        async with Peer(url) as peer:
            assert (await peer.greet()).epoch != epoch
            have = await peer.offer(GRAPH)
            assert (have.runs, partial(have)) == ((0, 1, 2), [(1, WHOLE, 19)])
            assert (await peer.upload(1, BLOBS[1], start=19)).complete
            _, live = await peer.run(1, 0, 2, (X,))
            assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 2, (X,))[0])


async def test_sigterm_finishes_what_runs_says_goodbye_and_exits_cleanly(tmp_path: Path) -> None:
    with edge("--port", "0", "--store", str(tmp_path), "--memory", "64M") as process:
        text = "".join(iter(lambda: line(process), "Ctrl-C stops.\n"))
        assert "protocol version 2" in text
        assert "67.1 MB for weights" in text
        assert str(tmp_path) in text
        (address,) = {word for word in text.split() if word.startswith("ionn://")}
        assert f"ionn run --edge {address}" in text
        async with Peer(address.replace("ionn", "http", 1) + "/ionn") as peer:
            await peer.open(GRAPH, WEIGHTS)
            # One of them is this client's, the other one ahead of its use.
            workers = children(children(process.pid)[0])
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            await peer.send(execute(1, 0, 3, (X,)), messages.Ping(1))
            await peer.hear(messages.Pong)
            process.terminate()
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
            live = tensors_of(await peer.hear(messages.Result))
            assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])
            assert (await peer.hear(messages.Bye)).reason == "draining"
        assert process.wait(TIMEOUT_S) == 0
        assert all(map(gone, workers))


def test_a_paired_box_says_how_to_pair_and_has_its_state_to_itself(tmp_path: Path) -> None:
    state = tmp_path / "state"
    options = ["--threads", "1", "--calibration", "off", "--port", "0", "--name", "hall"]
    paired = ["serve", *options, "--state", str(state), "--store", str(tmp_path / "store")]
    serving = [sys.executable, "-m", "ionn_edge", *paired]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as process:
        try:
            text = "".join(iter(lambda: line(process), "Ctrl-C stops.\n"))
            (uri,) = (word.strip("'") for word in text.split() if "/pair?" in word)
            shown = json.loads(
                CliRunner().invoke(cli.app, ["pair", "--state", str(state), "--json"]).stdout
            )
            assert shown["uri"] == uri
            assert shown["code"] in text
            assert "ionn run --edge hall" in text
            assert "█" not in text, "nobody looks through a pipe"
            another = CliRunner().invoke(cli.app, paired)
            assert another.exit_code == 1
            assert "a box runs with the state in" in complaint(another.stdout, another.stderr)
        finally:
            process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    assert not (state / "control").exists()
    (state / "devices.json").write_bytes(b"{")
    (state / "devices.json").chmod(0o600)
    damaged = CliRunner().invoke(cli.app, paired)
    assert "devices.json is damaged" in complaint(damaged.stdout, damaged.stderr)


def complaint(stdout: str, stderr: str) -> str:
    """The one line of an edge that does not start."""
    assert stdout == ""
    (text,) = stderr.splitlines()
    assert text.startswith("ionn edge: ")
    return text


def test_an_address_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("--port", str(port), "--store", str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 1, done
    text = complaint(done.stdout, done.stderr)
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in text


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--bind", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:7431"),
        (["--memory", "lots"], 2, "a size looks like 512M or 4G, not 'lots'"),
        (["--device", "tpu"], 2, "the device is cpu or cuda"),
        (
            ["--store", "/dev/null/store", "--port", "0"],
            1,
            "the store /dev/null/store cannot be used",
        ),
        (
            ["--state", "/dev/null/state", "--port", "0"],
            1,
            "nothing can be kept in /dev/null/state: not a directory",
        ),
        (["--unpaired", "--bind", "0.0.0.0", "--port", "0"], 2, "serves this machine only"),
        (["--unpaired", "--bind", "::", "--port", "0"], 2, "serves this machine only"),
        (["--name", "a\nb", "--port", "0"], 2, "a name is printable"),
    ],
    ids=["bind", "memory", "device", "store", "state", "unpaired", "unpaired, IPv6", "name"],
)
def test_a_bad_option_is_one_clear_line(
    options: list[str], code: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = CliRunner().invoke(cli.app, ["serve", "--threads", "1", *options])
    assert done.exit_code == code, done.output
    assert reason in complaint(done.stdout, done.stderr)

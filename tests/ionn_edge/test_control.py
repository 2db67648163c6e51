"""What the operator asks a running box, and who else may not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ionn_edge.doors.control import MOST_BYTES, ControlError, NotRunning, answering, ask, claimed


async def echo(asked: dict[str, Any]) -> dict[str, Any]:
    return asked


async def complain(asked: dict[str, Any]) -> None:
    raise ControlError(f"no {asked['what']} here")


async def fail(asked: dict[str, Any]) -> None:
    raise ZeroDivisionError(asked)


HANDLERS = {"echo": echo, "complain": complain, "fail": fail}


async def asked(directory: Path, question: str, **arguments: Any) -> Any:
    return await asyncio.to_thread(ask, directory, question, **arguments)


async def test_a_question_is_answered_however_deep_the_directory(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory"] * 20)
    with claimed(deep):
        async with answering(deep, HANDLERS):
            assert await asked(deep, "echo", a=[1, "ü"]) == {"a": [1, "ü"]}
            with pytest.raises(ControlError, match="no tea here"):
                await asked(deep, "complain", what="tea")
            with pytest.raises(ControlError, match="does not know that question"):
                await asked(deep, "tea")
            with pytest.raises(ControlError, match="its log says more"):
                await asked(deep, "fail")
        with pytest.raises(NotRunning):
            await asked(deep, "echo")
    with pytest.raises(NotRunning):
        await asked(tmp_path / "nowhere", "echo")


async def test_only_the_user_may_ask(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    with claimed(tmp_path):
        async with answering(tmp_path, HANDLERS):
            assert os.stat(tmp_path).st_mode & 0o777 == 0o700
            assert os.stat(tmp_path / "control").st_mode & 0o777 == 0o600


def test_a_directory_that_others_may_change_is_not_worked_in(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ControlError, match="others on this machine"), claimed(tmp_path):
        pass
    tmp_path.chmod(0o700)
    victim = tmp_path / "victim"
    victim.touch(0o644)
    (tmp_path / "running").symlink_to(victim)
    with pytest.raises(ControlError), claimed(tmp_path):
        pass
    assert victim.stat().st_mode & 0o777 == 0o644


async def test_what_a_killed_box_left_is_in_nobodys_way(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control"))
    left.close()
    with pytest.raises(NotRunning):
        await asked(tmp_path, "echo")
    with claimed(tmp_path):
        async with answering(tmp_path, HANDLERS):
            assert await asked(tmp_path, "echo", a=1) == {"a": 1}


def test_one_box_has_a_state_directory_at_a_time(tmp_path: Path) -> None:
    another = pytest.raises(ControlError, match="another --state")
    with claimed(tmp_path), another, claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize(
    "line",
    [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"ask": []}\n', b'{"ask": "complain"}\n',
     b"[" * 10_000 + b"\n", b"\xff\n", b"x" * (MOST_BYTES + 10) + b"\n", b"half a line"],
)  # fmt: skip
async def test_nonsense_harms_nobody(tmp_path: Path, line: bytes) -> None:
    with claimed(tmp_path):
        async with answering(tmp_path, HANDLERS):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
            writer.write(line)
            writer.write_eof()
            try:
                said = await asyncio.wait_for(reader.read(), 60)
            except ConnectionError:
                said = b""
            writer.close()
            assert said == b"" or "error" in json.loads(said)
            assert await asked(tmp_path, "echo", a=1) == {"a": 1}

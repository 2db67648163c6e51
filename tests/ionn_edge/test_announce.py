"""What a box says of itself to its network."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from zeroconf import Error

from ionn_edge.doors import announce
from ionn_edge.doors.announce import MOST_BYTES, addresses, announced, service

FINGERPRINT = "0123456789abcdef" * 4


def test_it_says_who_and_where_it_is_and_nothing_else() -> None:
    said = service("hall", "192.0.2.7", 7431, FINGERPRINT)
    assert (said.type, said.name) == ("_ionn-edge._tcp.local.", "hall._ionn-edge._tcp.local.")
    assert said.decoded_properties == {"box": FINGERPRINT, "version": "2", "name": "hall"}
    assert (said.parsed_addresses(), said.port) == (["192.0.2.7"], 7431)


@pytest.mark.parametrize("name", ["first.floor", "x" * 64, "é" * 32, "a b"])
def test_any_name_of_a_box_can_be_announced(name: str) -> None:
    said = service(name, "127.0.0.1", 7431, FINGERPRINT)
    label = said.name.removesuffix("._ionn-edge._tcp.local.")
    assert "." not in label
    assert 1 <= len(label.encode()) <= 63
    assert said.decoded_properties["name"] == name


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7"])
def test_an_address_is_its_own(host: str) -> None:
    assert addresses(host) == [host]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_box_on_all_networks_names_an_address_that_is_one(host: str) -> None:
    for address in addresses(host):
        assert address not in ("0.0.0.0", "::")


@pytest.mark.parametrize("trouble", [OSError(19, "No such device"), Error("name in use")])
async def test_a_box_that_cannot_be_announced_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: Exception
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise trouble

    ended = asyncio.Event()
    monkeypatch.setattr(announce.AsyncZeroconf, "async_register_service", fails)
    info = service("hall", "127.0.0.1", 7431, FINGERPRINT)
    announcing = asyncio.create_task(announce._announce(info, "127.0.0.1", ended))
    said = ""
    while not said:
        await asyncio.sleep(0.01)
        said = capsys.readouterr().out
    assert str(trouble) in said or repr(trouble) in said
    assert not announcing.done(), "it has said what is wrong, and is asked to try no more"
    ended.set()
    await announcing


async def test_what_others_say_is_read_by_another_process_that_has_so_much_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announce, "AGAIN_S", 0.05)
    with caplog.at_level(logging.WARNING):
        async with announced("hall", "127.0.0.1", 7431, FINGERPRINT):
            first = await announcer(lambda _: True)
            first.kill()
            second = await announcer(
                lambda each: (
                    each.pid != first.pid
                    and each.nice() == 19
                    and each.rlimit(psutil.RLIMIT_DATA)[1] == MOST_BYTES
                )
            )
    assert not second.is_running(), "it ends with the box"
    assert "not announced" in caplog.text, "and is started again if it ends before"


async def announcer(right: Callable[[psutil.Process], bool]) -> psutil.Process:
    while True:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                running = child.status() != psutil.STATUS_ZOMBIE
                if running and "ionn_edge.doors.announce" in child.cmdline() and right(child):
                    return child
        await asyncio.sleep(0.01)


def test_it_ends_with_a_box_that_was_killed() -> None:
    command = [sys.executable, "-m", "ionn_edge.doors.announce", "hall", "127.0.0.1", "7431"]
    with subprocess.Popen(
        [*command, FINGERPRINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.poll() is None
        said, _ = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")

"""What a box says of itself to its network."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from zeroconf import Error

from ionn_edge.doors import announce
from ionn_edge.doors.announce import addresses, announced, service

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
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise trouble

    monkeypatch.setattr(announce.AsyncZeroconf, "async_register_service", fails)
    with caplog.at_level(logging.WARNING):
        async with announced("hall", "127.0.0.1", 7431, FINGERPRINT):
            await asyncio.sleep(0)
    assert "not announced" in caplog.text

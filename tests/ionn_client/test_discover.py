"""What announcements may say, and what is made of those that lie or are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceInfo

from ionn_client.boxes import discover as discovery
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.discover import SERVICE, FoundBox, found_box, look_up
from ionn_client.errors import EdgeUnreachable

BOX = "ab" * 32


def announced(label: str = "hall", port: int = 7431, **fields: Any) -> FoundBox | None:
    says: dict[str, Any] = {
        "properties": {"box": BOX, "name": "hall"},
        "parsed_addresses": ["192.0.2.7"],
        **fields,
    }
    return found_box(AsyncServiceInfo(SERVICE, f"{label}.{SERVICE}", port=port, **says))


HERE = EdgeAddress("192.0.2.7", 7431)


def test_a_box_says_who_and_where_it_is() -> None:
    assert announced() == FoundBox("hall", HERE, BOX)
    six = announced(parsed_addresses=["2001:db8::7"])
    assert six is not None
    assert six.address == EdgeAddress("2001:db8::7", 7431)


def test_a_name_with_a_dot_is_in_the_text() -> None:
    named = announced("hall-2", properties={"name": "hall.2", "box": BOX})
    assert named is not None
    assert named.name == "hall.2"


@pytest.mark.parametrize("properties", [{}, {"box": "x"}, {"box": BOX[:-1]}, {"box": BOX.upper()}])
def test_a_fingerprint_that_is_none_is_left_out(properties: dict[str, str]) -> None:
    assert announced(properties=properties) == FoundBox("hall", HERE, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"properties": {"name": "\x1b[2J"}},
        {"properties": {"name": "-rf"}},
        {"properties": {"name": "x" * 65}},
        {"parsed_addresses": []},
        {"port": 0},
    ],
)
def test_what_no_person_could_use_is_left_out(fields: dict[str, Any]) -> None:
    assert announced(**fields) is None


@given(st.dictionaries(st.text(max_size=9), st.binary(max_size=99), max_size=4), st.binary())
def test_any_text_is_a_box_or_nothing(properties: dict[str, bytes], name: bytes) -> None:
    box = announced(properties={**properties, "name": name[:99]})
    assert box is None or (box.name.isprintable() and box.address == HERE)


async def test_a_box_is_looked_up_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        FoundBox("hall", HERE, BOX),
        FoundBox("twin", HERE, BOX),
        FoundBox("twin", EdgeAddress("192.0.2.8"), "cd" * 32),
    ]

    async def discover(**_: object) -> list[FoundBox]:
        return found

    monkeypatch.setattr(discovery, "discover", discover)
    assert await look_up("hall") == HERE
    with pytest.raises(EdgeUnreachable, match="HOST:PORT"):
        await look_up("kitchen")
    with pytest.raises(EdgeUnreachable, match=r"192.0.2.7.*192.0.2.8"):
        await look_up("twin")


async def test_a_flood_of_announcements_is_not_followed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    class Silent(AsyncServiceInfo):
        async def async_request(self, *_: Any, **__: Any) -> bool:
            nonlocal asked
            asked += 1
            return False

    monkeypatch.setattr(discovery, "AsyncServiceInfo", Silent)
    search = discovery._Search(None, lambda _: False)  # type: ignore[arg-type]
    for number in range(10 * discovery.MOST_BOXES):
        search.changed(f"b{number}.{SERVICE}", ServiceStateChange.Added)
    await search.close()
    assert asked <= discovery.MOST_BOXES
    assert not search.found


@pytest.mark.parametrize("label", ["\x1bc", "\x1b]0;all is well\x07", "nul\x00", "x" * 64, ""])
async def test_a_name_that_terminals_obey_is_passed_over_in_silence(
    label: str, caplog: pytest.LogCaptureFixture
) -> None:
    search = discovery._Search(None, lambda _: False)  # type: ignore[arg-type]
    await search._ask(f"{label}.{SERVICE}")
    assert not search.found
    assert not caplog.text

"""docs/protocol.md and the code say the same."""

from __future__ import annotations

import dataclasses
import re

import pytest

import wire
from tests.wire import spec

TEXT = spec.PROTOCOL.read_text()
KINDS = {of.__name__: kind for kind, of in wire.KINDS.items()}


def section(heading):
    """From one heading to the next of the same or a higher level."""
    level = heading.split()[0]
    start = TEXT.index(f"\n{heading}\n") + len(heading) + 2
    following = re.search(rf"^#{{2,{len(level)}}} ", TEXT[start:], flags=re.MULTILINE)
    return TEXT[start : start + following.start()] if following else TEXT[start:]


@pytest.mark.parametrize("name", spec.sections())
def test_what_is_data_is_up_to_date(name):
    # After a change: python -m tests.wire.spec
    body = re.search(f"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", TEXT, re.DOTALL)
    assert body is not None
    assert body[1] == spec.sections()[name]


@pytest.mark.parametrize("name", KINDS)
def test_every_message_has_its_section_schema_and_fields(name):
    text = section(f"### {name} ({KINDS[name]})")
    fields = [field.name for field in dataclasses.fields(wire.KINDS[KINDS[name]])]
    schema = re.search(r"^    \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    assert re.split(r",\s+", schema[1]) == [str(KINDS[name]), *fields]
    for field in fields:
        assert re.search(rf"^- .*`{field}`", text, re.MULTILINE), field


def test_no_message_is_described_that_does_not_exist():
    described = re.findall(r"^### (\w+) \((\d+)\)$", TEXT, re.MULTILINE)
    assert {name: int(kind) for name, kind in described} == KINDS


def test_the_fields_of_a_row_of_models():
    row = ", ".join(field.name for field in dataclasses.fields(wire.ModelLoad))
    assert f"`[{row}]`" in section("### Load (13)")


def test_the_fields_of_a_row_of_partial():
    row = ", ".join(field.name for field in dataclasses.fields(wire.Partial))
    assert f"`[{row}]`" in section("### Have (4)")


@pytest.mark.parametrize("names", [wire.SEGMENT_CODINGS, wire.TENSOR_CODINGS, wire.PRECISIONS])
def test_every_coding_and_precision_is_described(names):
    for name in names:
        assert f'`"{name}"`' in section("## 7. Planes and codings")


def test_the_fields_of_a_tensor():
    row = "dtype, shape, order, coding, data"
    assert sorted(row.split(", ")) == sorted(each.name for each in dataclasses.fields(wire.Tensor))
    assert f"`[{row}]`" in section("## 3. Types")
    listed = re.search(r"^- `dtype`: (.*)\.$", TEXT, re.MULTILINE)[1]
    sizes = {}
    for names, size in re.findall(r"((?:`\w+` ?)+) \((\d+)", listed):
        sizes.update(dict.fromkeys(re.findall(r"\w+", names), int(size)))
    assert sizes == wire.DTYPE_BYTES


def test_every_error_code_is_listed_once():
    listed = re.findall(r"^\| `([a-z-]+)` \|", section("## 8. Errors"), re.MULTILINE)
    assert sorted(listed) == sorted(wire.ERROR_CODES)


def test_the_version_is_ours():
    assert TEXT.startswith(f"# The IONN protocol, version {wire.VERSION}\n")


@pytest.mark.parametrize("name", KINDS)
def test_golden_bytes(name):
    pinned = (spec.GOLDEN / f"{name}.hex").read_text().split("\n")[:-1]
    assert spec.golden_frames()[name] == pinned


@pytest.mark.parametrize("name", KINDS)
def test_golden_bytes_are_understood(name):
    decoder = wire.Decoder()
    pinned = (spec.GOLDEN / f"{name}.hex").read_text().split("\n")[:-1]
    *_, heard = [decoder.feed(bytes.fromhex(frame)) for frame in pinned]
    said = (message for _, message, _ in spec.EXCHANGE + spec.LANE_EXCHANGE)
    assert heard == next(message for message in said if type(message).__name__ == name)

"""Options, and the forms of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ionn_edge.config import Config, default_store, format_bytes, parse_bytes, parse_quota


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512M", 512 << 20), ("4G", 4 << 30), ("1.5g", 3 << 29), ("2 GiB", 2 << 30),
     ("64KB", 64 << 10), ("1T", 1 << 40)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "4X", "4 G B", "1e9", "nan", "9" * 30])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size looks like"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (999_960, "1.0 MB"), (4 << 30, "4.3 GB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", 65_536), ("port", -1), ("device", "tpu"), ("threads", 0), ("calibration", "maybe")],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Config(**{option: value})


def test_the_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "ionn" / "edge"


def test_a_quota_is_a_size_or_names_what_it_bounds() -> None:
    assert parse_quota("1G") == {"device_disk_bytes": 1 << 30}
    named = Config(**parse_quota("weights=512M, memory=1G,connections=2,queries=3,rate=50"))
    assert (named.device_disk_bytes, named.device_memory_bytes) == (512 << 20, 1 << 30)
    assert (named.device_clients, named.device_queries) == (2, 3)
    assert (named.device_queries_per_s, named.device_burst) == (50, 50)


@pytest.mark.parametrize(
    "text",
    ["", "nan", "rate=0", "rate=-1", "rate=1e3", "queries=2.5", "disk=1G", "rate=1,rate=2",
     "weights=", "=1G", "rate=" + "9" * 30, "memory=0", "rate=\u0663"],
)  # fmt: skip
def test_other_quotas_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a quota|a size"):
        parse_quota(text)


def test_no_worker_has_more_memory_than_its_device() -> None:
    assert Config(device_memory_bytes=1 << 20).workers.memory_bytes == 1 << 20
    assert Config(worker_memory_bytes=1 << 20).workers.memory_bytes == 1 << 20

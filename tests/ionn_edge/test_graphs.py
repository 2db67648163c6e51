"""Graphs that were checked before, as they are kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ionn_edge.machine.events import Model
from ionn_edge.storage import graphs as graphs_module
from ionn_edge.storage.graphs import Graphs, edition
from ionn_edge.storage.places import Place

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def place(directory: Path) -> Place:
    return Place(directory, b"key")


def opened(directory: Path, max_bytes: int = 1000) -> Graphs:
    graphs = Graphs(place(directory), max_bytes)
    graphs.open()
    return graphs


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.graph"))


def test_a_graph_is_kept_across_runs(tmp_path: Path) -> None:
    opened(tmp_path).keep(A, b"graph")
    again = opened(tmp_path)
    assert again.kept() == [A]
    assert again.load(A) == b"graph"
    assert again.load(B) is None
    # What is in the file is known only once a worker has looked at it.
    assert again.known(A) is None
    again.learned(Model(A, 1, ()))
    assert again.known(A) == Model(A, 1, ())


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_no_graph_and_goes(tmp_path: Path, damage: str) -> None:
    graphs = opened(tmp_path)
    graphs.keep(A, b"graph")
    (path,) = files(tmp_path)
    data = path.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes({"cut": data[:-1], "flip": flipped, "empty": b""}[damage])
    assert graphs.load(A) is None
    assert files(tmp_path) == []


def test_what_another_version_checked_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).keep(A, b"graph")
    monkeypatch.setattr(graphs_module, "edition", lambda: "0" * 16)
    graphs = opened(tmp_path)
    assert graphs.load(A) is None
    assert files(tmp_path) == []


def test_a_write_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{place(tmp_path).graph_name(A)}-{edition()}.fresh").write_bytes(b"half")
    (tmp_path / "thesis.graph").write_bytes(b"mine")
    assert opened(tmp_path).load(A) is None
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.graph"]


def test_the_longest_unused_graphs_give_way(tmp_path: Path) -> None:
    graphs = opened(tmp_path, 600)
    graphs.keep(A, bytes(100))
    graphs.keep(B, bytes(100))
    for age, path in enumerate(files(tmp_path)):
        os.utime(path, (age + 1, age + 1))
    assert graphs.load(A) is not None
    for name in "cdefg":
        graphs.keep(name * 64, bytes(100))
    assert graphs.load(B) is None
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 600
    graphs.keep(B, bytes(400))
    assert graphs.load(B) is None


def test_a_full_disk_costs_only_a_check_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    graphs = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", disk_full)
        graphs.keep(A, b"graph")
    assert graphs.load(A) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "lock", "", "A" * 64, "a" * 63, "a/" * 32])
def test_a_name_from_outside_is_never_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "lock").write_bytes(b"")
    graphs = opened(tmp_path)
    graphs.keep(name, b"graph")
    assert graphs.load(name) is None
    graphs.drop(name)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]

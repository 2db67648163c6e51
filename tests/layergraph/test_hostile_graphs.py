"""Graphs that mean harm, a file each: refused with a reason, and nothing is allocated for them."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from layergraph import GraphError, LayerGraph, check_graph
from layergraph.graph import MAX_CONSTANT_BYTES, MAX_NODES

DIRECTORY = Path(__file__).parents[1] / "hostile" / "graphs"
FILES = sorted(DIRECTORY.glob("*.json"))


def from_json(value: Any) -> Any:
    """JSON has no bytes: {"hex": ...} stands for them."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module", autouse=True)
def _torch_is_there() -> None:
    """The first check imports half of torch."""
    check_graph(LayerGraph.from_plain(good()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_hostile_graph_is_refused(path: Path) -> None:
    stored = json.loads(path.read_text())
    plain = from_json(stored["graph"])
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(GraphError, match=stored["refused"]):
        check_graph(LayerGraph.from_plain(plain))
    after = resource.getrusage(resource.RUSAGE_SELF)
    # The file itself may be the largest that this process has seen; what it declares is not.
    assert after.ru_maxrss - before.ru_maxrss < 64 << 10
    assert after.ru_utime - before.ru_utime < 30


def good() -> dict[str, Any]:
    row = ["float32", [1, 4]]
    return {
        "format": 1, "inputs": [row], "weights": [], "constants": [],
        "nodes": [["aten.relu.default", [["v", 0]], [], [row], ""]],
        "layers": [["a", 0, 1, []]], "outputs": [["v", 1]],
    }  # fmt: skip


def test_what_the_corpus_changes_is_good() -> None:
    check_graph(LayerGraph.from_plain(good()))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("inputs", [["float32", [1]]] * (MAX_NODES + 1), "inputs; the limit"),
        (
            "constants",
            [[["uint8", [MAX_CONSTANT_BYTES]], bytes(MAX_CONSTANT_BYTES)], [["uint8", [1]], b"1"]],
            "inline constants exceed",
        ),
        ("outputs", [["l", *[["v", 1]] * (1 << 20)], ["v", 9]], "at most 4096"),
    ],
)
def test_what_is_too_long_for_a_file(field: str, value: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        LayerGraph.from_plain({**good(), field: value})


def test_nodes_beyond_the_limit_are_refused_when_made_here_too() -> None:
    graph = LayerGraph.from_plain(good())
    many = graph.nodes * (MAX_NODES + 1)
    with pytest.raises(GraphError, match="100001 nodes"):
        LayerGraph(graph.inputs, (), (), many, graph.layers, ())


def test_a_number_too_long_to_print() -> None:
    with pytest.raises(GraphError, match="graph format a int"):
        LayerGraph.from_plain({**good(), "format": 10 ** (sys.get_int_max_str_digits() + 1)})

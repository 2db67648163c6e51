"""A worker holds a graph against what it may use, before it allocates anything for it."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
import pytest

from ionn_edge.config import Config
from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import jobs
from ionn_edge.workers.worker import _Worker
from tests.support import chain


def answered(settings: WorkerSettings, store: Path) -> jobs.Job | None:
    graph, _ = chain(3)
    packed = msgpack.packb(graph.to_plain())
    return _Worker(settings).answer(
        jobs.Check(graph.fingerprint, packed, str(store), published=str(store))
    )


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"graph_flops": 383}, "node 2, .*384 operations up to here, more than 383"),
        ({"graph_nodes": 2}, "3 nodes, more than 2"),
        ({"memory_bytes": 383}, "node 0, .* 384 bytes alive at once, more than 383"),
    ],
)
def test_a_graph_beyond_a_workers_means_is_refused(
    limits: dict[str, int], told: str, tmp_path: Path
) -> None:
    refused = answered(WorkerSettings("cpu", 1, **limits), tmp_path)
    assert isinstance(refused, jobs.Refused)
    assert refused.code == "graph"
    assert re.search(told, refused.text), refused.text


def test_a_graph_within_them_is_checked(tmp_path: Path) -> None:
    enough = WorkerSettings("cpu", 1, graph_flops=384, graph_nodes=3)
    assert isinstance(answered(enough, tmp_path), jobs.Checked)


def test_the_boxs_options_reach_its_workers() -> None:
    settings = Config(graph_flops=7, graph_nodes=5, worker_memory_bytes=3).workers
    assert (settings.graph_flops, settings.graph_nodes, settings.memory_bytes) == (7, 5, 3)

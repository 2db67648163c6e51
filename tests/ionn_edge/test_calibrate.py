"""The predictor that the box ships: what is measured, and for how long it is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ionn_edge import calibrate
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.engine import Nursery
from ionn_edge.measure import _graph, spread
from layergraph import check_graph
from layergraph.ops import KINDS
from layergraph.work import work
from planner.predictor import Predictor


def test_the_spread_has_enough_sound_layers_of_every_kind() -> None:
    kinds = []
    for probe in spread():
        graph = _graph(probe, copies=2)
        check_graph(graph)
        first, second = work(graph)[0]
        assert first == second
        kinds.append(first.kind)
    assert {kind for kind in KINDS if kinds.count(kind) >= 3} == set(KINDS)


def box(directory: Path, nursery: Nursery | None, calibration: str = "auto") -> Box:
    return Box(Config(store=directory, threads=1, calibration=calibration), nursery)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_box_is_measured_once_and_again_when_the_record_is_damaged(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "MEASURE_S", 0.01)
    measured = await calibrate.calibrated(box(tmp_path, nursery))
    predictor = Predictor.from_plain(measured)
    assert set(predictor.rows) == set(KINDS)
    # A convolution of 1 Gflop in 10 microseconds would be a hundred cores' work.
    assert predictor.predict("conv", 1e9, 1e6) > 1e-5
    # No nursery: nothing can be measured any more, nor need it be.
    kept = Box.__new__(Box)
    kept.config = Config(store=tmp_path, threads=1)
    assert await calibrate.calibrated(kept) == measured
    path = calibrate.cache_path(kept.config)
    await asyncio.to_thread(path.write_text, '{"format": 1, "rows"')
    anew = await calibrate.calibrated(box(tmp_path, nursery))
    assert await calibrate.calibrated(kept) == anew


async def test_without_calibration_generic_figures_are_shipped(tmp_path: Path) -> None:
    plain = await calibrate.calibrated(box(tmp_path, None, calibration="off"))
    assert Predictor.from_plain(plain) == calibrate.GENERIC
    assert not calibrate.cache_path(Config(store=tmp_path, threads=1)).exists()


def test_another_machine_device_or_thread_count_is_measured_anew(tmp_path: Path) -> None:
    paths = {
        calibrate.cache_path(Config(store=tmp_path, threads=threads, device=device))
        for threads in (1, 2)
        for device in ("cpu", "cuda")
    }
    assert len(paths) == 4

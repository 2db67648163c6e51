"""The predictor that the box ships: what is measured, and for how long it is kept."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ionn_edge.box import Box
from ionn_edge.calibration import calibrate, calibration_table
from ionn_edge.cli import app
from ionn_edge.config import Config
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError
from ionn_edge.workers.nursery import Nursery
from layergraph.ops import KINDS
from planner.predictor import Predictor
from planner.work import OperatorWork

CONV = OperatorWork("conv", 1e9, 1e5, 1e5, 1e5, 1, 1e3, 5e2, 1e3)


def box(directory: Path, nursery: Nursery | None, calibration: str = "auto") -> Box:
    return Box(Config(store=directory, threads=1, calibration=calibration), nursery)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_box_is_measured_once_and_again_when_the_record_is_damaged(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "MEASURE_S", 0.01)
    measured = await calibrate.calibrated(box(tmp_path, nursery))
    predictor = Predictor.from_plain(measured)
    assert {kind.partition("/")[0] for kind in predictor.rows} == set(KINDS)
    # A convolution of 1 Gflop in 10 microseconds would be a hundred cores' work.
    assert predictor.predict(CONV) > 1e-5
    assert predictor.entry > 0
    # No nursery: nothing can be measured any more, nor need it be.
    kept = Box.__new__(Box)
    kept.config = Config(store=tmp_path, threads=1)
    assert await calibrate.calibrated(kept) == measured
    path = calibrate.cache_path(kept.config)
    await asyncio.to_thread(path.write_text, '{"format": 2, "rows"')
    anew = await calibrate.calibrated(box(tmp_path, nursery))
    assert await calibrate.calibrated(kept) == anew


@pytest.mark.asyncio(loop_scope="session")
async def test_a_machine_that_is_too_busy_to_be_measured_is_told_what_to_do(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "TIMEOUT_S", -3 * calibrate.MEASURE_S)
    with pytest.raises(EngineError, match=r"more than 0 s, .* busy; .* --calibration off"):
        await calibrate.calibrated(box(tmp_path, nursery))


async def test_without_calibration_generic_figures_are_shipped(tmp_path: Path) -> None:
    plain = await calibrate.calibrated(box(tmp_path, None, calibration="off"))
    predictor = Predictor.from_plain(plain)
    assert predictor == calibrate.GENERIC
    assert predictor.predict(CONV) == pytest.approx(5e-6 + 1e9 * 2e-11 + 3e5 * 1e-10, 1e-3)
    assert not calibrate.cache_path(Config(store=tmp_path, threads=1)).exists()


def test_another_machine_device_or_thread_count_is_measured_anew(tmp_path: Path) -> None:
    paths = {
        calibrate.cache_path(Config(store=tmp_path, threads=threads, device=device))
        for threads in (1, 2)
        for device in ("cpu", "cuda")
    }
    assert len(paths) == 4


def test_what_calibration_kept_is_what_a_box_ships(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    options = ["--seconds", "1", "--threads", "1", "--store", str(store), "--json"]
    ran = CliRunner().invoke(app, ["calibrate", *options])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert printed["path"] == str(calibrate.cache_path(Config(store=store, threads=1)))
    kept = Predictor.from_plain(json.loads(Path(printed["path"]).read_text()))
    assert kept == Predictor.from_plain(printed["predictor"])
    rows = {row["type"]: row for row in printed["seconds"]}
    assert rows["convolution"]["count"] >= 10
    assert rows["convolution"]["r_squared"] <= 1
    assert not list(store.glob("*.[0-9]*"))


def test_without_energy_counters_there_is_no_power_table(tmp_path: Path) -> None:
    measured = calibrate.calibration(CALIBRATED)
    text = calibration_table.as_text(measured, tmp_path)
    assert calibration_table.NO_ENERGY in text
    assert "RMSE, mJ" not in text
    assert json.loads(calibration_table.as_json(measured, tmp_path))["joules"] is None
    with pytest.raises(ValueError, match="at least one sample"):
        measured.predictor("J")


def test_power_is_fitted_and_shown_as_times_are(tmp_path: Path) -> None:
    watts = 20.0
    powered = dataclasses.replace(
        CALIBRATED,
        samples=tuple((*row[:2], row[2], watts * row[2]) for row in CALIBRATED.samples),
    )
    measured = calibrate.calibration(powered)
    text = calibration_table.as_text(measured, tmp_path)
    assert "RMSE, mJ" in text
    energy = measured.predictor("J")
    assert energy.unit == "J"
    work = measured.seconds[7].work
    assert energy.cost(work) == pytest.approx(watts * (measured.predictor().cost(work)), rel=0.02)


CALIBRATED = jobs.Calibrated(
    tuple(
        ("ReLU", (("elementwise", 1.0 * n, 4.0 * n, 0.0, 4.0 * n),), 1e-6 + 1e-9 * n, None)
        for n in range(100, 3000, 100)
    ),
    5e-6,
)


@pytest.mark.parametrize("option", [["--seconds", "0"], ["--device", "tpu"], ["--threads", "-1"]])
def test_bad_options_end_with_a_reason(option: list[str], tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["calibrate", "--store", str(tmp_path), *option])
    assert ran.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    ran = CliRunner().invoke(app, ["calibrate", "--store", str(file / "store")])
    assert ran.exit_code == 1
    assert "cannot keep the calibration" in ran.stderr

"""What a calibration found, for people and for scripts: a row per type of layer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ionn_edge.calibration.calibrate import Calibration
from planner.accuracy import Accuracy
from planner.predictor import Unit

NO_ENERGY = "No energy counters that this user may read (/sys/class/powercap): no power table."
_SCALES: dict[Unit, tuple[float, str]] = {"s": (1e6, "us"), "J": (1e3, "mJ")}


def as_text(measured: Calibration, path: Path) -> str:
    """The tables, and where the predictor is kept."""
    lines = ["How well layers are predicted that the fit did not use:", *_table(measured, "s")]
    lines += ["", *_table(measured, "J")] if measured.joules else ["", NO_ENERGY]
    return "\n".join([*lines, f"Kept in {path}"])


def as_json(measured: Calibration, path: Path) -> str:
    """One object: the tables, the predictors in plain form, and where the first is kept."""
    report: dict[str, Any] = {
        "path": str(path),
        "entry_s": measured.entry_s,
        "seconds": [asdict(row) for row in measured.accuracies()],
        "predictor": measured.predictor().to_plain(),
        "joules": None,
        "energy_predictor": None,
    }
    if measured.joules:
        report["joules"] = [asdict(row) for row in measured.accuracies("J")]
        report["energy_predictor"] = measured.predictor("J").to_plain()
    return json.dumps(report)


def _table(measured: Calibration, unit: Unit) -> list[str]:
    factor, name = _SCALES[unit]
    head = f"{'type':18}{'layers':>7}{f'median, {name}':>13}{'R2':>9}{f'RMSE, {name}':>13}"
    return [
        f"{head}{'error':>8}{'within 10%':>12}",
        *(_line(row, factor) for row in measured.accuracies(unit)),
    ]


def _line(row: Accuracy, factor: float) -> str:
    return (
        f"{row.type:18}{row.count:>7}{row.median * factor:>13.1f}{row.r_squared:>9.2f}"
        f"{row.rmse * factor:>13.1f}{row.error:>8.1%}{row.close:>12.0%}"
    )

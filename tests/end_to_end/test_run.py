"""`ionn run` with a real edge: joules of each query, and what is left of a battery."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from ionn_client import cli
from ionn_client.processes import EdgeProcess
from tests.end_to_end.test_doctor import conversation, frames, says, server
from tests.ionn_client.test_session import WELCOME

FRUGAL = ("--power", "compute=2,idle=0.5", "--radio", "wifi")
# Its radio draws more for one message than computing does for many queries.
HUNGRY = ("--power", "compute=2,idle=0,base=1e12,up=0,down=0")
COMPUTE_W = 2.0


def run(edge: EdgeProcess, *args: str) -> str:
    device = ("--network", "lenet", "--device-slowdown", "500", "--interval", "0.2")
    found = CliRunner().invoke(cli.app, ["run", "--edge", edge.address, *device, *args])
    assert found.exit_code == 0, found.output
    return found.stdout


def queries(edge: EdgeProcess, *args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(edge, *args, "--json").splitlines()]


def test_a_model_above_the_quota_is_refused_with_its_figure_and_runs_here() -> None:
    with EdgeProcess(options=("--calibration", "off", "--quota", "100K")) as edge:
        text = " ".join(run(edge, "--queries", "5").split())
    assert f"ionn://{edge.address} is not used: the model's weights take 1.7 MB" in text
    assert "one device may have 102.4 KB of them on this edge" in text
    assert "5 of 5 exact answers equal the local model's" in text


async def test_a_run_that_ends_before_the_edge_knows_the_model_says_so() -> None:
    greets = conversation(*frames(WELCOME), then="wait")
    async with server(says(b""), greets) as address:
        asking = ("--network", "lenet", "--queries", "3", "--interval", "0.2")
        command = ["run", "--edge", address, *asking]
        found = await asyncio.to_thread(CliRunner().invoke, cli.app, command)
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    assert f"{address} was not used: it has not said yet what it has of the model." in text


def test_each_query_tells_its_joules_and_what_is_left(edge: EdgeProcess) -> None:
    asked = queries(edge, "--queries", "4", *FRUGAL, "--battery", "1000")
    assert all(query["difference"] == 0 for query in asked)
    assert all(query["energy_J"] > 0 for query in asked)
    left_J = 1000.0
    for query in asked:
        left_J -= query["energy_J"]
        assert query["battery_J"] == pytest.approx(left_J)


@pytest.mark.parametrize(
    "aim",
    [
        ("--objective", "energy"),
        ("--objective", "mix", "--seconds-per-joule", "10"),
        ("--battery", "1e3"),
    ],
)
def test_joules_keep_queries_off_a_hungry_radio(edge: EdgeProcess, aim: tuple[str, ...]) -> None:
    asked = queries(edge, "--queries", "3", *HUNGRY, *aim)
    assert {query["served_by"] for query in asked} == {"client"}
    for query in asked:
        assert query["energy_J"] == pytest.approx(COMPUTE_W * query["predicted_s"])


def test_the_text_tells_joules_too(edge: EdgeProcess) -> None:
    text = " ".join(run(edge, "--queries", "1", *FRUGAL, "--battery", "1000").split())
    assert "The device drew" in text
    assert "J of the battery are left." in text


def test_without_a_power_no_joules_are_told(edge: EdgeProcess) -> None:
    (query,) = queries(edge, "--queries", "1")
    assert query["energy_J"] is None
    assert query["battery_J"] is None
    assert "drew" not in run(edge, "--queries", "1")


def held_bytes(edge: EdgeProcess) -> list[int]:
    report = CliRunner().invoke(cli.app, ["ps", "--edge", edge.address, "--json"]).stdout
    return [model["held_bytes"] for model in json.loads(report)["models"]]


def test_a_stay_that_does_not_pay_uploads_nothing(edge: EdgeProcess) -> None:
    before = held_bytes(edge)
    few = ("--network", "chk", "--queries", "4")
    asked = queries(edge, *FRUGAL, *few, "--stay", "0s")
    assert all(query["difference"] == 0 for query in asked)
    assert asked[-1]["phase"] == "ready"
    assert sorted(held_bytes(edge)) == sorted([0, *before])

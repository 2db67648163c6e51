"""The decisions that Neurosurgeon and JointDNN print, planned again from stated device profiles.

Neurosurgeon's table: where 8 networks are split, over 3 radios and from 2 devices, for latency and
for energy. JointDNN's schedules: which sides a query visits, for networks that classify, generate
and translate. Layer times follow from shapes and `ionn_client/devices/*.toml`; nothing is run.
Printed cells are shown where they are known, and how; where ours differ, the table says what
would have to be different for both to agree.

`python benchmarks/papers.py [--quick] [--server NAME] [--sources] [--json FILE]` exits 1 when a
profile does not give the times that its paper prints for AlexNet, to 3%.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from papers_figures import decisions, published, schedules
from papers_figures.costs import costs_on, graphs
from papers_figures.decisions import Decision
from papers_figures.schedules import Schedule
from rich import box
from rich.console import Console
from rich.table import Table

from ionn_client.devices import DeviceProfile, load_device
from ionn_client.quantities import bit_rate, joules, seconds
from layergraph import LayerGraph
from planner.power import LINKS, RADIOS, energy_prices

DEVICE = "jetson-tx2"
QUICK = ("alexnet", "pos", "chair")
CLOSE, NEARLY = 0.03, 1.05
LANGUAGE = ("pos", "ner", "chk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--server", default="tesla-k40", help="edge of JointDNN's schedules")
    parser.add_argument("--sources", action="store_true", help="where each device figure is from")
    parser.add_argument("--json", type=Path, help="write all cells here")
    options = parser.parse_args()
    client, edge = load_device(DEVICE), load_device(options.server)
    wanted = dict.fromkeys((*decisions.NETWORKS, *schedules.KINDS))
    found = dict(graphs(name for name in wanted if not options.quick or name in QUICK))
    console = Console(width=118, highlight=False)
    show_profiles(
        console, [*decisions.DEVICES, decisions.SERVER, DEVICE, options.server], options.sources
    )
    checked = check_profiles(console, found["alexnet"])
    decided = list(decisions.decide({n: found[n] for n in decisions.NETWORKS if n in found}))
    show_decisions(console, decided)
    scheduled = list(
        schedules.schedule_all({n: found[n] for n in schedules.KINDS if n in found}, client, edge)
    )
    show_schedules(console, scheduled, client, edge)
    if options.json:
        cells = {
            "decisions": [dataclasses.asdict(each) for each in decided],
            "schedules": [dataclasses.asdict(each) for each in scheduled],
        }
        options.json.write_text(json.dumps(cells, indent=1))
    return 0 if checked else 1


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="bold")


def show_profiles(console: Console, keys: Iterable[str], sources: bool) -> None:
    """The processors, and on request where each figure is from."""
    for key in dict.fromkeys(keys):
        device = load_device(key)
        console.print(f"{key}: {device.name}", style="bold")
        if sources:
            for name, figure in _figures(device):
                console.print(f"  {name} {figure.value:.4g}: {figure.source}")
    if not sources:
        console.print("Where each figure of these profiles is from: --sources.")


def _figures(device: DeviceProfile) -> Iterable[tuple[str, Any]]:
    yield from ((f"FLOP/s of {kind}", figure) for kind, figure in device.flops.items())
    yield from (
        (name, figure)
        for name in ("memory_Bps", "launch_s", "compute_W", "idle_W")
        if (figure := getattr(device, name)) is not None
    )


def check_profiles(console: Console, alexnet: LayerGraph) -> bool:
    """AlexNet whole on each processor and its photo over each radio, beside the printed times."""
    _heading(
        console, "Neurosurgeon, section 3: AlexNet (profiles and rates are derived from these)"
    )
    table = Table(
        "",
        "printed",
        "how known",
        "ours",
        box=box.SIMPLE_HEAD,
    )
    close = True
    for key, printed in published.ALEXNET_s.items():
        ours_s = sum(load_device(key).layer_s(alexnet))
        close &= abs(ours_s / float(printed.value) - 1) <= CLOSE
        table.add_row(
            load_device(key).name, seconds(float(printed.value)), printed.known, seconds(ours_s)
        )
    sent = alexnet.cut_bytes[0]
    for radio, printed in published.PHOTO_s.items():
        link = decisions.links()[radio]
        name = f"its photo over {radio}, so {bit_rate(link.up_Bps)}"
        table.add_row(
            name, seconds(float(printed.value)), printed.known, seconds(sent / link.up_Bps)
        )
    gpu = load_device("jetson-tk1-gpu")
    link, power = decisions.links()["LTE"], gpu.power(RADIOS["4g"])
    costs = costs_on(alexnet, gpu, load_device(decisions.SERVER))
    prices = energy_prices(costs, link, power)
    for name, printed, ours_J in (
        ("energy of AlexNet on the GPU", published.GPU_J, prices.client.sum()),
        ("energy of sending its photo over LTE", published.LTE_J, prices.up[0]),
    ):
        table.add_row(name, joules(float(printed.value)), printed.known, joules(float(ours_J)))
    console.print(table)
    console.print(
        "The radio's power (JointDNN, Tables 2 and 3) counts no tail, what an LTE radio draws for"
        " seconds after it has sent,\nwhich may be why the paper's figure is larger."
    )
    return close


def show_decisions(console: Console, decided: Sequence[Decision]) -> None:
    """A table for each objective, then every cell that differs, then the gains."""
    networks = list(dict.fromkeys(each.network for each in decided))
    for objective in decisions.OBJECTIVES:
        _heading(console, f"Neurosurgeon: where each network is split for the best {objective}")
        table = Table(
            "device",
            "radio",
            *networks,
            box=box.SIMPLE_HEAD,
        )
        rows: dict[tuple[str, str], list[str]] = {}
        for each in decided:
            if each.objective == objective:
                rows.setdefault((each.device, each.radio), []).append(_cell(each))
        for (device, radio), cells in rows.items():
            table.add_row(device, radio, *cells)
        console.print(table)
    console.print(
        "A cell is the last layer on the device, with the activations and pools that follow it"
        " (conv5 is the paper's\npool5); input: all on the server, end: all on the device. = as"
        " printed, ! not, nothing: the printed cell is not\nknown here. The printed cells that are"
        " known: AlexNet on the GPU over Wi-Fi (pool5), and that asr, pos, ner and\nchk are split"
        " at either end; all from memory."
    )
    show_differences(console, decided)
    show_close_calls(console, decided)
    show_gains(console, decided)


def _cell(each: Decision) -> str:
    mark = {None: "", True: " =", False: " !"}[each.agrees]
    return each.split + mark


def show_differences(console: Console, decided: Sequence[Decision]) -> None:
    known = [each for each in decided if each.agrees is not None]
    agreeing = sum(each.agrees is True for each in known)
    exact = sum(each.printed is not published.EITHER_END for each in known)
    console.print(
        f"\nOf {len(decided)} cells {len(known)} are known, and {agreeing} of those agree. All but"
        f" {exact} of them say only that the split is at\neither end, and the GPU's profile was"
        " derived from AlexNet: that these agree is little proof."
    )
    for each in known:
        if each.why:
            assert each.printed is not None
            console.print(
                f"- {each.network}, {each.device}, {each.radio}, {each.objective}: ours is"
                f" {each.split}, printed {each.printed.value} ({each.printed.known}): {each.why}."
            )


def show_close_calls(console: Console, decided: Sequence[Decision]) -> None:
    """Cells that a few percent would change: there, papers and profiles may well differ."""
    close = [each for each in decided if each.second[1] <= NEARLY]
    told = "; ".join(
        f"{each.network} ({each.device}, {each.radio}, {each.objective}): {each.second[0]},"
        f" {100 * (each.second[1] - 1):.1f}% more"
        for each in close
    )
    console.print(
        f"\nClose calls, where another split costs at most {100 * (NEARLY - 1):.0f}% more:"
        f" {told or 'none'}."
    )


def show_gains(console: Console, decided: Sequence[Decision]) -> None:
    _heading(console, "Neurosurgeon, abstract (found)")
    table = Table(
        "all on the server over the best split",
        "mean",
        "at most",
        "printed: mean",
        "at most",
        box=box.SIMPLE_HEAD,
    )
    rest = [each for each in decided if each.network not in LANGUAGE]
    for name, cells in (("all networks", decided), (f"without {', '.join(LANGUAGE)}", rest)):
        gains = [each.gain for each in cells if each.objective == "latency"]
        saved = [1 - 1 / each.gain for each in cells if each.objective == "energy"]
        whole = cells is decided
        table.add_row(
            f"times the latency, {name}", f"{statistics.fmean(gains):.1f}", f"{max(gains):.1f}",
            f"{published.SPEEDUP_MEAN.value}" if whole else "",
            f"{published.SPEEDUP_MOST.value}" if whole else "",
        )  # fmt: skip
        table.add_row(
            f"energy saved, {name}", _share(statistics.fmean(saved)), _share(max(saved)),
            _share(published.ENERGY_SAVED_MEAN.value) if whole else "",
            _share(published.ENERGY_SAVED_MOST.value) if whole else "",
        )  # fmt: skip
    console.print(table)
    console.print(
        "The language networks compute in a millisecond or two on these profiles, which count no"
        " fixed cost of a query; sending\ntheir words, looked up, takes up to a quarter of a"
        " second: hence hundreds of times. What they take in the paper is not\nknown here."
    )


def _share(part: float | str) -> str:
    return f"{100 * float(part):.1f}%"


def show_schedules(
    console: Console, scheduled: Sequence[Schedule], client: DeviceProfile, edge: DeviceProfile
) -> None:
    rates = "; ".join(
        f"{schedules.RADIO_NAMES[key]} {bit_rate(link.up_Bps)} up, {bit_rate(link.down_Bps)} down"
        for key, link in LINKS.items()
    )
    console.print(f"\nJointDNN: a {client.name} with a {edge.name}. {rates}.")
    console.print(
        "Every number crosses in 8 bits, as the paper quantises (from memory; the answers' error is"
        " not looked at here)."
    )
    patterns = "; ".join(f"{kind}: {each.value}" for kind, each in published.PATTERNS.items())
    console.print(f"Printed patterns, all from memory: {patterns}.")
    console.print("The last column: the best schedule of the printed pattern, and what it costs.")
    for objective in schedules.OBJECTIVES:
        _heading(console, f"JointDNN: the schedules with the best {objective}")
        table = Table(
            "network",
            "kind",
            "radio",
            "our schedule",
            "as printed, or why not",
            box=box.SIMPLE_HEAD,
        )
        before = ""
        for each in (each for each in scheduled if each.objective == objective):
            name, kind = (each.network, each.kind) if each.network != before else ("", "")
            table.add_row(name, kind, each.radio, each.told, each.why or "as printed")
            before = each.network
        console.print(table)
    show_schedule_gains(console, scheduled)


def show_schedule_gains(console: Console, scheduled: Sequence[Schedule]) -> None:
    _heading(console, "JointDNN, abstract (found): so many times as much, mean and at most")
    table = Table(
        "over our schedules",
        "all on the client",
        "all on the edge",
        "the better of the two",
        "printed, at most",
        box=box.SIMPLE_HEAD,
    )
    for objective, printed in (
        ("latency", published.JOINTDNN_SPEEDUP_MOST),
        ("energy", published.JOINTDNN_ENERGY_MOST),
    ):
        cells = [each for each in scheduled if each.objective == objective]
        ratios = (
            [each.over_client for each in cells],
            [each.over_edge for each in cells],
            [min(each.over_client, each.over_edge) for each in cells],
        )
        shown = [f"{statistics.fmean(ratio):.2f}, {max(ratio):.2f}" for ratio in ratios]
        table.add_row(objective, *shown, f"{printed.value:.0f} over the status quo")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

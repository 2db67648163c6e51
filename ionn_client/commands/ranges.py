"""`ionn profile --grouped`: what ranges of layers cost on this machine, run in one go."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ionn_client.commands.arguments import print_json
from ionn_client.local import GroupedProfile, profile_grouped
from layergraph import capture, flatten_inputs
from layergraph.load import load

TITLES = {"sum_of_layers": "sum of layers alone", "grouped": "grouped: start-up + marginal"}


def show_ranges(network: str, runs: int, threads: int, as_json: bool) -> None:
    """Print the layers' times alone and in company, and the errors of both on held-out ranges."""
    loaded = load(network)
    graph, weights = capture(loaded.model, loaded.args, loaded.kwargs)
    live = flatten_inputs(graph, loaded.args, loaded.kwargs)
    measured = profile_grouped(graph, weights, live, runs, threads)
    names = [layer.name for layer in graph.layers]
    if as_json:
        report = {"network": network, "fingerprint": graph.fingerprint, "layers": names}
        print_json(report | as_plain(measured))
        return
    console = Console()
    console.print(_layers(network, names, measured))
    console.print(_errors(measured))


def as_plain(profile: GroupedProfile) -> dict[str, Any]:
    """Everything measured and fitted, and the errors on the ranges that were held out."""
    times, errors = profile.times, profile.errors
    return {
        "startup_s": times.startup_s,
        "marginal_s": times.marginal_s.tolist(),
        "measured": [[start, stop, seconds] for (start, stop), seconds in times.measured.items()],
        "held_out": [
            {"start": start, "stop": stop, "sum_of_layers_error": alone, "grouped_error": together}
            for (start, stop), alone, together in zip(
                errors.ranges, errors.sum_of_layers.tolist(), errors.grouped.tolist(), strict=True
            )
        ],
        "errors": errors.summary(),
    }


def _layers(network: str, names: list[str], profile: GroupedProfile) -> Table:
    times, count = profile.times, len(names)
    table = Table(
        title=f"{network}: {len(times.measured)} of {count * (count + 1) // 2} ranges measured",
        title_justify="left",
    )
    table.add_column("#", justify="right")
    table.add_column("layer")
    table.add_column("alone", justify="right")
    table.add_column("in a range", justify="right")
    for index, name in enumerate(names):
        alone_s, marginal_s = times.seconds(index, index + 1), times.marginal_s[index]
        table.add_row(str(index), name, f"{alone_s * 1e3:.3f} ms", f"{marginal_s * 1e3:.3f} ms")
    table.add_section()
    table.add_row("", "each range's start-up", "", f"{times.startup_s * 1e3:.3f} ms")
    alone_s = sum(times.seconds(index, index + 1) for index in range(count))
    table.add_row("", "sum of layers", f"{alone_s * 1e3:.3f} ms")
    table.add_row("", "in one go, measured", "", f"{times.seconds(0, count) * 1e3:.3f} ms")
    return table


def _errors(profile: GroupedProfile) -> Table:
    held_out = len(profile.errors.ranges)
    table = Table(
        title=f"Errors on {held_out} measured {'range' if held_out == 1 else 'ranges'} that the fit"
        " did not use",
        title_justify="left",
    )
    table.add_column("prediction")
    for heading in ("median", "90th percentile", "largest", "within 10%"):
        table.add_column(heading, justify="right")
    for name, figures in profile.errors.summary().items():
        table.add_row(TITLES[name], *(f"{100 * figure:.1f}%" for figure in figures.values()))
    return table

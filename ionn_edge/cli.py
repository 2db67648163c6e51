"""`ionn edge`: the box's commands."""

from __future__ import annotations

import typer

from ionn_edge.commands import cache, calibrate, devices, publish, serve

app = typer.Typer(
    name="edge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Be an edge box: lend this machine's processor to clients nearby.",
)


@app.callback()
def edge() -> None:
    """Be an edge box: lend this machine's processor to clients nearby."""


app.command("serve")(serve.serve)
app.command("pair")(devices.pair)
app.command("devices")(devices.devices)
app.command("unpair")(devices.unpair)
app.command("publish")(publish.publish)
app.command("unpublish")(publish.unpublish)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(cache.app)


def main() -> None:
    """`python -m ionn_edge`."""
    app(prog_name="python -m ionn_edge")

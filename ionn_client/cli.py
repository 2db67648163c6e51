"""The `ionn` command. Rooms outside this package (the edge) are mounted by entry point."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import entry_points

import typer

from ionn_client.commands import (
    bench,
    demo,
    devices,
    discover,
    doctor,
    forget,
    pair,
    plan,
    profile,
    ps,
    run,
)
from ionn_client.errors import OffloadError
from layergraph import GraphError

app = typer.Typer(
    name="ionn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run a neural network together with whichever edge box is near, while its weights are"
    " still uploading. Start with `ionn demo`.",
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("profile")(profile.profile)
app.add_typer(bench.app, name="bench")
app.command("ps")(ps.ps)
app.command("discover")(discover.discover_boxes)
app.command("pair")(pair.pair_box)
app.add_typer(devices.app, name="devices")
app.command("forget")(forget.forget_me)
app.command("doctor")(doctor.doctor)
for _room in entry_points(group="ionn.commands"):
    app.add_typer(_room.load(), name=_room.name)


def main() -> None:
    """Run the command line; a foreseeable failure is one line and exit code 2."""
    # Without this, a terminated demo or benchmark would leave its edge process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except (OffloadError, GraphError, ValueError, OSError) as error:
        print(f"ionn: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

"""`ionn forget`: have a box wipe what it holds of this device's."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ionn_client.boxes.access import Access
from ionn_client.boxes.forget import forget
from ionn_client.commands.arguments import Json, State, print_json


def forget_me(
    box: Annotated[str, typer.Argument(help="The box's name or address.")],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Have a box wipe the weights and graphs that it holds of this device's.

    The pairing stays: `ionn devices forget NAME` ends that.
    """
    access = Access.to(box, state)
    asyncio.run(forget(access))
    if as_json:
        print_json({"edge": str(access), "forgotten": True})
        return
    print(f"{access} holds nothing of this device's any more.")

"""`ionn forget`: have a box wipe what it holds of this device's."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ionn_client.access import Access
from ionn_client.commands.arguments import State
from ionn_client.forget import forget


def forget_me(
    box: Annotated[str, typer.Argument(help="The box's name or address.")], state: State = None
) -> None:
    """Have a box wipe the weights and graphs that it holds of this device's.

    The pairing stays: `ionn devices forget NAME` ends that.
    """
    access = Access.to(box, state)
    asyncio.run(forget(access))
    print(f"{access} holds nothing of this device's any more.")

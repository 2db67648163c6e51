"""Asks a box to wipe what it holds of this device's: weights and graphs. The pairing stays."""

from __future__ import annotations

import aiohttp

from ionn_client.boxes.access import REQUEST_TIMEOUT_S, Access, TurnedAway
from ionn_client.boxes.connection import cause
from ionn_client.errors import EdgeUnreachable, NotPaired, PairingError

PATH = "/forget"
MAX_ANSWER_BYTES = 4096


async def forget(access: Access) -> None:
    """Returns once the box says that nothing of this device's is left there.

    Raises EdgeUnreachable if it does not, and PairingError if it is not who was paired.
    """
    try:
        async with (
            access.http() as http,
            http.post(
                access.url(PATH), headers=access.headers, ssl=access.tls, allow_redirects=False
            ) as answer,
        ):
            if answer.status not in (200, 204):
                text = await answer.content.read(MAX_ANSWER_BYTES)
                answer.raise_for_status()
                raise aiohttp.ClientError(f"HTTP {answer.status}, {text!r}")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        told = await access.explained(error)
        if isinstance(told, PairingError):
            raise told from error
        if isinstance(told, TurnedAway):
            raise NotPaired(f"{access}: {told}") from error
        why = told or cause(error, REQUEST_TIMEOUT_S)
        raise EdgeUnreachable(
            f"{access} has not said that it forgot this device: {why}. Ask again"
        ) from error
    await access.settle(known=True)

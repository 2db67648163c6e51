"""From the options that count joules to what the device draws, and what is to be minimised."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from ionn_client.devices import DeviceProfile
from ionn_client.emulate.link import parse_time
from planner.objective import Objective
from planner.power import RADIOS, Power, Radio

RadioKey: TypeAlias = Literal["3g", "4g", "wifi"]
GoalKey: TypeAlias = Literal["latency", "energy", "mix"]
POWER_NEEDED = "say what the device draws, with --radio, and --device or --power compute=5,idle=1.5"
_OF_BOARD, _OF_RADIO = ("compute", "idle"), ("base", "up", "down")


def check_finite(option: str, value: float | None) -> None:
    """ValueError that names the option unless its value is a finite number, or not given."""
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{option} is a finite number, not {value}")


def stated_time(option: str, text: str | None) -> float | None:
    """Seconds, or None where the option was not given. ValueError that names the option."""
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def stated_power(
    text: str | None, radio_key: RadioKey | None, device: DeviceProfile | None
) -> Power | None:
    """What --power says, else what --device and --radio do; None where that is not enough.

    Raises ValueError that names the option for a --power that says half of something.
    """
    given = _power_numbers(text) if text is not None else {}
    radio = RADIOS[radio_key] if radio_key is not None else None
    if any(name in given for name in _OF_RADIO):
        if missing := [name for name in _OF_RADIO if name not in given]:
            raise ValueError(f"--power has no {missing[0]}, which the radio's power needs too")
        radio = Radio.measured("given", *(given[name] * 1e3 for name in ("up", "down", "base")))
    if any(name in given for name in _OF_BOARD):
        if missing := [name for name in _OF_BOARD if name not in given]:
            raise ValueError(f"--power has no {missing[0]}, which the device's power needs too")
        if radio is None:
            raise ValueError("--power says nothing of the radio: add --radio, or base, up and down")
        return Power(given["compute"], given["idle"], radio)
    if device is None or device.compute_W is None or radio is None:
        return None
    return device.power(radio)


def _power_numbers(text: str) -> dict[str, float]:
    known = ", ".join((*_OF_BOARD, *_OF_RADIO))
    given: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or name not in (*_OF_BOARD, *_OF_RADIO):
            raise ValueError(f"--power: cannot read {part!r}; write NAME=WATTS, NAME of {known}")
        if name in given:
            raise ValueError(f"--power gives {name} twice")
        try:
            given[name] = float(number)
        except ValueError:
            raise ValueError(f"--power: {name} is a number of watts, not {number!r}") from None
        if not (math.isfinite(given[name]) and given[name] >= 0):
            raise ValueError(f"--power: {name} is a finite number from 0, not {number}")
    return given


def stated_objective(goal: GoalKey, s_per_J: float | None, power: Power | None) -> Objective:
    """What --objective and --seconds-per-joule ask for; with the power in it, where it is known.

    Raises ValueError that names the option where joules count and no power is known.
    """
    if (s_per_J is not None) != (goal == "mix"):
        raise ValueError("--objective mix needs --seconds-per-joule, and no other objective has it")
    if goal == "latency":
        return Objective(power=power)
    if power is None:
        raise ValueError(f"--objective {goal} counts joules: {POWER_NEEDED}")
    return Objective(0.0, 1.0, power) if s_per_J is None else Objective(1.0, s_per_J, power)

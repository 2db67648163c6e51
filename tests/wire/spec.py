"""The parts of docs/protocol.md that are data: written from it, and compared with it by a test.

`python -m tests.wire.spec` rewrites them, and the golden bytes with `--golden` as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import wire
from tests.wire.example import EXCHANGE, LANE_EXCHANGE
from wire import Role, State
from wire.plans import plans
from wire.states import RECEIVES, SENDS

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "docs" / "protocol.md"
GOLDEN = Path(__file__).parent / "golden"

# In the order of Limits.
LIMIT_MEANINGS = {
    "max_header_bytes": "the header of any message; most kinds have a lower limit, below",
    "max_message_bytes": "header and buffers of one message together; so its tensors when decoded",
    "max_buffer_bytes": "one tensor's data, both as it is sent and as it is decoded",
    "max_chunk_bytes": "`Chunk.payload`",
    "max_segment_bytes": "a segment, both as it is sent and as it is decoded",
    "max_graph_bytes": "`Offer.graph`",
    "max_tensors": "tensors of one Execute or Result",
    "max_rank": "dimensions of a tensor",
    "max_weights": "weights of one model, so the sum of `Have.runs`",
    "max_models": "rows of `Load.models`",
    "max_name_bytes": "every string but `Error.text`, in bytes of UTF-8",
    "max_text_bytes": "`Error.text`, in bytes of UTF-8",
    "max_plain_items": "values in `Welcome.predictor`, nested ones and itself included",
    "max_plain_depth": "levels of `Welcome.predictor`, itself included",
}


def golden_frames() -> dict[str, list[str]]:
    """The first message of each kind in the example: its frames in hex."""
    frames: dict[str, list[str]] = {}
    for _, message, _ in EXCHANGE + LANE_EXCHANGE:
        name = type(message).__name__
        frames.setdefault(name, [bytes(frame).hex() for frame in wire.encode(message)])
    return frames


def example(exchange: list[tuple[Role, wire.Message, str]]) -> str:
    lines = []
    for number, (sender, message, remark) in enumerate(exchange, 1):
        arrow = "client → edge" if sender is Role.CLIENT else "edge → client"
        lines += [f"**{number}. {arrow}: {type(message).__name__}.** {remark}", "", "```"]
        header, *buffers = [bytes(frame) for frame in wire.encode(message, inline_bytes=0)]
        lines += [_hex("header", header), *(_hex("buffer", data) for data in buffers)]
        lines += ["```", ""]
    return "\n".join(lines[:-1])


def _hex(what: str, data: bytes) -> str:
    pieces = [data[at : at + 24].hex(" ") for at in range(0, len(data), 24)]
    return f"{what}  " + ("\n" + " " * 8).join(pieces)


def states(role: Role) -> str:
    lines = [f"| {role.value} is | it may send | it may hear |", "|---|---|---|"]
    for state in SENDS[role]:
        cells = [_moves(state, tables[role][state]) for tables in (SENDS, RECEIVES)]
        lines.append(f"| {state.name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _moves(state: State, row: dict[type, State]) -> str:
    staying = [kind.__name__ for kind, after in row.items() if after is state]
    moving = [f"{kind.__name__} → {after.name}" for kind, after in row.items() if after != state]
    return ", ".join([*staying, *moving]) or "nothing"


def limits() -> str:
    lines = ["| limit | default | bounds |", "|---|---:|---|"]
    for field in dataclasses.fields(wire.Limits):
        lines.append(f"| `{field.name}` | {field.default:,} | {LIMIT_MEANINGS[field.name]} |")
    return "\n".join(lines)


def headers() -> str:
    lines = ["| kind | message | fields | longest header |", "|---:|---|---:|---:|"]
    for kind, plan in plans(wire.DEFAULT_LIMITS).items():
        name = plan.type.__name__
        lines.append(f"| {kind} | {name} | {len(plan.names)} | {plan.max_header_bytes:,} |")
    return "\n".join(lines)


def sections() -> dict[str, str]:
    return {
        "client states": states(Role.CLIENT),
        "edge states": states(Role.EDGE),
        "limits": limits(),
        "headers": headers(),
        "example": example(EXCHANGE),
        "lane example": example(LANE_EXCHANGE),
    }


def rewritten(text: str) -> str:
    """The page with every section between its markers brought up to date."""
    for name, content in sections().items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        block = f"{begin}\n{content}\n{end}"
        text, count = re.subn(f"{begin}.*?{end}", lambda _, b=block: b, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{PROTOCOL.name} has {count} sections {name!r}, not 1")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", action="store_true", help="accept changed bytes")
    if parser.parse_args().golden:
        for name, frames in golden_frames().items():
            (GOLDEN / f"{name}.hex").write_text("\n".join(frames) + "\n")
    PROTOCOL.write_text(rewritten(PROTOCOL.read_text()))


if __name__ == "__main__":
    main()

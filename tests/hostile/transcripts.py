"""What a hostile peer said, frame by frame, and what must come of it: files in transcripts/.

Each is JSON: `why` for people; `side`, who speaks: "client" or "edge"; `frames`, each in hex,
{"text": ...} for a WebSocket text message, {"until": ...} to wait for a message of this name;
`code`, the error that ends the conversation ("" where it ends without one, or goes on);
`answers`, the codes of errors that answer queries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent / "transcripts"
SIDES = ("client", "edge")


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Until:
    """The other side's next message of this name, before anything more is said."""

    until: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What one side said, and what must come of it."""

    name: str
    why: str
    side: str
    frames: tuple[bytes | Text | Until, ...]
    code: str = ""
    answers: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Transcript:
        plain = json.loads(path.read_text())
        frames = tuple(map(_frame, plain.pop("frames")))
        answers = tuple(plain.pop("answers"))
        return cls(path.stem, frames=frames, answers=answers, **plain)

    def write(self) -> Path:
        plain = asdict(self)
        del plain["name"]
        plain["frames"] = [
            each.hex() if isinstance(each, bytes) else asdict(each) for each in self.frames
        ]
        path = DIRECTORY / f"{self.name}.json"
        path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
        return path


def _frame(plain: str | dict[str, str]) -> bytes | Text | Until:
    if isinstance(plain, str):
        return bytes.fromhex(plain)
    return Text(**plain) if "text" in plain else Until(**plain)


def transcripts(side: str) -> Iterator[Transcript]:
    """All of one side, in the order of their names."""
    for path in sorted(DIRECTORY.glob("*.json")):
        transcript = Transcript.read(path)
        if transcript.side == side:
            yield transcript

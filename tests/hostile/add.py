"""Adds to the hostile corpus, after a look whether it is refused: `python -m tests.hostile.add -h`.

file KIND NAME PATH                    a file that somebody else may have written
transcript NAME SIDE WHY FRAME ...     what a hostile client or edge said, each frame in hex
fuzz NAME WHY PATH                     an input of the fuzzer's decoder target, as a client's
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.fuzz.streams import frames_of
from tests.hostile.readers import DIRECTORY, READERS, refusal
from tests.hostile.transcripts import SIDES, Transcript


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    what = parser.add_subparsers(required=True, dest="what")
    file = what.add_parser("file")
    file.add_argument("kind", choices=READERS)
    file.add_argument("name")
    file.add_argument("path", type=Path)
    transcript = what.add_parser("transcript")
    transcript.add_argument("name")
    transcript.add_argument("side", choices=SIDES)
    transcript.add_argument("why")
    transcript.add_argument("frames", nargs="+", type=bytes.fromhex)
    transcript.add_argument("--code", default="", help="of the error that must end it")
    transcript.add_argument(
        "--answer", action="append", default=[], help="codes of queries' errors"
    )
    fuzz = what.add_parser("fuzz")
    fuzz.add_argument("name")
    fuzz.add_argument("why")
    fuzz.add_argument("path", type=Path)
    options = parser.parse_args()
    if options.what == "file":
        print(_add_file(options.kind, options.name, options.path.read_bytes()))
    elif options.what == "fuzz":
        frames = tuple(frames_of(options.path.read_bytes()))
        name = f"client-{options.name}"
        print(Transcript(name, options.why, "client", frames, "malformed").write())
    else:
        name = f"{options.side}-{options.name}"
        frames, answers = tuple(options.frames), tuple(options.answer)
        added = Transcript(name, options.why, options.side, frames, options.code, answers)
        print(added.write())


def _add_file(kind: str, name: str, data: bytes) -> Path:
    with tempfile.TemporaryDirectory() as directory:
        refusal(kind, data, Path(directory))
    path = DIRECTORY / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    main()

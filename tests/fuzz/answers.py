"""What a worker may say to the server, whoever it runs for by now: one frame of its pipe."""

from __future__ import annotations

import random

from ionn_edge.workers import answers, jobs
from tests.fuzz.mutation import damaged
from tests.fuzz.target import Target
from wire import Encoder, error_message, messages
from wire.messages import Tensor

_TENSOR = Tensor("float32", (2, 1), (0, 1), b"12345678")
_CODED = Tensor("bool", (3,), (0,), b"", "planes")
_JOBS = (
    jobs.Checked(3, ((b"d" * 32, 100, "float32"), (b"e" * 32, 0, "bool"))),
    jobs.Refused("graph", "why"),
    jobs.Ran(1, 3, "bfloat16", 12.5, 0.25, 0.5, (_TENSOR, _CODED)),
    jobs.Failed(1, "input", "why"),
    jobs.Probed("cpu"),
    jobs.Calibrated((("convolution", (("conv", 1.0, 2.0),), 3.0, None),), 1e-6),
    jobs.Run(1, 0, 3, "exact", "planes", (_TENSOR,)),
)  # fmt: skip


def seeds() -> list[bytes]:
    """Every answer, and what is none."""
    return [b"".join(map(bytes, jobs.encode(job))) for job in _JOBS]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Changed behind the length, which is made to fit most of the time."""
    prefix = jobs.LENGTH.size
    size = int.from_bytes(data[:prefix], "big")
    header, rest = data[prefix : prefix + size], data[prefix + size :]
    header = damaged(rng, header)
    length = len(header) if rng.random() < 0.9 else rng.randrange(1 << 32)
    return jobs.LENGTH.pack(length) + header + rest


def check(data: bytes) -> str:
    """Raises where something got through that the client could not be told."""
    prefix = jobs.LENGTH.size
    if len(data) < prefix:
        return "refused"
    try:
        end = prefix + answers.header_bytes(data[:prefix])
        kind, plain, sizes = answers.decode_header(data[prefix:end])
        buffers = []
        for size in sizes:
            buffers.append(data[end : end + size].ljust(size, b"\0"))
            end += size
        answer = answers.decode(kind, plain, buffers)
    except jobs.BrokenPipe:
        return "refused"
    _tell(answer)
    return "accepted"


def _tell(answer: jobs.Job) -> None:
    """As the session does: every field of an answer goes on to the client."""
    said: messages.Message
    match answer:
        # A link has seen to it that this is the stop of a range that was asked for.
        case jobs.Ran(query, _, precision, began_s, coding_s, compute_s, tensors):
            said = messages.Result(query, 0, 1, precision, began_s, coding_s, compute_s, tensors)
        case jobs.Failed(query, code, text):
            said = error_message(code, text, query)
        case jobs.Refused(code, text) if code != "device":
            said = error_message(code, text)
        case _:
            return
    Encoder().encode(said)


ANSWERS = Target(check, seeds, mutated)

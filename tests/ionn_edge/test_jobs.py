"""The frames between server and worker: whole, or refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_edge.workers import jobs
from wire.messages import Tensor

TENSOR = Tensor("float32", (2, 1), (0, 1), b"12345678")
JOBS = [
    jobs.Check("f" * 64, b"graph", "/store"),
    jobs.Check("f" * 64, b"graph", "/store", True),
    jobs.Checked(3, ((b"d" * 32, 100, "float32"), (b"e" * 32, 0, "bool"))),
    jobs.Refused("graph", "why"),
    jobs.Ready((0, 7), "float8", 3),
    jobs.Run(1, 0, 3, "exact", "planes", (TENSOR, Tensor("bool", (), (), b"\1", "planes"))),
    jobs.Ran(1, 3, "bfloat16", 12.5, 0.25, 0.5, (TENSOR,)),
    jobs.Ran(1, 3, "bfloat16", 12.5, 0.25, 0.5, ()),
    jobs.Failed(1, "input", "why"),
    jobs.Probe(),
    jobs.Probed("cpu"),
    jobs.Calibrate(2.0, False),
    jobs.Calibrated((("convolution", (("conv", 1.0, 2.0),), 3.0, None),), 1e-6),
]


def decoded(frame: bytes) -> jobs.Job:
    size = jobs.header_bytes(frame[:4])
    kind, plain, sizes = jobs.decode_header(frame[4 : 4 + size])
    buffers, position = [], 4 + size
    for length in sizes:
        buffers.append(frame[position : position + length])
        position += length
    assert position == len(frame)
    return jobs.decode(kind, plain, buffers)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_job_comes_back_as_it_was(job: jobs.Job) -> None:
    assert decoded(b"".join(jobs.encode(job))) == job


def test_tensors_are_not_copied() -> None:
    data = bytearray(100)
    job = jobs.Run(1, 0, 1, "exact", "raw", (Tensor("uint8", (100,), (0,), data),))
    assert jobs.encode(job)[-1] is data


@pytest.mark.parametrize(
    "header",
    [
        [99, [], []], [4, [1, 0, 3], []], [4, [1, 0, 3, "exact", "raw", ()], [-1]],
        [4, [1, 0, 3, "exact", "raw", ()], ["x"]],
        [4, [1, 0, 3, "exact", "raw", ()], [1 << 40]], [], 7, None, [0, 0, 0],
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(header: Any) -> None:
    with pytest.raises(jobs.BrokenPipe):
        jobs.decode_header(msgpack.packb(header))


def test_a_header_of_any_length_is_not_waited_for() -> None:
    with pytest.raises(jobs.BrokenPipe):
        jobs.header_bytes(b"\xff\xff\xff\xff")


@given(st.binary(max_size=60))
def test_junk_is_refused_or_decoded_but_never_worse(junk: bytes) -> None:
    try:
        kind, plain, sizes = jobs.decode_header(junk)
        jobs.decode(kind, plain, [bytes(min(size, 10)) for size in sizes])
    except jobs.BrokenPipe:
        return


def test_tensors_and_buffers_must_match() -> None:
    for tensors in ([("uint8", [1])], 5, [("a", [1], [0], "raw")]):
        with pytest.raises(jobs.BrokenPipe):
            jobs.decode(4, [1, 0, 3, "exact", "raw", tensors], [])

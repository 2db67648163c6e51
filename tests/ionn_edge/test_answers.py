"""A worker's words are believed as little as its client's."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from ionn_edge.workers import answers, jobs
from ionn_edge.workers.weight_rows import packed
from tests.ionn_edge.test_jobs import JOBS
from wire.messages import Tensor

ANSWERS = [job for job in JOBS if type(job).__name__ in (
    "Checked", "Refused", "Ran", "Failed", "Probed", "Calibrated",
)]  # fmt: skip


def heard(frame: bytes) -> jobs.Job:
    end = 4 + answers.header_bytes(frame[:4])
    kind, plain, sizes = answers.decode_header(frame[4:end])
    buffers = []
    for size in sizes:
        buffers.append(frame[end : end + size])
        end += size
    return answers.decode(kind, plain, buffers)


def said(job: jobs.Job) -> bytes:
    return b"".join(map(bytes, jobs.encode(job)))


def ran(**changed: Any) -> jobs.Ran:
    fields = {
        "query": 1, "stop": 3, "precision": "exact", "began_s": 1.0, "coding_s": 0.0,
        "compute_s": 0.5, "tensors": (),
    }  # fmt: skip
    return jobs.Ran(**{**fields, **changed})


def tensor(**changed: Any) -> jobs.Ran:
    fields = {"dtype": "uint8", "shape": (2,), "order": (0,), "data": b"12", "coding": "raw"}
    return ran(tensors=(Tensor(**{**fields, **changed}),))


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda job: type(job).__name__)
def test_an_answer_comes_back_as_it_was(answer: jobs.Job) -> None:
    assert heard(said(answer)) == answer


@pytest.mark.parametrize(
    "job",
    [
        jobs.Check("f" * 64, b"graph", "/store"), jobs.Probe(), jobs.Ready((0,), "exact", 0),
        ran(query="1"), ran(query=-1), ran(query=True), ran(stop=1 << 40), ran(precision="most"),
        ran(precision=["exact"]), ran(began_s=1), ran(coding_s=-1.0), ran(compute_s=float("nan")),
        ran(compute_s=float("inf")), ran(compute_s=1e300), ran(compute_s="long"),
        ran(tensors=(Tensor("uint8", (1,), (0,), b"1"),) * 257),
        tensor(dtype="object"), tensor(dtype=["uint8"]), tensor(shape=(3,)), tensor(shape=(-2,)),
        tensor(shape=5), tensor(shape=("2",)), tensor(order=(1,)), tensor(order=None),
        tensor(shape=(1,) * 16 + (2,), order=tuple(range(17))), tensor(coding="zip"),
        tensor(shape=(1 << 27,), coding="planes"), tensor(coding="planes"),
        jobs.Failed(1, "sleepy", "why"), jobs.Failed(1, "input", 5), jobs.Failed(None, "input", ""),
        jobs.Failed(1, "input", "x" * 5000), jobs.Refused("unknown", ""), jobs.Probed(None),
        jobs.Checked(-1, ()),
        jobs.Calibrated(((1, 2, 3),), 1.0), jobs.Calibrated((), None),
    ],
    ids=lambda job: str(job)[:60],
)  # fmt: skip
def test_nonsense_is_refused(job: jobs.Job) -> None:
    with pytest.raises(jobs.BrokenPipe):
        heard(said(job))


@pytest.mark.parametrize(
    "rows",
    [
        b"x", b"x" * 40, b"x" * 42, packed(((b"d" * 32, 4, "uint8"),)) + b"x",
        packed(((b"d" * 32, 5, "float32"),)), packed(((b"d" * 32, (1 << 40) + 4, "float32"),)),
        b"d" * 32 + bytes(8) + b"\xff", packed(((b"d" * 32, 1 << 63, "uint8"),)),
        packed(((b"d" * 32, 1 << 40, "uint8"), (b"d" * 32, 4, "float32"))),
        bytes(41 * ((1 << 16) + 1)),
    ],
    ids=lambda rows: f"{len(rows)} bytes",
)  # fmt: skip
def test_what_are_no_weights_is_refused(rows: bytes) -> None:
    header = msgpack.packb([jobs.KINDS.index(jobs.Checked), [1, None], [len(rows)]])
    with pytest.raises(jobs.BrokenPipe):
        heard(jobs.LENGTH.pack(len(header)) + header + rows)


@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_weights_that_are_not_there_are_refused(sizes: list[int]) -> None:
    header = msgpack.packb([jobs.KINDS.index(jobs.Checked), [1, None], sizes])
    with pytest.raises(jobs.BrokenPipe):
        heard(jobs.LENGTH.pack(len(header)) + header)


def test_tensors_that_no_message_holds_are_refused() -> None:
    many = Tensor("uint8", (1 << 22,), (0,), b"", "planes")
    with pytest.raises(jobs.BrokenPipe, match="tensors is nonsense"):
        heard(said(ran(tensors=(many,) * 16)))


def test_more_than_an_answer_can_be_is_not_waited_for() -> None:
    with pytest.raises(jobs.BrokenPipe, match="a header of"):
        answers.header_bytes(jobs.LENGTH.pack(answers.MAX_HEADER_BYTES + 1), jobs.Calibrate)
    longer = jobs.LENGTH.pack(answers.MAX_CLIENTS_HEADER_BYTES + 1)
    for asked in (jobs.Run, jobs.Check, None):
        with pytest.raises(jobs.BrokenPipe, match="a header of"):
            answers.header_bytes(longer, asked)
    most = answers.MAX_CLIENTS_HEADER_BYTES + 1
    assert answers.header_bytes(longer, jobs.Calibrate) == most
    header = msgpack.packb([5, list(range(7)), [1 << 26, 1]])
    with pytest.raises(jobs.BrokenPipe, match="buffers of"):
        answers.decode_header(header)


def test_the_longest_answers_are_taken() -> None:
    rows = tuple((number.to_bytes(32, "big"), 1 << 40, "bfloat16") for number in range(1 << 16))
    checked = jobs.Checked(1_000_000, rows)
    assert heard(said(checked)) == checked
    each = Tensor("bfloat16", (1,) * 16, tuple(range(16)), b"12")
    for asked in (ran(tensors=(each,) * 256), jobs.Failed(1, "execution", "\U0001f984" * 4096)):
        assert answers.header_bytes(said(asked)[:4], jobs.Run)


def test_no_room_is_made_for_buffers_that_are_none() -> None:
    many = 1 << 20
    of_ran = b"\x93\x05\x97" + b"\0" * 7
    headers = [
        b"".join((of_ran, b"\xdd", many.to_bytes(4, "big"), b"\0" * many)),
        b"".join((of_ran, b"\xdc\x01\x01", b"\0" * 257)),
    ]
    tracemalloc.start()
    for header in headers:
        with pytest.raises(jobs.BrokenPipe):
            answers.decode_header(header)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 4 * many


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\xdd\xff\xff\xff\xff" * 500, b"\x91" * 5000])
def test_lists_of_declared_lengths_are_not_made(header: bytes) -> None:
    with pytest.raises(jobs.BrokenPipe):
        answers.decode_header(header)

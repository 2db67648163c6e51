"""What hostile code can do in a worker that it has taken over: nothing but spend its own share.

The code really runs in a worker, forked and shut in like any other (see taken_over). How the
kernel says no differs: by the filter of system calls, by Landlock, or by a limit.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgpack
import pytest
import pytest_asyncio
import torch

from ionn_edge.settings import WorkerSettings
from ionn_edge.storage.places import Place
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import Worker, WorkerGone
from ionn_edge.workers.isolation import Isolation, isolation
from ionn_edge.workers.nursery import Nursery
from ionn_edge.workers.watch import usage
from layergraph import execute, tensor_from_buffer, tensor_to_buffer
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer
from tests.ionn_edge.peer import execute as execution
from tests.ionn_edge.taken_over import BOMB
from tests.support import blobs, chain
from wire import messages
from wire.messages import Tensor

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(sys.platform != "linux", reason="workers are shut in on Linux"),
]
GRAPH, WEIGHTS = chain(3)
X = torch.linspace(-1, 1, 8).reshape(1, 8)
HERE = execute(GRAPH, WEIGHTS, 0, 3, (X,))[0]
MIB = 1 << 20
LIMIT = 128 * MIB
SPARE_CPU_S = 1.0
REFUSED = {"EPERM", "EACCES", "ENOSYS", "ENOTTY"}
SECRET = "IONN_TEST_SECRET"

Asked = Callable[[Worker, str], Awaitable[str]]


class TakenOver(Nursery):
    MODULE = "tests.ionn_edge.taken_over"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nursery() -> AsyncIterator[Nursery]:
    os.environ[SECRET] = "hunter2"
    settings = WorkerSettings("cpu", 1, memory_bytes=LIMIT, spare_cpu_s=SPARE_CPU_S)
    nursery = TakenOver(settings)
    await nursery.start()
    yield nursery
    await nursery.close()
    del os.environ[SECRET]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with directories of two devices, beside a state directory."""
    root = tmp_path_factory.mktemp("box")
    for name in ("mine", "theirs", "state"):
        (root / name).mkdir(mode=0o700)
    for name in ("theirs", "state"):
        (root / name / "secret").write_bytes(b"secret")
    for weight, blob in zip(GRAPH.weights, blobs(GRAPH, WEIGHTS), strict=True):
        Place(root / "mine", b"").blob(weight.digest).write_bytes(blob)
    return root


async def asked(worker: Worker, job: jobs.Job) -> jobs.Job:
    worker.send(job)
    async with asyncio.timeout(60):
        return await worker.receive()


async def opened(nursery: Nursery, store: Path) -> Worker:
    """A worker that has checked a graph and has its weights."""
    worker = await nursery.fork()
    packed = msgpack.packb(GRAPH.to_plain())
    job = jobs.Check(GRAPH.fingerprint, packed, str(store / "mine"), published=str(store / "mine"))
    assert isinstance(await asked(worker, job), jobs.Checked)
    worker.send(jobs.Ready((0, 1, 2), "exact", 0))
    return worker


def query(x: torch.Tensor) -> jobs.Run:
    return jobs.Run(1, 0, 3, "exact", "raw", (Tensor(*tensor_to_buffer(x)),))


async def answers(worker: Worker) -> None:
    ran = await asked(worker, query(X))
    assert isinstance(ran, jobs.Ran), ran
    (live,) = (tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in ran.tensors)
    assert torch.equal(live, HERE)


async def ended(worker: Worker) -> None:
    """Raises WorkerGone, whatever it still says."""
    async with asyncio.timeout(60):
        while True:
            await worker.receive()


async def told(worker: Worker, code: str) -> str:
    """What came of the code: the error's name, or its result."""
    answer = await asked(worker, jobs.Run(1, 0, 3, code, "raw", ()))
    assert isinstance(answer, jobs.Failed)
    return answer.text


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hostile(nursery: Nursery, store: Path) -> AsyncIterator[Worker]:
    worker = await opened(nursery, store)
    yield worker
    await worker.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sibling(nursery: Nursery, store: Path) -> AsyncIterator[Worker]:
    worker = await opened(nursery, store)
    yield worker
    # Whatever was tried on it, it does its work.
    await answers(worker)
    await worker.close()


# Network.


async def test_no_socket_of_any_family_or_kind(hostile: Worker) -> None:
    code = """
result = set()
for family, kind in itertools.product(range(64), range(1, 7)):
    try:
        call("socket", family, kind, 0)
    except OSError as error:
        result.add(error.errno)
"""
    assert await told(hostile, code) == "result {1}"


SOCKETS = {
    "a pair": "socket.socketpair()",
    "connect on its own": "call('connect', 3, ctypes.create_string_buffer(16), 16)",
    "listen on its own": "call('listen', 3, 1)",
    "accept on its own": "call('accept', 3)",
    "pass descriptors": "call('sendmsg', 3, ctypes.create_string_buffer(64), 0)",
    "take descriptors": "call('recvmsg', 3, ctypes.create_string_buffer(64), 0)",
}
# Files. `store` is the root of the box's directories.
FILES = {
    "another device's": "Path('{store}/theirs/secret').read_bytes()",
    "the state directory": "Path('{store}/state/secret').read_bytes()",
    "names of the store": "os.listdir('{store}')",
    "names of its own": "os.listdir('{store}/mine')",
    "by way of its own": "open('{store}/mine/../theirs/secret')",
    "passwords": "open('/etc/passwd')",
    "its environment": "open('/proc/self/environ')",
    "its program": "open('/proc/self/exe', 'rb')",
    "processors": "open('/proc/cpuinfo')",
    "its parent's memory": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "a sibling's memory": "open('/proc/{sibling}/maps')",
    "the terminal": "os.open('/dev/tty', os.O_RDWR)",
    "by handle": "call('open_by_handle_at', -100, ctypes.create_string_buffer(64), 0)",
    "openat2": "call(437, -100, b'/etc/passwd', ctypes.create_string_buffer(24), 24)",
    "write to its own": "os.open('{weight}', os.O_WRONLY)",
    "write beside its own": "os.open('{store}/mine/new', os.O_WRONLY | os.O_CREAT)",
    "write without a name": "os.open('{store}/mine', os.O_TMPFILE | os.O_RDWR)",
    "append": "os.open('{weight}', os.O_APPEND)",
    "truncate": "os.truncate('{weight}', 0)",
    "cut at opening": "os.open('{weight}', os.O_TRUNC)",
    "write to nothing": "os.open('/dev/null', os.O_WRONLY)",
    "write to shared memory": "os.open('/dev/shm/x', os.O_RDWR | os.O_CREAT)",
    "remove": "os.unlink('{weight}')",
    "rename": "os.rename('{weight}', '{store}/mine/other')",
    "link": "os.link('{store}/theirs/secret', '{store}/mine/theirs')",
    "symlink": "os.symlink('{store}/theirs/secret', '{store}/mine/theirs')",
    "make a directory": "os.mkdir('{store}/mine/more')",
    "make a pipe": "os.mkfifo('{store}/mine/pipe')",
    "change rights": "os.chmod('{weight}', 0o777)",
    "change owners": "os.chown('{weight}', 0, 0)",
    "change times": "os.utime('{weight}')",
    "change attributes": "os.setxattr('{weight}', 'user.x', b'')",
    "change the root": "os.chroot('{store}/theirs')",
    "change the directory": "os.chdir('{store}/theirs')",
}
PROCESSES = {
    "fork": "os.fork() or os._exit(0)",
    "vfork": "call('vfork')",
    "clone": "call('clone', 17)",
    "clone with shared memory": "call('clone', 0x4100)",
    "clone into namespaces": "call('clone', 0x10000 | 0x10000000 | 0x100 | 0x800)",
    "clone3": "call('clone3', ctypes.create_string_buffer(88), 88)",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec from a descriptor": "call('execveat', 0, b'', 0, 0, 0x1000)",
    "exec from memory": "os.memfd_create('x')",
    "unshare": "call('unshare', 0x10000000)",
    "enter a namespace": "call('setns', 0, 0)",
    "mount": "call('mount', b'none', b'{store}', b'tmpfs', 0, 0)",
    "mount anew": "call('fsopen', b'tmpfs', 0)",
}
OTHERS = {
    "kill the parent": "os.kill(os.getppid(), 9)",
    "kill the server": "os.kill({server}, 9)",
    "kill a sibling": "os.kill({sibling}, 9)",
    "kill all": "os.kill(-1, 9)",
    "kill the group": "os.killpg(os.getppid(), 9)",
    "kill a thread": "call('tkill', {sibling}, 9)",
    "kill another's thread": "call('tgkill', {sibling}, {sibling}, 9)",
    "queue a signal": "call('rt_sigqueueinfo', {sibling}, 9, ctypes.create_string_buffer(128))",
    "queue to a thread": (
        "call('rt_tgsigqueueinfo', {sibling}, {sibling}, 9, ctypes.create_string_buffer(128))"
    ),
    "a descriptor of it": "call('pidfd_open', {sibling}, 0)",
    "signal a descriptor": "call('pidfd_send_signal', 0, 9)",
    "have the kernel signal": "fcntl.fcntl(3, 8, {sibling})",
    "have the kernel kill": "fcntl.fcntl(3, 10, 9)",
    "attach": "call('ptrace', 16, {sibling})",
    "seize": "call('ptrace', 0x4206, {sibling})",
    "be traced": "call('ptrace', 0)",
    "read memory": "call('process_vm_readv', {sibling})",
    "write memory": "call('process_vm_writev', {sibling})",
    "read the server's": "call('process_vm_readv', {server})",
    "take a descriptor": "call('pidfd_getfd', 0, 0, 0)",
    "compare": "call('kcmp', {sibling}, os.getpid())",
    "slow down": "call('setpriority', 0, {sibling}, 19)",
    "pin": "os.sched_setaffinity({sibling}, [0])",
    "limit": "resource.prlimit({sibling}, resource.RLIMIT_CPU, (1, 1))",
    "see limits": "resource.prlimit({sibling}, resource.RLIMIT_CPU)",
}
KERNEL = {
    "io_uring": "call('io_uring_setup', 8, ctypes.create_string_buffer(120))",
    "io_uring, other calls": "call('io_uring_enter', 0)",
    "bpf": "call('bpf', 5, ctypes.create_string_buffer(128), 128)",
    "perf": "call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1)",
    "userfaultfd": "call('userfaultfd', 1)",
    "keys": "call('keyctl', 0, -3)",
    "personality": "call('personality', 0x0040000)",
    "modules": "call('finit_module', 0)",
    "queues": "call('mq_open', b'x', 0o102, 0o600, 0)",
    "reboot": "call('reboot', 0)",
    "device control": "fcntl.ioctl(3, 0x8902, b'    ')",
    "secret memory": "call('memfd_secret', 0)",
    "pipes": "os.pipe()",
    "events": "os.eventfd(0)",
    "dumpable again": "libc.prctl(4, 1) and call('prctl', 4, 1)",
    "outlive the server": "call('prctl', 1, 0)",
    "new privileges": "call('prctl', 38, 0)",
    "another filter": "call('prctl', 22, 2, 0)",
    "no filter": "call('prctl', 22, 0, 0)",
    "more rules": "call('landlock_create_ruleset', 0, 0, 1)",
    "a user": "os.setuid(1)",
    "root again": "os.setresuid(0, 0, 0)",
    "capabilities": "libc.capset(ctypes.create_string_buffer(8)) and call(126)",
    "more memory": "resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))",
    "longer files": "call('prlimit64', 0, 1, ctypes.create_string_buffer(b'\\xff' * 16))",
    "a sibling behind all": "os.sched_setscheduler({sibling}, os.SCHED_IDLE, os.sched_param(0))",
    "itself before all": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "itself forward": "os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))",
    "shared memory": "mmap.mmap(-1, 4096)",
    "growing memory": "mmap.mmap(-1, 4096, 0x122)",
    "huge pages": "mmap.mmap(-1, 2 << 20, 0x40022)",
}
ATTEMPTS = {**SOCKETS, **FILES, **PROCESSES, **OTHERS, **KERNEL}


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_an_attempt_is_refused(
    attempt: str, hostile: Worker, sibling: Worker, store: Path
) -> None:
    weight = Place(store / "mine", b"").blob(GRAPH.weights[0].digest)
    facts = {"store": store, "weight": weight, "sibling": sibling.pid, "server": os.getpid()}
    code = "result = " + ATTEMPTS[attempt].format(**facts)
    outcome = await told(hostile, code)
    if attempt == "more memory":
        # Python's own words for EPERM.
        outcome = {"ValueError: not allowed to raise maximum limit": "EPERM"}.get(outcome, outcome)
    assert outcome in REFUSED
    assert weight.stat().st_size == 256


async def test_attempts_left_nothing_and_what_is_its_own_can_be_used(
    hostile: Worker, sibling: Worker, store: Path
) -> None:
    await answers(hostile)
    await answers(sibling)
    weight = Place(store / "mine", b"").blob(GRAPH.weights[0].digest)
    assert await told(hostile, f"result = len(Path('{weight}').read_bytes())") == "result 256"
    assert len(os.listdir(store / "mine")) == len(GRAPH.weights)
    assert all(os.listdir(store / each) == ["secret"] for each in ("theirs", "state"))
    thread = (
        "result = []; t = threading.Thread(target=result.append, args=(1,)); t.start(); t.join()"
    )
    assert await told(hostile, thread) == "result [1]"
    back = "partial(os.sched_setscheduler, 0, os.SCHED_IDLE, os.sched_param(0))"
    assert await told(hostile, f"result = behind_all({back})") == "result None"
    # As in the server: answers would differ in their last bits.
    available = torch.backends.nnpack.is_available()
    code = "result = torch.backends.nnpack.is_available()"
    assert await told(hostile, code) == f"result {available}"


async def test_nothing_of_the_server_is_handed_down(hostile: Worker) -> None:
    assert await told(hostile, f"result = '{SECRET}' in os.environ") == "result False"
    descriptors = """
result = []
for number in range(1024):
    try:
        os.fstat(number)
        result.append(number)
    except OSError:
        pass
"""
    said = await told(hostile, descriptors)
    # Nothing, nothing, a pipe for last words, its socket, and its weights.
    assert len(said.split(",")) == 4 + len(GRAPH.weights), said


async def test_a_call_by_another_numbering_ends_it(nursery: Nursery, store: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x32 is x86-64's")
    worker = await opened(nursery, store)
    with pytest.raises(WorkerGone, match="SIGSYS"):
        await told(worker, "result = call(0x40000000 | 39)")
    await worker.close()


# Its own share.


async def test_memory_beyond_its_limit_ends_it_and_no_other(
    nursery: Nursery, sibling: Worker, store: Path
) -> None:
    worker = await opened(nursery, store)
    worker.send(jobs.Run(1, 0, 3, "result = eat()", "raw", ()))
    await answers(sibling)
    with pytest.raises(WorkerGone, match=r"used more than 134\.2 MB and was ended"):
        await ended(worker)
    await worker.close()


async def test_one_large_piece_of_memory_is_not_there(hostile: Worker) -> None:
    assert (await told(hostile, f"result = b'x' * {2 * LIMIT}")).startswith("MemoryError")
    said = await told(hostile, f"result = torch.ones({2 * LIMIT}, dtype=torch.uint8)")
    assert "allocate memory" in said
    await answers(hostile)


async def test_weights_that_come_by_planes_are_granted(nursery: Nursery, store: Path) -> None:
    worker = await opened(nursery, store)
    code = f"result = len(b'x' * {LIMIT + LIMIT // 2})"
    assert (await told(worker, code)).startswith("MemoryError")
    worker.work_for("a device", LIMIT)
    assert await told(worker, code) == f"result {LIMIT + LIMIT // 2}"
    await worker.close()


async def test_mapped_weights_are_not_its_own_memory(nursery: Nursery, store: Path) -> None:
    large = store / "mine" / "large"
    with large.open("wb") as file:
        file.truncate(2 * LIMIT)
    try:
        worker = await opened(nursery, store)
        code = f"""
from ionn_edge.storage.weights import mapped
result = sum(len(mapped(Path('{large}'))) for _ in range(2))
"""
        assert await told(worker, code) == f"result {4 * LIMIT}"
        await answers(worker)
        await worker.close()
    finally:
        large.unlink()


MANY_THREADS = """
threading.stack_size(1 << 16)
for _ in range(10_000):
    threading.Thread(target=time.sleep, args=(60,)).start()
result = "begun"
"""
THREADS_OF_THREADS = """
threading.stack_size(1 << 16)
def more():
    while True:
        try:
            threading.Thread(target=more).start()
        except RuntimeError:
            pass
more()
"""
THREADS_WITHOUT_END = """
while True:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
"""
NO_REST = """
def spin():
    while True:
        pass
threading.Thread(target=spin).start()
result = "begun"
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (MANY_THREADS, "wanted more than 19 threads and was ended"),
        (THREADS_OF_THREADS, "wanted more than 19 threads and was ended"),
        (THREADS_WITHOUT_END, "started threads without end and was ended"),
        (NO_REST, "used 1 s of the processor beyond its share and was ended"),
    ],
    ids=["threads", "threads of threads", "threads without end", "processor"],
)
async def test_a_worker_that_takes_more_than_its_share_is_ended(
    code: str, reason: str, nursery: Nursery, sibling: Worker, store: Path
) -> None:
    worker = await opened(nursery, store)
    worker.send(jobs.Run(1, 0, 3, code, "raw", ()))
    await answers(sibling)
    most = 0

    async def watched() -> None:
        nonlocal most
        while (seen := usage(worker.pid)) is not None:
            most = max(most, seen.threads)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watched())
    with pytest.raises(WorkerGone, match=reason):
        await ended(worker)
    await worker.close()
    await watching
    # One that asks while another starts is one too many, for a moment.
    assert 0 < most <= 2 * nursery._settings.most_threads


async def test_a_client_is_told_why_and_goes_on_and_so_does_its_neighbour(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer, Peer(url) as neighbour:
        await peer.open(GRAPH, WEIGHTS)
        await neighbour.open(GRAPH, WEIGHTS)
        bomb = X.clone()
        bomb[0, 0] = BOMB
        await peer.send(execution(1, 0, 3, (bomb,)))
        for number in range(3):
            _, live = await neighbour.run(number, 0, 3, (X,))
            assert torch.equal(live[0], HERE)
        error = await peer.hear(messages.Error)
        assert (error.query, error.code) == (1, "execution")
        assert "used more than 134.2 MB and was ended" in error.text
        _, live = await peer.run(2, 0, 3, (X,))
        assert torch.equal(live[0], HERE)


# What is said at the start.


async def test_a_worker_that_tries_to_get_out_finds_that_all_holds(
    nursery: Nursery, tmp_path: Path
) -> None:
    seen = await isolation(nursery, tmp_path)
    assert seen.fails == ()
    assert seen.strong
    assert "no network" in str(seen)
    assert os.listdir(tmp_path) == []


ORPHAN = """
import os, socket
from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import sandbox

sandbox.prepare()
nobodys_parent = os.getpid()
sandbox.enter(WorkerSettings("cpu", 1), socket.socketpair()[0], nobodys_parent)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
async def test_a_worker_whose_parent_is_gone_before_it_could_be_told_of_it_ends() -> None:
    command = [sys.executable, "-c", ORPHAN]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "the process that forked this one is gone" in ended.stderr


async def test_what_does_not_hold_is_said(tmp_path: Path) -> None:
    # What a driver of graphics needs is not known well enough to shut it in as closely.
    nursery = Nursery(WorkerSettings("cuda", 1))
    try:
        seen = await isolation(nursery, tmp_path)
    finally:
        await nursery.close()
    assert not seen.strong
    assert {"no network", "no new processes", "no look into other processes"} <= set(seen.holds)
    assert any(each.startswith("no files read but its weights (") for each in seen.fails)
    assert str(seen).startswith("weak, lacking no ")
    assert not Isolation((), ("no network (netlink)",)).strong

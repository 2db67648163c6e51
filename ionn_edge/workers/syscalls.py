"""Numbers of the system calls that a filter names, on the two machines that edges run on.

From the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h, which aarch64 follows). None: this machine has no such call.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

_TABLE: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "fstat": (5, 80),
    "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "ioctl": (16, 29),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "select": (23, None),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "nanosleep": (35, 101),
    "getpid": (39, 172), "socket": (41, 198), "connect": (42, 203), "accept": (43, 202),
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212),
    "bind": (49, 200), "listen": (50, 201), "socketpair": (53, 199), "clone": (56, 220),
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "exit": (60, 93),
    "kill": (62, 129), "uname": (63, 160), "fcntl": (72, 25), "getcwd": (79, 17),
    "chmod": (90, None), "gettimeofday": (96, 169), "getrusage": (98, 165),
    "sysinfo": (99, 179), "ptrace": (101, 117), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173),
    "rt_sigqueueinfo": (129, 138), "sigaltstack": (131, 132), "personality": (135, 92),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "prctl": (157, 167),
    "arch_prctl": (158, None), "chroot": (161, 51), "mount": (165, 40), "umount2": (166, 39),
    "swapon": (167, 224), "reboot": (169, 142), "init_module": (175, 105),
    "delete_module": (176, 106), "gettid": (186, 178), "tkill": (200, 130), "futex": (202, 98),
    "sched_setaffinity": (203, 122), "sched_getaffinity": (204, 123),
    "getdents64": (217, 61), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "tgkill": (234, 131),
    "mq_open": (240, 180), "kexec_load": (246, 104), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "openat": (257, 56), "newfstatat": (262, 79),
    "pselect6": (270, 72), "ppoll": (271, 73), "unshare": (272, 97),
    "set_robust_list": (273, 99), "move_pages": (279, 239), "accept4": (288, 242),
    "rt_tgsigqueueinfo": (297, 240), "perf_event_open": (298, 241), "prlimit64": (302, 261),
    "open_by_handle_at": (304, 265), "setns": (308, 268), "getcpu": (309, 168),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "finit_module": (313, 273), "sched_setattr": (314, 274), "seccomp": (317, 277),
    "getrandom": (318, 278),
    "memfd_create": (319, 279), "kexec_file_load": (320, 294), "bpf": (321, 280),
    "execveat": (322, 281), "userfaultfd": (323, 282), "membarrier": (324, 283),
    "rseq": (334, 293), "pidfd_send_signal": (424, 424), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "pidfd_open": (434, 434), "clone3": (435, 435), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446), "memfd_secret": (447, 447),
    "process_mrelease": (448, 448),
}  # fmt: skip
# Since kernel 5.1 every machine counts on from here.
FIRST_OF_5_1 = 424


@dataclass(frozen=True, slots=True)
class Machine:
    """How the kernel names this machine to a filter, and where calls of its other ABI begin."""

    audit_arch: int
    column: int
    first_of_other_abi: int | None


# linux/audit.h; calls of x32 have bit 30 set and the same architecture.
_MACHINES = {
    "x86_64": Machine(0xC000003E, 0, 0x40000000),
    "aarch64": Machine(0xC00000B7, 1, None),
}


def this_machine() -> Machine | None:
    """None where no filter is known."""
    return _MACHINES.get(platform.machine()) if sys.platform == "linux" else None


def number_of(name: str, machine: Machine) -> int | None:
    """The call's number on this machine, None where it has none."""
    return _TABLE[name][machine.column]

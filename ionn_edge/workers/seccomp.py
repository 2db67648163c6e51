"""Filters of system calls: classic BPF programs that the kernel runs before each call.

Written by hand because no package does it that is maintained and needs nothing but pip
(docs/decisions/0022). A program is a list of rules; each looks at the call's number, and at
single arguments where the kernel takes plain numbers. What arguments point to cannot be seen.
Kernel documentation: userspace-api/seccomp_filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence

from ionn_edge.workers.syscalls import FIRST_OF_5_1, Machine, number_of

# linux/filter.h, linux/seccomp.h: 8 bytes of code, two jumps, one operand.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_USER_NOTIFICATION = 0x7FC00000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3

Block = list[bytes]


def _op(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, operand)


def _argument(position: int) -> bytes:
    # The low half: on machines whose bytes go from low to high, which both are.
    return _op(_LOAD, _ARGUMENTS_AT + 8 * position)


def allow() -> Block:
    """The call is made."""
    return [_op(_RETURN, _ALLOW)]


def refuse(code: int = errno.EPERM) -> Block:
    """The call is not made, and fails with this error."""
    return [_op(_RETURN, _ERRNO | code)]


def ask() -> Block:
    """The call waits for the word of who has the filter's listener."""
    return [_op(_RETURN, _USER_NOTIFICATION)]


def allow_masked(position: int, mask: int, value: int) -> Block:
    """Made if `argument & mask == value` (its low 32 bits), else refused."""
    test = [_argument(position), _op(_AND, mask), _op(_JUMP_EQUAL, value, 0, 1)]
    return [*test, *allow(), *refuse()]


def allow_values(position: int, values: Sequence[int]) -> Block:
    """Made if the argument (its low 32 bits) is one of these, else refused."""
    block = [_argument(position)]
    for value in values:
        block += [_op(_JUMP_EQUAL, value, 0, 1), *allow()]
    return block + refuse()


def allow_exact(values: Sequence[int]) -> Block:
    """Made if the first arguments (their low 32 bits) are these, else refused."""
    block: Block = []
    for position, value in enumerate(values):
        left = 2 * (len(values) - position) - 1
        block += [_argument(position), _op(_JUMP_EQUAL, value, 0, left)]
    return [*block, *allow(), *refuse()]


def allow_zero_pointer(position: int, also: int) -> Block:
    """Made if the pointer is null and the argument `also` is 0, else refused."""
    block: Block = []
    halves = [8 * position, 8 * position + 4, 8 * also]
    for index, offset in enumerate(halves):
        left = 2 * (len(halves) - index) - 1
        block += [_op(_LOAD, _ARGUMENTS_AT + offset), _op(_JUMP_EQUAL, 0, 0, left)]
    return [*block, *allow(), *refuse()]


class Program:
    """A filter under construction: rules in order, the first whose call it is decides."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._code: Block = [
            _op(_LOAD, _ARCH_AT),
            # The same number means another call there.
            *(_op(_JUMP_EQUAL, machine.audit_arch, 1, 0), _op(_RETURN, _KILL_PROCESS)),
            _op(_LOAD, _NUMBER_AT),
        ]
        if machine.first_of_other_abi is not None:
            self._code += [_op(_JUMP_AT_LEAST, machine.first_of_other_abi, 0, 1)]
            self._code += [_op(_RETURN, _KILL_PROCESS)]

    def on(self, names: Iterable[str], block: Block) -> None:
        """What becomes of these calls."""
        for name in names:
            number = number_of(name, self._machine)
            if number is not None:
                self._code += [_op(_JUMP_EQUAL, number, 0, len(block)), *block]

    def otherwise_allow(self) -> bytes:
        """The finished program: every other call is made."""
        return b"".join(self._code + allow())

    def otherwise_refuse(self) -> bytes:
        """The finished program: other calls fail, newer ones as if the kernel were older.

        C libraries fall back on a call that they find missing, not on one that is refused.
        """
        newer = [_op(_JUMP_AT_LEAST, FIRST_OF_5_1, 0, 1), *refuse(errno.ENOSYS)]
        return b"".join(self._code + newer + refuse())


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def install(program: bytes, libc: ctypes.CDLL) -> None:
    """For this thread and those that it starts; for good. Raises OSError.

    The thread must have no_new_privs set.
    """
    filter = _Filter(len(program) // _INSTRUCTION.size, program)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter), 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def install_asking(program: bytes, libc: ctypes.CDLL, machine: Machine) -> int:
    """As `install`, of a program that asks; the listener's descriptor. Raises OSError."""
    filter = _Filter(len(program) // _INSTRUCTION.size, program)
    number = number_of("seccomp", machine)
    listener = libc.syscall(
        *map(ctypes.c_long, (number or 0, _SET_MODE_FILTER, _NEW_LISTENER)), ctypes.byref(filter)
    )
    if listener < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(listener)

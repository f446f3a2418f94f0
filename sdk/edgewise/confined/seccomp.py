"""sdk, confined: a filter of system calls: no sockets, no other processes, nothing that reaches what is outside.

https://docs.kernel.org/userspace-api/seccomp_filter.html, in classic BPF, for x86-64 and 64-bit Arm.
"""

import ctypes
import errno
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from edgewise.confined.syscalls import control

NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2  # of prctl
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions, each with a constant
NUMBER, ARCHITECTURE, FIRST = 0, 4, 16  # where a call has its number, its architecture and its first argument
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
THREAD = 0x10000  # flag of clone: a thread, not a process
X32 = 0x40000000  # numbers from here on are another convention of x86-64


@dataclass(frozen=True)
class Machine:
    """What calls are numbered on an architecture."""

    audit: int
    clone: int
    prlimit: int  # allowed for the process itself
    starting: tuple[int, ...]  # fork, vfork, execve, execveat
    others: tuple[int, ...]  # what reaches other processes: ptrace, kill, setpriority, setsid and the like
    sockets: tuple[int, ...]
    files: tuple[int, ...]  # what Landlock does not govern: modes, owners, times, attributes
    memory: tuple[int, ...]  # what outlives the process, or is not in its address space


# the same numbers on both: io_uring_setup, pidfd_send_signal, pidfd_open, fchmodat2, setxattrat, removexattrat
COMMON = (425, 424, 434, 452, 463, 466)
CLONE3 = 435  # its flags are in memory, which a filter does not see: it is not there, and libraries use clone
MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(
        audit=0xC000003E,
        clone=56,
        prlimit=302,
        starting=(57, 58, 59, 322),
        others=(101, 310, 311, 272, 308, 165, 62, 200, 234, 129, 297, 321, 250, 141, 142, 144, 314, 203, 251, 112, 109),
        sockets=(41, 53),
        files=(90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199),
        memory=(29, 30, 68, 64, 240, 319),
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        clone=220,
        prlimit=261,
        starting=(221, 281),
        others=(117, 270, 271, 97, 268, 40, 129, 130, 131, 138, 240, 280, 219, 140, 118, 119, 274, 122, 30, 157, 154),
        sockets=(198, 199),
        files=(52, 53, 55, 54, 88, 5, 6, 7, 14, 15, 16),
        memory=(194, 196, 186, 190, 180, 279),
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def restrict(*, processes: bool) -> None:
    """No sockets from now on, for this process and all that it starts; without `processes`, it starts none.

    Raises OSError, also on an architecture that is not known.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"system calls of {platform.machine()} are not known")
    code = _code(machine, processes=processes)
    instructions = (_Instruction * len(code))(*(_Instruction(*each) for each in code))
    control(NO_NEW_PRIVILEGES, 1)
    control(SECCOMP, FILTER, ctypes.byref(_Program(len(code), instructions)))


def _code(machine: Machine, *, processes: bool) -> list[tuple[int, int, int, int]]:
    """Instructions: code, how many to skip if so and if not, constant."""
    forbidden = (*machine.others, *machine.sockets, *machine.files, *machine.memory, *COMMON)
    forbidden += () if processes else machine.starting
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
    ]
    for number in forbidden:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | errno.EPERM)]
    if not processes:
        code += [
            (EQUAL, 0, 3, machine.clone),
            (LOAD, 0, 0, FIRST),
            (ANY_BIT, 1, 0, THREAD),
            (RETURN, 0, 0, FAIL | errno.EPERM),
        ]
    return [
        *code,
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, machine.prlimit),
        (LOAD, 0, 0, FIRST),
        (EQUAL, 1, 0, 0),  # its own limits
        (RETURN, 0, 0, FAIL | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]

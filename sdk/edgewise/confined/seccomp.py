"""sdk, confined: a filter of system calls: no sockets, no other processes, nothing that reaches another one.

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
    starting: tuple[int, ...]  # fork, vfork, execve, execveat
    forbidden: tuple[int, ...]


# socket, socketpair, ptrace, process_vm_readv, process_vm_writev, unshare, setns, mount, kill, tkill, tgkill,
# rt_sigqueueinfo, rt_tgsigqueueinfo; then, the same on both, io_uring_setup, pidfd_send_signal, pidfd_open, bpf or
# what it is there, keyctl
COMMON = (425, 424, 434)
CLONE3 = 435  # its flags are in memory, which a filter does not see: it is not there, and libraries use clone
MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(
        0xC000003E,
        56,
        (57, 58, 59, 322),
        (41, 53, 101, 310, 311, 272, 308, 165, 62, 200, 234, 129, 297, 321, 250, *COMMON),
    ),
    "aarch64": Machine(
        0xC00000B7,
        220,
        (221, 281),
        (198, 199, 117, 270, 271, 97, 268, 40, 129, 130, 131, 138, 240, 280, 219, *COMMON),
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
    forbidden = machine.forbidden if processes else (*machine.forbidden, *machine.starting)
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
    return [*code, (RETURN, 0, 0, ALLOW)]

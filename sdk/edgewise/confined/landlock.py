"""sdk, confined: Landlock: files that this process, and all that it starts, can reach from now on.

https://docs.kernel.org/userspace-api/landlock.html: Linux 6.2 and later (before, files could be emptied); TCP from 6.7.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from edgewise.confined.syscalls import call

CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, the same on all architectures
VERSION = 1  # flag of CREATE
BENEATH = 1  # kind of a rule

READ = 1 << 0 | 1 << 2 | 1 << 3  # run, read a file, list a folder
LEAST = 3  # of versions
FILES = {3: (1 << 15) - 1, 5: (1 << 16) - 1}  # all rights, by version
TCP = 0b11  # bind, connect
OTHERS = 0b11  # abstract sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Of Landlock, 1 or more. Raises OSError where the kernel has none."""
    return call(CREATE, None, 0, VERSION)


def restrict(*, readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leave files beneath these as they are to be reached, and no other. Raises OSError."""
    abi = version()
    if abi < LEAST:
        raise OSError(errno.ENOSYS, f"Landlock {abi} of this kernel lets files be emptied; it takes Linux 6.2")
    rights = FILES[max(known for known in FILES if known <= abi)]
    ruleset = _Ruleset(rights, TCP if abi >= 4 else 0, OTHERS if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = call(CREATE, ctypes.byref(ruleset), size, 0)
    try:
        for path in filter(Path.exists, readable):
            _allow(rules, path, READ & rights)
        for path in writable:
            _allow(rules, path, rights)
        call(RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights if path.is_dir() else rights & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 14)
        call(ADD, rules, BENEATH, ctypes.byref(_Beneath(allowed, place)), 0)
    finally:
        os.close(place)

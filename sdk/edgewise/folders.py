"""sdk: open folders: a lock that the system lets go with the process, and what brings their names to the disk.

Windows opens no folders: there, nothing is locked or brought to the disk.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl


class OpenFolder:
    """A folder, open until the end of a `with` block, or `close`. Raises OSError, as where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = _open(path)

    def lock(self, *, wait: bool = False) -> bool | None:
        """Take the lock, if need be when it is free. False: somebody has it; None: the system has no locks.

        Raises OSError where the filesystem has none.
        """
        if sys.platform != "win32":
            assert self._handle is not None
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            return True
        return None

    def exists(self) -> bool:
        """Whether nobody has removed it since it was opened."""
        return self.path.is_dir() if self._handle is None else os.fstat(self._handle).st_nlink > 0

    def sync(self) -> None:
        """Bring the names in it to the disk."""
        if self._handle is not None:
            os.fsync(self._handle)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "OpenFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path) -> int | None:
    if sys.platform == "win32":
        path.lstat()
        return None
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)

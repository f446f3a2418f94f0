"""sdk, bundle: writes a folder so that it is there whole, or not at all.

Everything goes to a folder beside the output, is brought to the disk (fsync of every file and every folder), and is
renamed. The order for an output that is replaced:

    write and sync the new folder    killed here: the output is the old one
    exchange the two names           one atomic step (renameat2); the output is the old one or the new one
    delete the old folder            killed here: the output is the new one

A filesystem that cannot exchange gets two renames, the old one aside and the new one in. Killed between these two,
the output is missing and whole under the other name; the next build puts it back. What a killed build leaves behind is
removed by the next one: a build holds a lock on its folder, which the kernel lets go with the process. Where there are
no locks, nothing is removed.
"""

import ctypes
import errno
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgewise.checkpoint import COMPANIONS
from edgewise.errors import BundleError
from edgewise.folders import OpenFolder

logger = logging.getLogger(__name__)

# What a build or an export writes: a folder with anything else in it is never replaced.
OURS = {*COMPANIONS, "README.md", "genai_config.json", "manifest.json", "model.onnx", "model.onnx_data", "onnx"}
NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
RENAME_EXCHANGE = 2
AT_FDCWD = -100


@contextmanager
def staged(output: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends well, and vanishes when it does not.

    An existing output is refused; with `force` it is replaced, if it holds nothing but what builds write. Raises
    BundleError, also for a full disk.
    """
    output = Path(os.path.abspath(output))
    check_output(output, force=force)
    with _explained(output):
        folder = _claim(output)
        stage = folder.path
        try:
            yield stage
            _settle(stage)
            _publish(stage, output, force=force)
        except BundleError as error:
            raise BundleError(str(error).replace(str(stage), str(output))) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)  # nothing after a rename; the old output after an exchange
            folder.close()


def check_output(output: Path, *, force: bool) -> None:
    """Refuse an output that exists, or with `force` one that no build wrote; clear up after killed builds."""
    if not output.parent.is_dir():
        raise BundleError(f"there is no folder {output.parent} to write {output.name} in; create it first")
    _reap(output)
    if not os.path.lexists(output):
        return
    if output.is_symlink() or not output.is_dir():
        raise BundleError(f"{output} exists and is not a folder; remove it, or choose another output")
    if not force:
        raise BundleError(f"{output} exists; to replace it, use --force (in Python: force=True)")
    if foreign := sorted(set(os.listdir(output)) - OURS):
        raise BundleError(f"{output} holds '{foreign[0]}', which no build wrote: not replaced, remove it yourself")


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_WRITING:
            raise
        raise BundleError(f"{output} cannot be written: {error.strerror}; nothing is left of it") from error


def _claim(output: Path) -> OpenFolder:
    """A new folder beside the output; its lock says that its build lives."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{output.name}.{os.getpid()}.", suffix=".tmp", dir=output.parent))
        try:
            folder = OpenFolder(path)
        except FileNotFoundError:
            continue  # another build took it for a dead one, before it was locked
        if _lock(folder) is not False and folder.exists():
            return folder
        folder.close()


def _lock(folder: OpenFolder) -> bool | None:
    """Take the lock of a folder; False: somebody has it; None: the system or the filesystem has no locks."""
    try:
        return folder.lock()
    except OSError:
        return None


def _reap(output: Path) -> None:
    """Remove what killed builds of this output left; put back an output that one of them had moved aside."""
    leftover = re.compile(rf"\.{re.escape(output.name)}\.\d+\.\w+\.(tmp|old)")
    for path in sorted(output.parent.iterdir()):
        if match := leftover.fullmatch(path.name):
            with suppress(FileNotFoundError), OpenFolder(path) as folder:
                if not _lock(folder):
                    continue  # its build lives, or nothing proves that it does not
                if match[1] == "old" and not os.path.lexists(output):
                    os.rename(path, output)
                else:
                    logger.info("removing %s, which a killed build left", path)
                    shutil.rmtree(path, ignore_errors=True)


def _settle(stage: Path) -> None:
    """Normal permissions, and everything on the disk, the folders last."""
    for folder, _, files in os.walk(stage, topdown=False):
        for name in files:
            path = Path(folder, name)
            path.chmod(0o644)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        Path(folder).chmod(0o755)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    with OpenFolder(path) as folder:
        folder.sync()


def _publish(stage: Path, output: Path, *, force: bool) -> None:
    if not force or not output.exists():
        try:
            os.rename(stage, output)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise BundleError(f"{output} exists now, and did not when this build began; nothing was written") from error
    elif not _exchange(stage, output):
        _replace(stage, output)
    _sync(output.parent)


def _exchange(stage: Path, output: Path) -> bool:
    """Swap two names in one step; False where the system or the filesystem cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    failed = rename(AT_FDCWD, os.fsencode(stage), AT_FDCWD, os.fsencode(output), RENAME_EXCHANGE)
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(output))
    return not failed


def _replace(stage: Path, output: Path) -> None:
    """Swap two names in two steps."""
    aside = stage.with_suffix(".old")
    with OpenFolder(output) as old:
        _lock(old)  # while we live, nobody puts it back
        os.rename(output, aside)
        _sync(output.parent)
        os.rename(stage, output)
        _sync(output.parent)
        shutil.rmtree(aside, ignore_errors=True)

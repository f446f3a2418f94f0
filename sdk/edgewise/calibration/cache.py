"""sdk, calibration: where files are kept between builds, and who may write which of them.

Finished files are named by what they were computed from, and appear by a rename. A folder that is worked in is locked;
the kernel lets the lock go with the process, so that what a killed build left can be told from what another one uses.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgewise.errors import OptionError

logger = logging.getLogger(__name__)

VARIABLE = "EDGEWISE_CACHE"
WORK, SCRATCH = ".work", ".scratch"
ABANDONED_S = 7 * 24 * 3600  # what can be gone on with is kept for a week


def cache_folder() -> Path:
    """`$EDGEWISE_CACHE`, or `edgewise` in the user's cache folder. Raises OptionError where it cannot be made."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get(VARIABLE) or f"{home}/edgewise").expanduser() / "calibration"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder} cannot be made: {error.strerror}; set {VARIABLE} to a folder that can") from error
    return folder


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as the block lasts."""
    root = cache_folder()
    _sweep(root)
    while True:
        folder = Path(tempfile.mkdtemp(suffix=SCRATCH, dir=root))
        with _locked(folder, wait=False) as mine:
            if mine:  # not swept away before it was locked
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


@contextmanager
def claimed(key: str) -> Iterator[Path]:
    """The folder in which `key` is worked on, with what an earlier process left there when it was killed.

    Nobody else has it meanwhile: a second one waits, and finds the work done. It is removed when the block ends,
    unless that is by an interrupt.
    """
    root = cache_folder()
    _sweep(root)
    folder = root / f"{key}{WORK}"
    while True:
        folder.mkdir(exist_ok=True)
        with _locked(folder, wait=True) as mine:
            if not mine:
                continue
            try:
                yield folder
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock of a folder is held, and the folder is still there."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(handle, folder, wait=wait) and os.fstat(handle).st_nlink > 0
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        logger.warning("another build computes the same statistics; waiting for it (%s)", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise OptionError(f"{folder} cannot be locked ({error.strerror}); set {VARIABLE} to a local folder") from error
    return True


def _sweep(root: Path) -> None:
    """Remove what killed builds left."""
    for folder in root.iterdir():
        if folder.suffix in (WORK, SCRATCH):
            with suppress(OSError), _locked(folder, wait=False) as mine:
                unused = time.time() - folder.stat().st_mtime
                if mine and (folder.suffix == SCRATCH or unused > ABANDONED_S):
                    logger.info("removing %s, which a killed build left", folder)
                    shutil.rmtree(folder, ignore_errors=True)

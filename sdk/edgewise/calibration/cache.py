"""sdk, calibration: where files are kept between builds, and who may write which of them.

Finished files are named by what they were computed from, and appear by a rename. A folder that is worked in is locked;
the kernel lets the lock go with the process, so that what a killed build left can be told from what another one uses.
A system without locks leaves what was killed for a week.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgewise.errors import OptionError
from edgewise.folders import OpenFolder

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
        with _locked(folder, wait=False) as held:
            if held is not False:  # not swept away before it was locked
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


@contextmanager
def claimed(key: str, *, keep: bool = False) -> Iterator[Path]:
    """The folder in which `key` is worked on, with what an earlier process left there when it was killed.

    Nobody else has it meanwhile: a second one waits, and finds the work done. It is removed when the block ends,
    unless that is by an interrupt; or with `keep` by any error, for work that goes on once its cause is mended.
    """
    root = cache_folder()
    _sweep(root)
    folder = root / f"{key}{WORK}"
    while True:
        folder.mkdir(exist_ok=True)
        with _locked(folder, wait=True) as held:
            if held is False:
                continue
            try:
                yield folder
            except Exception:
                if not keep:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool | None]:
    """Whether the lock of a folder is held, and the folder is still there; None: the system has no locks."""
    try:
        folder = OpenFolder(path)
    except FileNotFoundError:
        yield False
        return
    with folder:
        held = _lock(folder, wait=wait)
        yield held if folder.exists() else False


def _lock(folder: OpenFolder, *, wait: bool) -> bool | None:
    try:
        held = folder.lock()
        if held is False and wait:
            logger.warning("another process computes the same; waiting for it (%s)", folder.path)
            held = folder.lock(wait=True)
    except OSError as error:
        where = f"{folder.path} cannot be locked ({error.strerror})"
        raise OptionError(f"{where}; set {VARIABLE} to a local folder") from error
    return held


def _sweep(root: Path) -> None:
    """Remove what killed builds left."""
    for folder in root.iterdir():
        if folder.suffix in (WORK, SCRATCH):
            with suppress(OSError), _locked(folder, wait=False) as held:
                old = time.time() - folder.stat().st_mtime > ABANDONED_S
                if old if held is None else held and (old or folder.suffix == SCRATCH):
                    logger.info("removing %s, which a killed build left", folder)
                    shutil.rmtree(folder, ignore_errors=True)

"""sdk, bundle: opens a bundle: nothing of it is used before every byte has been compared with its hash."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import blake3

from edgewise.bundle import genai
from edgewise.bundle.manifest import FILE_NAME, File, Manifest
from edgewise.bundle.probe import probe
from edgewise.errors import BundleError

MANIFEST_BYTES = 16 << 20  # more is not read
CHUNK_BYTES = 4 << 20

# A relative path with forward slashes that means the same file everywhere: no "..", no hidden files, no drives.
SAFE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True)
class Bundle:
    """A folder that a build wrote, and what its manifest says."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> "Bundle":
        """The bundle at `path`. Raises BundleError where it is not what was built, naming the file.

        `verify=False` trusts the content of the files, and still refuses a manifest that was changed.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(f"there is no bundle at {folder}; make one with: edgewise build CHECKPOINT -o {folder}")
        bundle = cls(folder, _read_manifest(folder))
        bundle._check_names()
        if verify:
            bundle._check_folder()
            for name, file in sorted(bundle.manifest.files.items()):
                _check_content(folder, name, file)
        genai.check(folder, bundle.manifest)
        return bundle

    def file(self, name: str) -> Path | None:
        """Where a file of the bundle is; None where the bundle has none of that name."""
        return self.path / name if name in self.manifest.files else None

    def graph(self, name: str | None = None) -> Path:
        """Where the ONNX file of a graph is: of the one that decodes, unless another is named."""
        return self.path / (self.manifest.graphs[name] if name else self.manifest.decoder)

    def _check_names(self) -> None:
        files, where = self.manifest.files, self.path / FILE_NAME
        for name in files:
            if not SAFE_PATH.fullmatch(name) or name == FILE_NAME:
                raise BundleError(f"{where}: '{name}' is not the name of a file inside of the bundle")
        if len({name.lower() for name in files}) < len(files):
            raise BundleError(f"{where}: two files differ only in upper and lower case")
        for graph in self.manifest.graphs.values():
            if graph not in files:
                raise BundleError(f"{where}: the graph '{graph}' is not among the files")

    def _check_folder(self) -> None:
        """Every file that the manifest lists is there, and nothing else is."""
        found = set(_walk(self.path))
        if extra := found - {*self.manifest.files, FILE_NAME}:
            raise BundleError(f"{self.path / min(extra)} is not part of the bundle; remove it, or build again")
        if missing := set(self.manifest.files) - found:
            raise BundleError(f"{self.path / min(missing)} is missing; the bundle is incomplete, build it again")


def verify(path: str | Path) -> Bundle:
    """Refuse a bundle that is not what was built, or whose tokenizer or chat template does not load.

    The hashes detect damage, not malice; so the files that are known to end the process that parses them are parsed
    in a process of their own.
    """
    bundle = Bundle.open(path)
    if problem := probe("text", bundle.path):
        raise BundleError(problem)
    return bundle


def _read_manifest(folder: Path) -> Manifest:
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        raise BundleError(f"{folder} is not a bundle: it has no {FILE_NAME}")
    with _open(path) as file:
        content = file.read(MANIFEST_BYTES)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: {error}") from error
    return Manifest.read(text, where=str(path))


def _walk(folder: Path, prefix: str = "") -> Iterator[str]:
    """The names of all files, relative to the bundle; anything but files and folders is refused."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                yield name
            else:
                raise BundleError(f"{entry.path} is a link or a device; a bundle holds plain files only")


def _check_content(folder: Path, name: str, file: File) -> None:
    path = folder / name
    with _open(path) as content:
        size = os.fstat(content.fileno()).st_size
        if size != file.bytes:
            raise BundleError(f"{path} has {size:,} bytes instead of {file.bytes:,}; the bundle is damaged")
        if file_hash(content) != file.blake3:
            raise BundleError(f"{path} does not match its hash; the bundle is damaged, build or copy it again")


def file_hash(file: FileIO) -> str:
    """BLAKE3 of the rest of a file; reads it once, with a few megabytes of memory."""
    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while count := file.readinto(buffer):
        hasher.update(buffer[:count])
    return hasher.hexdigest()


def _open(path: Path) -> FileIO:
    """A plain file to read: never through a link, never a device."""
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]  # no system has them all
    try:
        handle = os.open(path, os.O_RDONLY | sum(flags))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BundleError(f"{path} is not a plain file")
    return FileIO(handle)

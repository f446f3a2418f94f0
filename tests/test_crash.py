"""tests: a build that is killed, or finds the disk full, leaves the old bundle or the new one, nothing half-done."""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.bundle.read import Bundle
from edgewise.bundle.write import staged
from edgewise.errors import BundleError
from edgewise.pipeline import build
from killed import Ask

OLD, NEW = 300, 400  # the contexts of two bundles, by which one tells them apart


def test_a_build_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one(
    pycoder: Path, tmp_path: Path, ask: Ask
) -> None:
    rng, output = random.Random(), tmp_path / "model.edge"
    old, paths = build(pycoder, output=tmp_path / "old.edge", context=OLD, load_check=False), {}
    paths = {"checkpoint": str(pycoder), "output": str(output), "context": NEW}
    usual = max(ask("build", **paths, after=None)["seconds"] for _ in range(2))
    leftovers = 0
    for attempt in range(20):
        shutil.rmtree(output, ignore_errors=True)
        if replaces := attempt % 2:
            shutil.copytree(old.path, output)
        ask("build", **paths, after=rng.uniform(0, usual))
        leftovers += len(list(tmp_path.iterdir())) - 1 - output.exists()
        if replaces or output.exists():
            assert Bundle.open(output).manifest.context in (OLD, NEW)
    assert leftovers, "no build was killed while it wrote"
    build(pycoder, output=output, context=NEW, force=True, load_check=False)
    assert set(tmp_path.iterdir()) == {output, old.path}
    assert Bundle.open(output).manifest.context == NEW


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_replacement_killed_before_any_of_its_steps_is_complete_or_undone(
    tmp_path: Path, ask: Ask, exchange: bool
) -> None:
    output, seen, step = tmp_path / "model.edge", set(), 0
    while True:
        shutil.rmtree(output, ignore_errors=True)
        publish(output, "old")
        status = ask("publish", output=str(output), text="new", step=step, exchange=exchange)["status"]
        if exchange:
            assert output.is_dir()
        with pytest.raises(BundleError, match="exists"):
            publish(output, "other")  # puts back what was moved aside, and clears up
        seen.add(content(output))
        assert list(tmp_path.iterdir()) == [output], step
        if status == 0:
            break
        step += 1
    assert seen == {"old", "new"}
    assert step > 10


def publish(output: Path, text: str) -> None:
    with staged(output) as stage:
        (stage / "onnx").mkdir()
        (stage / "onnx" / "model.onnx").write_text(text)
        (stage / "README.md").write_text(text)


def content(output: Path) -> str:
    """What both files of a folder that `publish` wrote say."""
    first, second = (output / "onnx" / "model.onnx").read_text(), (output / "README.md").read_text()
    assert first == second
    return first


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").resolve().name)
        real_fsync(handle)

    def rename(source: Path, target: Path) -> None:
        done.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    publish(tmp_path / "model.edge", "text")
    stage = done[-3]
    assert stage.startswith(".model.edge.")
    assert done == ["model.onnx", "onnx", "README.md", stage, "rename", tmp_path.name]


def test_of_two_builds_of_one_output_the_first_to_finish_wins(tmp_path: Path) -> None:
    output = tmp_path / "model.edge"

    def slow() -> None:
        with staged(output) as stage:
            (stage / "README.md").write_text("slow")
            publish(output, "fast")
            assert (stage / "README.md").read_text() == "slow"  # not taken for what a killed build left

    with pytest.raises(BundleError, match="exists now, and did not when this build began"):
        slow()
    assert content(output) == "fast"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_build_that_fails_or_is_interrupted_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with staged(tmp_path / "model.edge") as stage:
            (stage / "README.md").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def edgewise_build(
    checkpoint: Path, output: Path, *, file_bytes: int | None = None
) -> "subprocess.CompletedProcess[str]":
    """`edgewise build`, with a limit on the size of any file that it writes."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    program = "from edgewise.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(checkpoint), "-o", str(output), "--force", "--no-load-check"]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)


def one_error(result: "subprocess.CompletedProcess[str]") -> str:
    """The one line with which a command failed."""
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    return line


@pytest.mark.parametrize("file_bytes", [100_000, 2_000_000], ids=["in the tokenizer", "in the weights"])
def test_a_full_disk_is_one_line_and_leaves_the_old_bundle(pycoder: Path, tmp_path: Path, file_bytes: int) -> None:
    output = tmp_path / "model.edge"
    error = one_error(edgewise_build(pycoder, output, file_bytes=file_bytes))
    assert "File too large" in error
    assert str(output) in error
    assert list(tmp_path.iterdir()) == []
    old = build(pycoder, output=output, context=OLD, load_check=False)
    one_error(edgewise_build(pycoder, output, file_bytes=file_bytes))
    assert list(tmp_path.iterdir()) == [output]
    assert Bundle.open(output) == old


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MB; skips where mounting one is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a filesystem is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(pycoder: Path, small_disk: Path) -> None:
    error = one_error(edgewise_build(pycoder, small_disk / "model.edge"))
    assert "bytes left" in error
    assert ".tmp" not in error
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_runs_full_is_one_line(small_disk: Path) -> None:
    with (
        pytest.raises(BundleError, match="cannot be written: No space left"),
        staged(small_disk / "model.edge") as stage,
    ):
        (stage / "model.onnx").write_bytes(bytes(3 << 20))
    assert list(small_disk.iterdir()) == []


def test_an_output_that_is_not_a_bundle_is_never_replaced(pycoder: Path, tmp_path: Path) -> None:
    home, file, link = tmp_path / "home", tmp_path / "file", tmp_path / "link"
    home.mkdir()
    (home / "README.md").touch()
    (home / "thesis.txt").touch()
    file.touch()
    link.symlink_to(home)
    for output, message in (
        (home, "holds 'thesis.txt', which no build wrote"),
        (file, "not a folder"),
        (link, "not a"),
    ):
        with pytest.raises(BundleError, match=message):
            build(pycoder, output=output, force=True)
    with pytest.raises(BundleError, match=r"examples/pycoder holds '\S+', which no build wrote"):
        build(pycoder, output=pycoder, force=True)
    assert sorted(path.name for path in home.iterdir()) == ["README.md", "thesis.txt"]


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.edge").mkdir()
    with pytest.raises(BundleError, match=r"model\.edge exists; to replace it, use --force"):
        build(tmp_path / "no checkpoint", output=tmp_path / "model.edge")


def test_the_folder_to_write_in_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no folder .*absent to write model.edge in"):
        build(tmp_path / "no checkpoint", output=tmp_path / "absent" / "model.edge")


def test_a_build_that_is_asked_to_end_leaves_nothing(pycoder: Path, tmp_path: Path) -> None:
    program = "from edgewise.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(pycoder), "-o", str(tmp_path / "model.edge")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(".*/onnx/*")):
            time.sleep(0.001)
        process.terminate()  # what is left to do, with the load check, takes far longer than this
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []

"""tests: a package of somebody else's, installed into an environment of its own: each thing that it adds is used."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Environment:
    """An environment where edgewise is installed, with plugins of its own beside it."""

    folder: Path
    plugins: Path | None = None

    def edgewise(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """What the command does there."""
        code = "from edgewise.cli.main import main; main()"
        paths = {"PYTHONPATH": str(self.plugins)} if self.plugins else {}
        command = [self.folder / "bin/python", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | paths)

    def json(self, *arguments: str | Path) -> object:
        done = self.edgewise(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment that sees what is installed here, and into which pip installs the demo plugin."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "host.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", "utf-8")
    source = shutil.copytree(FIXTURES / "edgewise_demo_plugin", folder / "source")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    offline = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "install", *offline, str(source)], check=True, timeout=300)
    return Environment(folder)


@pytest.fixture(scope="module")
def broken(environment: Environment) -> Environment:
    """The same environment, with three plugins that do not work."""
    return Environment(environment.folder, FIXTURES / "broken_plugins")


@pytest.fixture(scope="module")
def bundle(environment: Environment, pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the plugin's exporter, its pass and its target."""
    folder = tmp_path_factory.mktemp("demo")
    checkpoint = shutil.copytree(pycoder, folder / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "demo"}), "utf-8")
    done = environment.edgewise("build", checkpoint, "--target", "demo-board", "-o", folder / "demo.edge")
    assert done.returncode == 0, done.stderr
    assert "threshold(below=0.002)" in done.stderr
    return folder / "demo.edge"


def test_a_target_of_a_plugin_goes_on_from_one_of_ours(environment: Environment) -> None:
    ours, theirs = (environment.json("targets", "show", name) for name in ("cpu-x64", "demo-board"))
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert (theirs["extends"], theirs["context"]) == ("cpu-x64", 256)
    assert theirs["hardware"]["memory"]["source"] == "made up"
    assert [step["name"] for step in theirs["recipe"]] == ["threshold", "quantize"]
    assert [theirs[key] for key in ("providers", "lowering")] == [ours[key] for key in ("providers", "lowering")]


def test_what_a_plugin_adds_is_listed_with_its_package(environment: Environment) -> None:
    for command, name in {
        "exporters": "demo",
        "passes": "threshold",
        "targets": "demo-board",
        "searches": "runner-up",
    }.items():
        rows = {row["name"]: row for row in environment.json(command)}  # type: ignore[attr-defined]
        assert rows[name]["package"] == "edgewise-demo-plugin"
        assert rows[name]["description"]
    assert "layers" in environment.edgewise("--help").stdout


def test_its_exporter_its_pass_and_its_target_build_a_bundle(environment: Environment, bundle: Path) -> None:
    manifest = environment.json("inspect", bundle)
    assert isinstance(manifest, dict)
    assert manifest["target"] == "demo-board"
    assert [step["pass"] for step in manifest["recipe"]][:2] == ["threshold", "quantize"]
    assert manifest["facts"]["model_type"]


def test_its_search_is_used_with_its_options(environment: Environment, bundle: Path) -> None:
    def text(*options: str) -> str:
        done = environment.edgewise("run", bundle, "def read(", "--max-tokens", "16", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert text("--search", "runner-up", "--set", "chance=0.0") == text("--search", "greedy")
    assert text("--search", "runner-up", "--set", "chance=1.0") != text("--search", "greedy")
    refused = environment.edgewise("run", bundle, "def", "--search", "runner-up", "--set", "chanse=1.0")
    assert refused.returncode == 1
    assert "did you mean 'chance'?" in refused.stderr


def test_its_command_is_run(environment: Environment, bundle: Path) -> None:
    done = environment.edgewise("layers", bundle)
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


def test_each_broken_plugin_is_one_line(broken: Environment) -> None:
    listed = broken.json("plugins")
    assert isinstance(listed, dict)
    command, misfit, raises, step = sorted(listed["problems"])
    assert command == "command 'inspect' is claimed by edgewise and edgewise-claims; uninstall one of them to use it"
    assert step == "pass 'quantize' is claimed by edgewise and edgewise-claims; uninstall one of them to use it"
    assert misfit.startswith("edgewise-misfit: plugin 'broken' did not load: ")
    assert "{'model'}" in misfit
    assert raises == "edgewise-raises: plugin 'broken' did not load: RuntimeError: no licence for this board"
    assert "\n" not in misfit


def test_what_two_packages_claim_is_an_error_when_it_is_used(broken: Environment, pycoder: Path) -> None:
    for command in (["inspect", "x.edge"], ["build", str(pycoder), "--dry-run"]):
        done = broken.edgewise(*command)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "claimed by edgewise and edgewise-claims" in done.stderr


def test_beside_broken_plugins_everything_else_keeps_working(broken: Environment, bundle: Path) -> None:
    for command in (["--help"], ["searches"], ["verify", bundle], ["run", bundle, "def", "--max-tokens", "4"]):
        done = broken.edgewise(*command)
        assert done.returncode == 0, done.stderr
        assert "licence" not in done.stderr


def test_an_exporter_that_does_not_load_is_a_warning_where_another_is_found(
    broken: Environment, pycoder: Path, tmp_path: Path
) -> None:
    done = broken.edgewise("export", pycoder, "-o", tmp_path / "graph")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: exporter 'absent' of edgewise-claims did not load from edgewise_claims:Absent")

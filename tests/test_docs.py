"""tests: what the documentation says is what happens: each command and each block of Python in it is run."""

import importlib.util
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import click
import pytest

from edgewise import hookspecs
from edgewise.cli.main import command_line, execute
from edgewise.recipe import Recipe
from edgewise.registry import Registry
from encdec import encoder_decoder
from encoding import ENCODERS, packed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FIXTURE = ROOT / "tests/fixtures/edgewise_demo_plugin"
NAMES = (
    *("start", "calibration", "cache", "generation", "gpu", "planning"),
    *("optimum", "prefill", "pruning", "quality", "scaling", "smaller", "sparsity", "speculation", "targets"),
    *("tasks", "vocabulary"),
)
RUN = [ROOT / "README.md", *(DOCS / f"{name}.md" for name in NAMES)]
EXAMPLES = [ROOT / f"examples/{name}/README.md" for name in ("arithmetic", "pycoder", "semantic-search")]
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *EXAMPLES]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a command in the documentation needs; pages of one folder build on one another."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("node_modules"))
    return folder


@pytest.fixture(scope="module")
def talker(checkout: Path) -> Path:
    """A folder with a bundle whose checkpoint has a chat template, of a model that calls tools and thinks."""
    folder = shutil.copytree(checkout, checkout.parent / "talker")
    template = folder / "examples/pycoder/chat_template.jinja"
    template.write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<think></think>"
    )
    _edgewise("edgewise build examples/pycoder -o talker.edge", folder)
    return folder


@pytest.fixture(scope="module")
def encoders(checkout: Path) -> Path:
    """A folder with bundles that embed and label texts, under the names that pages give them."""
    folder = shutil.copytree(checkout, checkout.parent / "encoders")
    for name, bundle in (
        ("sentence", "minilm"),
        ("sentence", "float"),
        ("distilbert", "sentiment"),
        ("tokens", "names"),
    ):
        packed(ENCODERS / name, folder / f"{bundle}.edge", recipe=Recipe())
    for name in ("passages.txt", "letters.txt"):
        shutil.copyfile(folder / "examples/semantic-search/passages.txt", folder / name)
    return folder


def test_the_page_about_encoders_works(encoders: Path) -> None:
    text = (DOCS / "encoders.md").read_text("utf-8")
    for command in _commands(text):
        _edgewise(command, encoders)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=encoders, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_the_page_about_encoder_decoders_works(tmp_path: Path) -> None:
    encoder_decoder("flan", tmp_path / "my-t5")
    text = (DOCS / "encoder-decoder.md").read_text("utf-8")
    commands = _commands(text)
    assert len(commands) == 2
    for command in commands:
        _edgewise(command, tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_python_about_conversations_works(talker: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "chat.md").read_text("utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=talker, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_each_command_on_a_page_works(page: Path, checkout: Path) -> None:
    folder = shutil.copytree(checkout, checkout.parent / page.stem)
    text = page.read_text("utf-8")
    for name, content in re.findall(r"`([\w-]+\.(?:toml|json))`:\n\n```\w+\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(content, "utf-8")
    commands = _commands(text)
    assert commands
    for command in commands:
        _edgewise(command, folder)


def test_each_example_in_the_help_works(checkout: Path, encoders: Path) -> None:
    group = command_line(Registry([]))
    folder = shutil.copytree(checkout, checkout.parent / "help")
    commands = dict(group.commands)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            commands |= {f"{name} {word}": below for word, below in command.commands.items()}
    for name, command in commands.items():
        examples = re.findall(r"^ +(edgewise .*)$", command.help or "", re.MULTILINE)
        assert examples, f"edgewise {name} --help has no example"
        for example in examples:
            assert example.startswith(f"edgewise {name}")
            if name != "chat":  # the demo model has no chat template
                _edgewise(example, encoders if name in ("embed", "classify") else folder)


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "README.md",
        *(DOCS / f"{name}.md" for name in ("batching", "cache", "generation", "quality", "scaling", "speculation")),
    ],
    ids=lambda page: page.name,
)
def test_the_python_on_a_page_works(page: Path, checkout: Path) -> None:
    folder = shutil.copytree(checkout, checkout.parent / f"python-{page.stem}")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_has_the_two_lines_that_ci_runs() -> None:
    lines = [
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith("python3 -m venv")
    ]
    assert len(lines) == 2
    assert "edgewise build examples/pycoder" in lines[0]
    assert lines[0].endswith('edgewise run pycoder.edge "def read_json("')
    assert lines[1].endswith("-m pytest -n auto --dist loadfile")
    assert "'^python3 -m venv '" in (ROOT / ".ci/run").read_text("utf-8")


@pytest.mark.parametrize("name", ["cli", "generation", "targets"])
def test_a_reference_is_what_the_code_says(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"generate_{name}", DOCS / f"generate_{name}.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (DOCS / f"{name}.md").read_text("utf-8") == script.page(), f"run: python docs/generate_{name}.py"


def test_the_plugin_in_the_docs_is_the_one_that_is_installed_and_used() -> None:
    page = (DOCS / "plugins.md").read_text("utf-8")
    shown = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```$", page, re.DOTALL | re.MULTILINE))
    files = [path for path in FIXTURE.rglob("*") if path.suffix in (".py", ".toml") and path.name != "__init__.py"]
    assert shown == {path.relative_to(FIXTURE).as_posix(): path.read_text("utf-8") for path in files}


def test_the_docs_name_every_hook_and_no_other() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    named = set(re.findall(r"\bregister_\w+", (DOCS / "plugins.md").read_text("utf-8")))
    assert named == hooks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_the_architecture_names_what_there_is() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    names = set(re.findall(r"\bedgewise(?:_[a-z]+)?(?:\.\w+)+", text))
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(name)
    for path in set(re.findall(r"\btests/\w+\.py", text)):
        assert (ROOT / path).exists(), path


def test_the_commands_that_prose_mentions_exist() -> None:
    commands = command_line(Registry([])).commands
    for page in PAGES:
        for name in re.findall(r"`edgewise ([a-z]+)", page.read_text("utf-8")):
            assert name in commands or name == "layers", f"{page.name}: edgewise {name}"


def _commands(text: str) -> list[str]:
    """The lines of `sh` blocks that call edgewise itself."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if re.match(r"((echo|cat) .* \| )?edgewise ", line)]


def _edgewise(line: str, folder: Path) -> None:
    """Run a command line of the docs, which may be fed by an echo or a file, and may write to one."""
    said, _, command = line.rpartition("| ")
    words = shlex.split(command, comments=True)[1:]
    typed = shlex.split(said)[1] if said else ""
    if said.startswith("cat "):
        typed = (folder / typed).read_text("utf-8")
    words, target = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, None)
    out, err = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(typed.encode())))
        assert execute(words) == 0, f"{line}\n{err.getvalue()}"
    assert out.getvalue(), line
    if target:
        (folder / target).write_text(out.getvalue(), "utf-8")

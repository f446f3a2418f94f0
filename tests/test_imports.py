"""tests: who may import whom; what the command line and a device load; the public names."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import edgewise

ROOT = Path(__file__).parents[1]
ROOMS = {
    "sdk": "edgewise",
    "plugins": "edgewise_plugins",
    "exporters": "edgewise_exporters",
    "targets": "edgewise_targets",
}
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "transformers", "rich")
UNUSED = ("onnxruntime", "rich", "sympy.core", "torch", "transformers")
DEVICE = ("edgewise.runtime", "edgewise.scaling", "edgewise.search", "edgewise.text")
DEVICE_PACKAGES = {"numpy", "onnxruntime", "tokenizers"}
WHEN_ASKED = {"jinja2", "llguidance"}  # templates and grammars: for those who use them
BASE_PACKAGES = DEVICE_PACKAGES | {"jinja2", "blake3", "pluggy"}  # what they reach: a bundle's hashes, the registry
OF_ANOTHER_PYTHON = "edgewise_exporters.optimum.child"  # a script that nothing imports, for torch and transformers


@dataclass(frozen=True)
class Module:
    """One source file: its text and what it imports, at once (`eager`) and in all."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def eager(self) -> set[str]:
        return set(_imported(_statements_run_on_import(self.tree)))

    @property
    def every(self) -> set[str]:
        return set(_imported(ast.walk(self.tree)))


@cache
def modules() -> dict[str, Module]:
    found = {}
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text("utf-8")
            found[name] = Module(name, path, text, ast.parse(text))
    return found


def test_no_room_imports_another_and_only_the_sdk_is_imported_by_all() -> None:
    for module in modules().values():
        own = module.name.partition(".")[0]
        others = {name.partition(".")[0] for name in module.every} & set(ROOMS.values()) - {own, "edgewise"}
        assert not others, f"{module.name} imports {others}"


def test_imports_are_absolute() -> None:
    for module in modules().values():
        for node in ast.walk(module.tree):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module.name}:{node.lineno}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    ours = {name: {_module_of(target) for target in module.eager} - {None} for name, module in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in ours[name]:
                visit(str(target), (*path, name))
            done.add(name)

    for name in ours:
        visit(name, ())


def test_the_device_rooms_import_what_a_device_installs() -> None:
    for name, module in modules().items():
        if name.startswith(DEVICE):
            assert _third_party(module.every) <= DEVICE_PACKAGES | WHEN_ASKED, name
            assert not _third_party(module.eager) & WHEN_ASKED, f"{name}: import it where it is used"


def test_the_device_rooms_load_only_what_a_device_installs() -> None:
    reached, waiting = set(), [name for name in modules() if name.startswith(DEVICE)]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [inner for target in modules()[name].eager if (inner := _module_of(target))]
    for name in reached:
        assert _third_party(modules()[name].eager) <= BASE_PACKAGES, f"{name}, which the runtime imports"


def test_only_what_learns_takes_torch_and_only_when_it_is_used() -> None:
    learning = {name for name, module in modules().items() if "torch" in _third_party(module.every)}
    learning.remove(OF_ANOTHER_PYTHON)
    assert learning
    assert {name.partition(".")[0] for name in learning} == {"edgewise_plugins"}
    for name, module in modules().items():
        targets = {_module_of(target) for target in module.eager}
        assert name in learning or not targets & learning or "autoround" in name, name


def test_nothing_imports_the_script_of_another_python() -> None:
    for module in modules().values():
        assert OF_ANOTHER_PYTHON not in {_module_of(target) for target in module.every}, module.name


def test_nothing_in_the_product_runs_code_from_data() -> None:
    for module in modules().values():
        if module.name == OF_ANOTHER_PYTHON:
            assert module.text.count("trust_remote_code") == module.text.count("trust_remote_code=False")
            continue
        assert not _third_party(module.every) & {"pickle", "transformers"}, module.name
        assert "torch.load" not in module.text, module.name
        assert not {"pickle", "marshal", "shelve"} & module.every, module.name
        assert "trust_remote_code" not in module.text, module.name


def test_each_module_says_which_room_it_is() -> None:
    rooms = {package: folder for folder, package in ROOMS.items()}
    for module in modules().values():
        first = (ast.get_docstring(module.tree) or "").partition("\n")[0]
        assert first.startswith(rooms[module.name.partition(".")[0]]), f"{module.path}: {first!r}"


def test_help_loads_nothing_heavy() -> None:
    loaded = _run(
        "import sys; sys.argv = ['edgewise', '--help']\n"
        "from edgewise.cli.main import execute\n"
        "assert execute() == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    assert loaded.stderr.strip() == "[]"


def test_a_plan_loads_nothing_that_it_does_not_use() -> None:
    plan = _run(
        f"import atexit, sys; sys.argv = ['edgewise', 'plan', {str(ROOT / 'examples' / 'pycoder')!r}]\n"
        f"atexit.register(lambda: print([name for name in {UNUSED} if name in sys.modules], file=sys.stderr))\n"
        "from edgewise.cli.main import main\n"
        "main()"
    )
    assert plan.stderr.strip() == "[]"


def test_what_is_loaded_late_computes_as_ever() -> None:
    done = _run(
        "from edgewise.cli.seldom import load_seldom_ones_late\n"
        "load_seldom_ones_late()\n"
        "import onnx_ir, sympy\n"
        "print((onnx_ir.SymbolicDim('tokens') + 1).value, sympy.Integer(2) + 3)"
    )
    assert done.stdout.strip() == "tokens + 1 5", done.stderr


def test_the_runtime_is_imported_where_only_a_device_s_packages_are_installed() -> None:
    absent = ("onnx", "onnx_ir", "onnxscript", "ml_dtypes", "rich", "huggingface_hub", "safetensors", "torch", "jinja2")
    done = _run(
        "import sys\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        f"import {', '.join(DEVICE)}\n"
        "from edgewise import Encoder, Runner, Search\n"
        "print('imported')"
    )
    assert done.stdout.strip() == "imported", done.stderr


def test_the_public_names_are_these() -> None:
    assert edgewise.__all__ == sorted(edgewise.__all__)
    assert edgewise.__all__ == PUBLIC
    assert dir(edgewise) == edgewise.__all__


def test_every_public_name_is_there() -> None:
    for name in edgewise.__all__:
        assert getattr(edgewise, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    assert not hasattr(edgewise, "no_such_name")


PUBLIC = [
    "Budget",
    "Bundle",
    "Checkpoint",
    "EdgewiseError",
    "Encoder",
    "Exporter",
    "Facts",
    "Pass",
    "Plan",
    "Recipe",
    "RecipeStep",
    "Result",
    "Runner",
    "Scaled",
    "Scaler",
    "Scheduler",
    "Search",
    "Target",
    "Verifier",
    "__version__",
    "build",
    "export",
    "hookimpl",
    "plan_build",
    "scale",
    "verify",
]


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def _module_of(target: str) -> str | None:
    """The module of ours that `from a.b import c` (given as `a.b.c`) or `import a.b` loads."""
    if target in modules():
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in modules() else None


def _third_party(names: set[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - set(ROOMS.values())


def _imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _statements_run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Without the bodies of functions and of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _statements_run_on_import(node)

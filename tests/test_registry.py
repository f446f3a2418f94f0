"""tests: the registry and its catalogs: one broken plugin is one line, one name has one owner."""

import importlib
import sys
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path

import pytest

from edgewise.catalog import Catalog
from edgewise.errors import MissingExtra, OptionError, PluginError, TargetError
from edgewise.registry import GROUP, Registry, registry

PASSES = """
from edgewise import hookimpl

@hookimpl
def register_passes():
    return {names}
"""


TARGETS = """
from edgewise import hookimpl

@hookimpl
def register_targets():
    return {names}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Write":
    monkeypatch.syspath_prepend(tmp_path)
    return Write(tmp_path, monkeypatch)


class Write:
    """Writes modules into a folder that Python imports from, and forgets them after the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch

    def __call__(self, name: str, source: str, *, point: str | None = None) -> EntryPoint:
        """The entry point of package `edgewise-{name}` that leads to a module of that source."""
        (self.folder / f"{name}.py").write_text(source, "utf-8")
        info = self.folder / f"edgewise_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: edgewise-{name}\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{point or name} = {name}\n", "utf-8")
        importlib.invalidate_caches()
        self.monkeypatch.delitem(sys.modules, name, raising=False)
        (found,) = PathDistribution(info).entry_points
        return found


def test_what_comes_with_edgewise_has_no_problems() -> None:
    assert registry().problems == []


@pytest.mark.parametrize(
    "plural", ["exporters", "passes", "targets", "searches", "processors", "stop_rules", "scalers", "verifiers"]
)
def test_all_that_is_installed_loads_under_its_own_name_and_is_described(plural: str) -> None:
    catalog: Catalog[object] = getattr(registry(), plural)
    assert catalog.names(), f"edgewise comes with {plural}"
    for name in catalog.names():
        assert getattr(catalog.get(name), "name", name) == name
        assert catalog.describe(name), f"{name} has no description"
        assert catalog.owner(name)


def test_an_unknown_name_is_met_with_the_closest_and_all_that_there_are() -> None:
    with pytest.raises(OptionError, match=r"no target is named 'cpu-x46'; did you mean 'cpu-x64'\? known: .*cpu-x64"):
        registry().targets.get("cpu-x46")


def test_a_path_is_a_profile_of_the_user_s_own(tmp_path: Path) -> None:
    profile = tmp_path / "board.toml"
    profile.write_text('name = "board"\ndescription = "mine"\nproviders = [{name = "CPUExecutionProvider"}]\n', "utf-8")
    assert registry().get_target(str(profile)).description == "mine"
    with pytest.raises(TargetError, match="absent"):
        registry().get_target(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("raised", ["RuntimeError('two\\nlines')", "SystemExit('bye')", "ImportError('no')"])
def test_a_plugin_that_raises_when_it_is_imported_is_one_line(plugin: Write, raised: str) -> None:
    good = plugin("good", PASSES.format(names={"fine": "somewhere:Fine"}))
    found = Registry([plugin("bad", f"raise {raised}"), good])
    (problem,) = found.problems
    assert "plugin 'bad' did not load" in problem
    assert "\n" not in problem
    assert found.passes.names() == ["fine"]


def test_a_hook_with_a_wrong_argument_is_one_line(plugin: Write) -> None:
    source = "from edgewise import hookimpl\n@hookimpl\ndef register_passes(model): return {}\n"
    found = Registry([plugin("misfit", source), plugin("good", PASSES.format(names={"fine": "a:B"}))])
    (problem,) = found.problems
    assert "plugin 'misfit' did not load" in problem
    assert "{'model'}" in problem
    assert "\n" not in problem
    assert found.passes.names() == ["fine"]


def test_a_misspelt_hook_is_one_line(plugin: Write) -> None:
    found = Registry([plugin("typo", PASSES.replace("passes", "pass").format(names={}))])
    assert "no hook is named 'register_pass'; known: register_commands" in found.problems[0]


@pytest.mark.parametrize("names", ["['quantize']", "{'quantize': 3}", "{'quantize': 'nowhere'}", "{3: 'a:B'}", "None"])
def test_a_hook_that_returns_something_else_is_one_line(plugin: Write, names: str) -> None:
    found = Registry([plugin("wrong", PASSES.format(names=names))])
    assert ['register_passes() must return names and "module:Attribute" texts' in line for line in found.problems] == [
        True
    ]
    assert found.passes.names() == []


def test_a_hook_that_fails_is_one_line(plugin: Write) -> None:
    found = Registry([plugin("fails", PASSES.format(names="1 / 0"))])
    assert "register_passes() failed: ZeroDivisionError" in found.problems[0]


def test_one_name_has_one_owner(plugin: Write) -> None:
    source = PASSES.format(names={"prune": "a:B", "one": "first:One"})
    first = plugin("first", source + "class One:\n    name = call = 1\n")
    found = Registry([first, plugin("second", PASSES.format(names={"prune": "c:D"}))])
    line = "pass 'prune' is claimed by edgewise-first and edgewise-second; uninstall one of them to use it"
    assert found.problems == [line]
    with pytest.raises(PluginError, match=line):
        found.passes.get("prune")
    assert isinstance(found.passes.get("one"), type)


def test_two_entry_points_of_one_name_are_both_loaded(plugin: Write) -> None:
    first = plugin("first", PASSES.format(names={"one": "a:B"}), point="plugin")
    second = plugin("second", PASSES.format(names={"two": "a:B"}), point="plugin")
    found = Registry([first, second])
    assert found.passes.names() == ["one", "two"]
    assert [found.passes.owner(name) for name in ("one", "two")] == ["edgewise-first", "edgewise-second"]


def test_a_missing_optional_dependency_names_its_extra(plugin: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    source = PASSES.format(names={"needy": "needy_pass:Needy"})
    plugin("needy_pass", "import onnx_ir\nclass Needy:\n    '''Needs onnx_ir.'''\n")
    found = Registry([plugin("needy", source)])
    assert found.passes.describe("needy") == "Needs onnx_ir."
    with pytest.raises(
        MissingExtra, match=r"onnx_ir is not installed; install it with: pip install 'edgewise\[build\]'"
    ):
        found.passes.get("needy")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Thing = 3", "TypeError: expected a class, got 3"),
        ("class Thing: name = 'thing'", "TypeError: the class has no 'call'"),
        ("raise ValueError('at import')", "ValueError: at import"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("", "has no attribute 'Thing'"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error_when_it_is_used(plugin: Write, body: str, reason: str) -> None:
    plugin("thing_module", body)
    found = Registry([plugin("thing", PASSES.format(names={"thing": "thing_module:Thing"}))])
    assert found.problems == []
    with pytest.raises(
        PluginError, match=r"pass 'thing' of edgewise-thing did not load from thing_module:Thing: "
    ) as caught:
        found.passes.get("thing")
    assert reason in str(caught.value)


def board(folder: Path, name: str, *lines: str) -> dict[str, str]:
    """A profile in an import package, and what registers it."""
    package = folder / f"boards_{folder.name}"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    text = [f'name = "{name}"', 'description = "a board"', *lines, '[[providers]]\nname = "CPUExecutionProvider"']
    (package / f"{name}.toml").write_text("\n".join(text), "utf-8")
    return {name: f"{package.name}:{name}.toml"}


def test_an_alias_that_two_targets_have_names_both_when_it_is_used(plugin: Write, tmp_path: Path) -> None:
    points = [
        plugin(name, TARGETS.format(names=board(tmp_path, f"{name}-board", 'aliases = ["pi"]')))
        for name in ("first", "second")
    ]
    found = Registry(points)
    assert found.get_target("first-board").aliases == ("pi",)
    with pytest.raises(
        PluginError, match=r"'pi' is an alias of .*'first-board' of edgewise-first and 'second-board' of"
    ):
        found.get_target("pi")


def test_a_target_goes_on_from_one_of_another_package_and_a_base_is_not_built_for(
    plugin: Write, tmp_path: Path
) -> None:
    below = board(tmp_path, "below", "base = true", "context = 7")
    above = board(tmp_path, "above", 'extends = "below"')
    found = Registry(
        [plugin("below_hooks", TARGETS.format(names=below)), plugin("above_hooks", TARGETS.format(names=above))]
    )
    assert found.devices() == ["above"]
    assert (found.get_target("above").context, found.find_target("below").base) == (7, True)
    with pytest.raises(OptionError, match="target 'below' is there for others to extend; build for one of them: above"):
        found.get_target("below")


def test_a_target_that_calls_itself_something_else_is_refused(plugin: Write, tmp_path: Path) -> None:
    (reference,) = board(tmp_path, "honest").values()
    found = Registry([plugin("sly", TARGETS.format(names={"other": reference}))])
    with pytest.raises(PluginError, match="target 'other' of edgewise-sly calls itself 'honest'"):
        found.get_target("other")


def test_a_profile_of_another_package_that_is_wrong_stands_in_no_other_s_way(plugin: Write, tmp_path: Path) -> None:
    names = (
        board(tmp_path, "good")
        | board(tmp_path, "bad", "contxt = 3")
        | {"absent": f"boards_{tmp_path.name}:absent.toml"}
    )
    found = Registry([plugin("mixed", TARGETS.format(names=names))])
    assert found.get_target("good").name == "good"
    with pytest.raises(TargetError, match=r"target profile boards_\w+:bad.toml: no option is named 'contxt'"):
        found.get_target("bad")
    with pytest.raises(
        PluginError, match=r"target 'absent' of edgewise-mixed did not load from boards_\w+:absent.toml"
    ):
        found.get_target("absent")
    assert found.devices() == ["good"]

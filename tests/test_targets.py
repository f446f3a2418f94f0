"""tests: targets: the installed profiles are sound, and a profile that is not is one line that says where."""

from pathlib import Path

import onnxruntime as ort
import pytest

from edgewise.errors import TargetError
from edgewise.profile import Profiles, load_target, read_target
from edgewise.registry import registry
from edgewise.steps import resolve
from edgewise.target import Number

NONE: Profiles = dict[str, dict[str, str]]().__getitem__
TARGETS = registry().targets.names()

PROVIDER = """[[providers]]
name = "CPUExecutionProvider"
options = { arena = "off" }"""

BOARD = f"""
name = "board"
description = "a board with one gigabyte"
context = 1024

{PROVIDER}

[hardware.memory]
value = 1e9
source = "its data sheet"
kind = "published"

[[recipe]]
pass = "quantize"
bits = 8

[[calibrated]]
pass = "accuracy-level"

[[lowering]]
pass = "lower-ort"

[session]
"session.intra_op.allow_spinning" = "0"
"""


@pytest.mark.parametrize("name", TARGETS)
def test_every_step_of_an_installed_target_is_a_pass_with_options_it_knows(name: str) -> None:
    target = registry().targets.get(name)
    assert resolve(target.recipe, where=name)
    assert resolve(target.lowering, where=name)
    resolve(target.calibrated, where=name)


@pytest.mark.parametrize("name", TARGETS)
def test_every_provider_of_an_installed_target_is_one_of_onnx_runtime(name: str) -> None:
    providers = registry().targets.get(name).providers
    assert providers
    assert {provider.name for provider in providers} <= set(ort.get_all_providers())


def test_a_profile_says_everything_that_a_target_is() -> None:
    target = read_target(BOARD, where="board.toml", profiles=NONE)
    assert (target.name, target.context, target.providers[0].options) == ("board", 1024, {"arena": "off"})
    assert target.hardware.memory == Number(1e9, "its data sheet", "published")
    assert [step.record() for step in target.recipe] == [{"pass": "quantize", "bits": 8}]
    assert [step.name for step in target.calibrated] == ["accuracy-level"]
    assert [step.name for step in target.lowering] == ["lower-ort"]
    assert target.session == {"session.intra_op.allow_spinning": "0"}


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ('name = "board"', "", "board.toml: name must be given"),
        ("context = 1024", 'context = "long"', "board.toml: context: expected a whole number, got 'long'"),
        ("context = 1024", "context = 0", "board.toml: context: 0 is not 1 or more"),
        (PROVIDER, "providers = []", "board.toml: providers: none is given"),
        ("context = 1024", "contxt = 1024", "board.toml: no option is named 'contxt'; did you mean 'context'"),
        ('kind = "published"', 'kind = "guessed"', "hardware: memory: kind: 'guessed' is not one of measured"),
        ('source = "its data sheet"', "", "board.toml: hardware: memory: source must be given"),
        ('pass = "quantize"', "", "board.toml: recipe: step 1 must name its pass"),
        ("[session]", "[session", "board.toml: .*line"),
    ],
)
def test_a_profile_that_is_wrong_is_one_line_that_says_where(line: str, instead: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        read_target(BOARD.replace(line, instead), where="board.toml", profiles=NONE)
    assert "\n" not in str(caught.value)


def test_a_profile_of_the_user_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    with pytest.raises(TargetError, match=r"target profile .*board.toml: .*No such file"):
        load_target(path, profiles=NONE)
    path.write_text(BOARD, "utf-8")
    assert load_target(path, profiles=NONE).name == "board"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(TargetError, match=r"target profile .*board.toml: .*utf-8"):
        load_target(path, profiles=NONE)


def test_steps_that_are_no_list_are_refused() -> None:
    profile = 'name = "board"\ndescription = ""\nproviders = []\nrecipe = 3\n'
    with pytest.raises(TargetError, match=r"board.toml: recipe: expected a list of tables, each with its pass, got 3"):
        read_target(profile, where="board.toml", profiles=NONE)

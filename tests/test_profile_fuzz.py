"""tests: whatever a profile holds, it reads, or is one line that names a file."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import BOARD, refused
from edgewise.errors import TargetError
from edgewise.profile import read_target
from edgewise.registry import registry
from edgewise.target import Hardware, Needs, Number, Numerics, Target

KEYS = sorted({field.name for kind in (Target, Hardware, Needs, Numerics, Number) for field in fields(kind)})
LEAVES = st.one_of(
    st.none().map(lambda _: {"value": 1.5, "source": "s", "kind": "measured"}),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["int4", "MatMul", "linux", "published", "cpu-x64", "qnn", "CPUExecutionProvider"]),
)
TABLES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=12,
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan").replace("\x7f", "\\u007f")


def held_to(text: str) -> None:
    """It reads, or is one line that names a file."""
    try:
        said = read_target(text, where="mine.toml", profiles=registry()._profile).name
    except TargetError as error:
        said = str(error)
    assert "\n" not in said
    assert said.startswith(("board", "mine.toml: ", "target profile edgewise_targets:"))


@given(st.dictionaries(st.sampled_from(KEYS), TABLES, max_size=6))
def test_whatever_a_profile_holds_it_reads_or_is_one_line(tables: dict[str, Any]) -> None:
    lines = {"name": "board", "description": "a board", "providers": [{"name": "CPUExecutionProvider"}]} | tables
    held_to("\n".join(f"{key} = {toml(value)}" for key, value in lines.items()))


@given(st.integers(0, len(BOARD)), st.integers(0, 40), st.text(max_size=6))
def test_a_damaged_profile_reads_or_is_one_line(start: int, length: int, instead: str) -> None:
    held_to(BOARD[:start] + instead + BOARD[start + length :])


@given(st.text(max_size=60))
def test_a_text_that_is_no_profile_is_one_line(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize("text", ["a = 1" + "0" * 5000, "a = " + "[" * 5000, "a = 1\n" * 2, "\ufeffname = 1"])
def test_what_the_reader_of_toml_cannot_take_is_one_line(text: str) -> None:
    assert refused(text).startswith("mine.toml: ")

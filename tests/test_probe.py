"""tests: probe: a short real one; what it writes is a target that plans are made with."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.cli.main import execute
from edgewise.errors import OptionError
from edgewise.plan import plan_build
from edgewise.probe import graphs
from edgewise.probe.kernels import KINDS, MANY, further
from edgewise.probe.machine import Probe, counts, name_of, probe
from edgewise.probe.timing import opened
from edgewise.probe.toml import lines
from edgewise.quantized import Format, unpack
from edgewise.registry import registry

FEW = {name: replace(kind, matrices=2) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def short() -> Probe:
    """This machine, measured in a few seconds and not well."""
    return probe(threads=1, kinds=FEW, budget=0.0)


@pytest.fixture(scope="module")
def profile(short: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "mine.toml"
    path.write_text(short.profile("mine"), "utf-8")
    return path


def test_what_is_measured_comes_back_from_the_profile(short: Probe, profile: Path) -> None:
    target = registry().get_target(str(profile))
    assert (target.name, target.extends) == ("mine", short.extends)
    hardware = target.hardware
    assert set(hardware.kernels) == {*KINDS, "attention"}
    for name, rate in short.kernels.items():
        kernel = hardware.kernels[name]
        assert kernel.decode.value == pytest.approx(rate.decode, rel=1e-3)
        assert kernel.prefill.value == pytest.approx(rate.prefill, rel=1e-3)
        assert (kernel.decode.kind, kernel.decode.source) == ("measured", short.source)
    assert hardware.memory
    assert hardware.memory.value == pytest.approx(short.memory, rel=1e-3)
    assert hardware.bandwidth
    assert hardware.bandwidth.value >= 0.999 * max(short.bandwidths.values())
    assert target.recipe == registry().get_target(short.extends).recipe


def test_the_source_names_tool_day_processor_and_threads(short: Probe) -> None:
    assert short.source == f"edgewise probe, {short.day.isoformat()}, {short.host.processor}, 1 thread"


@given(st.floats(1e-12, 1), st.floats(1e-3, 1))
def test_the_first_token_and_those_after_it_add_up_to_what_many_were_measured_to_take(
    first: float, share: float
) -> None:
    whole = first + (MANY - 1) * first * share  # seconds of all, at an operation a token
    rate = further(1 / first, MANY / whole)
    assert first + (MANY - 1) / rate == pytest.approx(whole)


def test_a_plan_with_the_profile_foretells_speed(profile: Path, pycoder: Path) -> None:
    plan = plan_build(pycoder, target=registry().get_target(str(profile)))
    assert plan.speed
    assert plan.speed.decode_tokens_per_s > 0
    assert plan.memory == registry().get_target(str(profile)).hardware.memory


def test_bandwidth_is_measured_with_one_thread_twice_as_many_and_so_on_up_to_all() -> None:
    assert [list(counts(threads)) for threads in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    few = {"int4 block 32": FEW["int4 block 32"]}
    probe(threads=1, kinds=few, budget=0.0, progress=lambda *each: told.append(each))
    assert told == [("probe", done, 4) for done in range(4)]


def test_the_measured_product_is_the_one_that_is_counted() -> None:
    """Two products in blocks, against numpy: so many operations were really done."""
    form = Format(4, 32, True)
    session = opened(graphs.products(2, graphs.blocks(form)), threads=1)
    x = np.random.default_rng(0).standard_normal((3, graphs.HIDDEN), np.float32)
    (found,) = session.run(None, {"x": x})
    chain = graphs.Chain()
    chain.input("x", ("tokens", graphs.HIDDEN))
    value = chain.inputs[0]
    for rows, columns in ((graphs.INNER, graphs.HIDDEN), (graphs.HIDDEN, graphs.INNER)):
        value = graphs.blocks(form)(chain, value, rows, columns)
    expected = x
    for codes, scales in zip(chain.constants[::2], chain.constants[1::2], strict=True):
        packed, scale = (each.const_value.numpy() for each in (codes, scales) if each.const_value)
        weights = (unpack(packed, 4).astype(np.float32) - 8) * scale[..., None]
        expected = expected @ weights.reshape(len(packed), -1).T
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()  # activations in 8 bits


@pytest.mark.parametrize("name", KINDS)
def test_no_chain_of_products_overflows_or_vanishes(name: str) -> None:
    session = opened(graphs.products(8, KINDS[name].product), threads=1)
    x = np.random.default_rng(0).standard_normal((4, graphs.HIDDEN), np.float32)
    (y,) = session.run(None, {"x": x})
    assert 1e-6 < np.abs(y).mean() < 1e6  # nothing that would make arithmetic slow


@pytest.mark.parametrize(
    ("path", "name"), [("mine.toml", "mine"), ("My Board!.toml", "my-board"), ("ä.toml", "this-machine")]
)
def test_a_profile_is_named_by_its_file(path: str, name: str) -> None:
    assert name_of(Path(path)) == name


def test_a_file_that_is_no_profile_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["probe", "-o", "mine.txt"]) == 1
    assert capsys.readouterr().err == "error: mine.txt: a profile is a file that ends in .toml\n"


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["probe", "-o", "nowhere/mine.toml"]) == 1
    assert capsys.readouterr().err == "error: nowhere/mine.toml: there is no folder nowhere\n"


def test_no_threads_are_refused() -> None:
    with pytest.raises(OptionError, match="threads is 0; it must be 1 or more"):
        probe(threads=0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False), st.lists(TEXT))


@given(st.recursive(st.dictionaries(TEXT, VALUES), lambda inner: st.dictionaries(TEXT, inner | VALUES), max_leaves=10))
def test_what_is_written_as_toml_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads("\n".join(lines(table))) == table

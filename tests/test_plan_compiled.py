"""tests: plans of bundles that are compiled ahead of time: what the compiler writes, and what it takes itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.planner.weights import Weights
from edgewise.planner.work import Product, Table, Work
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.target import Compile
from emulated import chip

# The demo: 6 layers, hidden size 256, MLP 768, 4 + 2 heads of 64, a vocabulary of 4,096, which is looked up and scored.
ATTENTION, MLP, TABLE = 6 * 256 * (2 * 256 + 2 * 128), 6 * 3 * 256 * 768, 4096 * 256
FLOATS = Recipe(())


def test_the_parts_of_a_binary_are_those_computed_by_hand(pycoder: Path) -> None:
    """A code of 4 bits and a scale of 16 for each 32 of them; what is looked up in 16 bits."""
    parts = plan_build(pycoder, target="qnn-x-elite", context=128).parts
    coded = {"attention": ATTENTION, "mlp": MLP, "lm_head": TABLE}
    for name, parameters in coded.items():
        assert parts[name].after == parameters // 2 + 2 * parameters // 32
    assert parts["embedding"].after == 2 * TABLE


def test_a_tied_table_in_floats_is_there_to_be_looked_up_and_to_be_multiplied_with(pycoder: Path) -> None:
    plan = plan_build(pycoder, target="qnn-x-elite", context=128, recipe=FLOATS)
    assert plan.total.after == pytest.approx(2 * (ATTENTION + MLP + 2 * TABLE), rel=0.01)  # norms, rotary tables


def test_what_runs_is_as_large_as_what_is_compiled() -> None:
    product = Product("mlp.up", 64, 32, Weights("int4", block=32))
    table = Table(100, 32, Weights("float32"), tied=True)
    work = Work((product,), (), (table,), 0, 0, 0, 0, constants=40, positions=1).halved()
    assert work.stored == 64 * (16 + 2) + 100 * 32 * 2 + 20


def test_the_compiler_takes_what_the_profile_says(pycoder: Path) -> None:
    target = registry().get_target("qnn-x-elite")
    assert target.compile
    assert target.compile.memory
    assert target.compile.runtime
    plan = plan_build(pycoder, target=target)
    expected = target.compile.memory.value * plan.total.parameters + target.compile.runtime.value
    assert plan.build_memory == pytest.approx(expected)
    unknown = replace(target, compile=Compile())
    assert plan_build(pycoder, target=unknown).build_memory < plan.build_memory


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", [None, pytest.param(FLOATS, marks=pytest.mark.slow)])
def test_the_download_is_the_bundle_that_the_compiler_writes(
    apart: bool, recipe: Recipe | None, pycoder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: pip install 'edgewise[qnn]'")
    target = chip("qnn-x-elite") if apart else registry().get_target("qnn-x-elite")
    plan = plan_build(pycoder, target=target, context=128, recipe=recipe)
    output = tmp_path / "model.edge"
    bundle = build(pycoder, target=target, output=output, context=128, recipe=recipe, load_check=False)
    written = sum(file.bytes for file in bundle.manifest.files.values())
    assert plan.download == pytest.approx(written, rel=0.1)

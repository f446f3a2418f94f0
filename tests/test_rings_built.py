"""tests: bundles whose layers with a window have rings: what they say of it, to whom, and that a Snapdragon's run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fixed
import parity
import tiny
from edgewise.bundle.manifest import FORMAT, Manifest
from edgewise.bundle.read import Bundle
from edgewise.cli.inspect import inspect
from edgewise.cli.plan import text
from edgewise.errors import BundleError
from edgewise.graph import get_facts, set_facts
from edgewise.lint import lint
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.planner.work import Heads
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.target import Lengths
from edgewise_targets.static.lower import LowerStatic
from emulated import FLOAT16, chip, scores

CONTEXT, SLOTS = 256, 192  # a window of 8, a piece of a prompt of 128, in whole steps of 64
TOKENS = np.random.default_rng(8).integers(3, tiny.VOCABULARY, CONTEXT)
TARGET = replace(fixed.FIXED, context=CONTEXT)
FLOATS = Recipe(())
SAID = {
    family: f"{layers} of 4 layers look back 8 tokens and, as lengths are fixed, keep the last {SLOTS} in a ring: the "
    f"cache of {CONTEXT} tokens takes {share} of what it would"
    for family, layers, share in (("gemma3", 3, "81%"), ("mistral", 4, "75%"))
}


@pytest.fixture(scope="module", params=SAID)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(family: str, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("rings") / "model.edge"
    return build(parity.oracle(family, home).checkpoint, target=TARGET, output=output, recipe=FLOATS, load_check=False)


def whole(family: str, home: Path, folder: Path, prompt: int, count: int) -> parity.Logits:
    """The scores of a cache that keeps everything, after a prompt and after each of so many tokens behind it."""
    model = fixed.model("ort", parity.export(family, home), folder, context=CONTEXT)
    return Session(model, capacity=CONTEXT).prefill(TOKENS[: prompt + count].tolist(), scores=count + 1)


def test_a_bundle_scores_far_behind_its_rings_what_a_whole_cache_scores(
    family: str, bundle: Bundle, home: Path, tmp_path: Path
) -> None:
    model = Model.load(bundle.path, bundle.manifest)
    assert model.capacity == model.context == CONTEXT
    assert model.rings.sizes == {(8, SLOTS)}
    session = Session(model, capacity=8)
    found = [session.prefill(TOKENS[:240].tolist())[-1].copy()]
    found += [session.decode(int(token))[-1].copy() for token in TOKENS[240:256]]
    np.testing.assert_allclose(np.stack(found), whole(family, home, tmp_path, 240, 16), rtol=0, atol=1e-4)


def test_graphs_of_decomposed_attention_have_rings_too(home: Path, tmp_path: Path) -> None:
    target, checkpoint = replace(TARGET, lowering=(fixed.PRIMITIVE,)), parity.oracle("gemma3", home).checkpoint
    made = build(checkpoint, target=target, output=tmp_path / "m.edge", recipe=FLOATS, load_check=False)
    assert {a.ring for a in made.manifest.language_model.attention if a.window} == {SLOTS}
    found = scores(made, TOKENS[:243], 240)
    np.testing.assert_allclose(found, whole("gemma3", home, tmp_path, 240, 3), rtol=0, atol=1e-4)


def test_manifest_card_and_inspect_say_what_is_kept(family: str, bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert {a.ring for a in manifest.language_model.attention if a.window} == {SLOTS}
    assert manifest.card["cache_bytes"] == manifest.language_model.cache_bytes(CONTEXT)
    assert manifest.card["remarks"] == [SAID[family]]
    assert f"- {SAID[family]}" in (bundle.path / "README.md").read_text()
    assert SAID[family] in CliRunner().invoke(inspect, [str(bundle.path)]).output


def test_a_plan_counts_what_is_kept_and_says_so(family: str, home: Path) -> None:
    checkpoint = parity.oracle(family, home).checkpoint
    plan = plan_build(checkpoint, target=TARGET, recipe=FLOATS)
    dynamic = plan_build(checkpoint, target=replace(fixed.FREE, context=CONTEXT), recipe=FLOATS)
    assert f"takes {plan.cache / dynamic.cache:.0%} of" in SAID[family]
    assert f"\nnote      {SAID[family]}\n" in text(plan)


def test_a_shorter_context_makes_only_what_grows_with_it_smaller() -> None:
    kept, ring = Heads(4, 2, 32), Heads(4, 2, 32, window=8, ring=SLOTS)
    assert [heads.bytes(heads.kept(SLOTS)) for heads in (kept, ring)] == [2 * 2 * 32 * 4 * SLOTS] * 2
    assert ring.kept(10 * SLOTS) == SLOTS
    assert ring.operations(128, 4096) == 4 * 4 * 32 * 128 * (SLOTS + 128)  # what the mask hides is computed, too
    assert kept.operations(128, 4096) == 4 * 4 * 32 * 128 * (4096 + 128)


def test_an_edgewise_that_knows_no_rings_is_told_to_be_upgraded(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.format == FORMAT == 2
    with pytest.raises(BundleError, match=r"it states format 1, and text-generation with rings takes 2$"):
        Manifest.read(replace(manifest, format=1).write(), where="manifest.json")


def test_a_bundle_without_rings_stays_what_it_was(home: Path, tmp_path: Path) -> None:
    checkpoint = parity.oracle("mistral", home).checkpoint
    target = replace(TARGET, context=SLOTS)
    made = build(checkpoint, target=target, output=tmp_path / "m.edge", recipe=FLOATS, load_check=False)
    assert made.manifest.format == 1
    assert "ring" not in json.dumps(made.manifest.write())
    assert "remarks" not in made.manifest.card


def test_a_linter_says_where_a_ring_would_be_enough(home: Path) -> None:
    target, model = registry().get_target("qnn-x-elite"), parity.export("gemma3", home)
    model.meta["edgewise"] = BuildContext(context=CONTEXT, width=1)
    LowerStatic()(model)
    (found,) = (finding for finding in lint(model, target) if finding.rule == "rings")
    assert len(found.places) == 2 * 3
    assert "it keeps 256 positions of a layer that looks back 8: a ring of 192 is enough; build it for" in str(found)
    ringed = parity.export("gemma3", home)
    ringed.meta["edgewise"] = BuildContext(context=CONTEXT, width=1, margin=128)
    LowerStatic()(ringed)
    assert not [finding for finding in lint(ringed, target) if finding.rule == "rings"]


def test_a_graph_that_states_more_layers_than_it_has_is_linted_all_the_same(home: Path) -> None:
    target, model = registry().get_target("qnn-x-elite"), parity.export("gemma3", home)
    model.meta["edgewise"] = BuildContext(context=CONTEXT, width=1)
    LowerStatic()(model)
    facts = get_facts(model)
    set_facts(model, replace(facts, attention=facts.attention[:1]))
    (found,) = (finding for finding in lint(model, target) if finding.rule == "rings")
    assert len(found.places) == 2


@pytest.mark.parametrize(
    ("family", "prefill", "slots"),
    [
        ("gemma3", 32, 64),
        pytest.param("gemma3", 128, SLOTS, marks=pytest.mark.slow),
        pytest.param("mistral", 128, SLOTS, marks=pytest.mark.slow),
    ],
)
def test_a_snapdragon_scores_behind_its_rings_what_a_whole_cache_scores(
    family: str, prefill: int, slots: int, home: Path, tmp_path: Path
) -> None:
    """In the emulator: a prompt that fills the ring more than once, then tokens one by one."""
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: pip install 'edgewise[qnn]'")
    checkpoint, device, prompt = parity.oracle(family, home).checkpoint, chip("qnn-x-elite"), slots + 40
    target = replace(device, needs=replace(device.needs, static=Lengths(prefill)), context=slots + 64)
    made = build(checkpoint, target=target, output=tmp_path / "qnn.edge", recipe=FLOATS, load_check=False)
    assert {a.ring for a in made.manifest.language_model.attention if a.window} == {slots}
    found = scores(made, TOKENS[: prompt + 3], prompt)
    wanted = whole(family, home, tmp_path, prompt, 3)
    assert np.abs(found - wanted).max() <= FLOAT16 * np.abs(wanted).max()

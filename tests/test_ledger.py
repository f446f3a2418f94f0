"""tests: ledger: what bundles are said to take against tables computed by hand, and what is said of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.cli.main import execute
from edgewise.errors import BundleError, GraphError, OptionError
from edgewise.ledger.compare import Ledger, compare
from edgewise.ledger.counted import counted
from edgewise.ledger.here import not_here
from edgewise.ledger.variant import Pace, Variant, variant
from edgewise.ledger.verdict import changed, verdict
from edgewise.pipeline import build
from edgewise.planner.outlook import Outlook
from edgewise.prepare import prepare
from edgewise.quality.evaluate import evaluate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry

FLOATS = Recipe()
INT4 = Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": True}),))

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def floats(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(pycoder, output=tmp_path_factory.mktemp("ledger") / "floats", recipe=FLOATS)


@pytest.fixture
def heldout(pycoder: Path) -> CalibrationText:
    return CalibrationText(pycoder / "heldout.txt", 128, 32)


def made(family: str, recipe: Recipe, folder: Path, **config: Any) -> Bundle:
    """A bundle of a tiny random checkpoint."""
    source = tiny.checkpoint(family, folder / family, **config)
    return build(source, output=folder / f"{family}.edge", recipe=recipe, load_check=False)


# A llama: hidden 64, 4 layers, 4 query heads and 2 key-value heads of 32, MLP 96, vocabulary 160, its own lm_head.
#   a layer: q and o 64 x 128, k and v 64 x 64, gate, up and down 64 x 96: 16,384 + 8,192 + 18,432 = 43,008 weights
#   four of them 172,032; lm_head 160 x 64 = 10,240, and as much the embedding, of which a token reads a row of 64
#   keys and values of a token: 4 layers x 2 x 2 heads x 32 = 512 numbers
#   attention over 256 positions: 4 layers x 4 x 4 heads x 32 x 256 = 524,288 operations
def test_a_dense_model_takes_what_was_computed_by_hand(tmp_path: Path) -> None:
    bundle = made("llama", FLOATS, tmp_path)
    found = variant(bundle, registry().get_target("cpu-x64"), 256)
    assert found.parameters == 172_032 + 2 * 10_240
    assert found.active_parameters == 182_272
    assert found.active == 4 * (182_272 + 64 + 512 * 256)
    assert found.operations == 2 * 182_272 + 524_288
    assert (found.experts, found.active_experts, found.bits) == (0, 0, 32)


# A mixtral: the same, with 5 experts of 3 x 64 x 64 = 12,288 weights in place of the MLP, of which a token uses 2, and
# a router of 5 x 64; heads of 16: q and o 64 x 64, k and v 64 x 32: 12,288 weights of attention
#   a layer: 12,288 + 320 + 5 x 12,288 = 74,048, of which 12,288 + 320 + 2 x 12,288 = 37,184 are active
# In int4, blocks of 32 with float32 scales, 32 weights take 20 bytes: but the router, which stays as it is
@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "int4"])
def test_of_a_mixture_a_token_reads_the_experts_that_it_is_given_to(quantized: bool, tmp_path: Path) -> None:
    bundle = made("mixtral", INT4 if quantized else FLOATS, tmp_path)
    found = variant(bundle, registry().get_target("cpu-x64"), 64)
    assert found.parameters == 4 * 74_048 + 2 * 10_240
    assert found.active_parameters == 4 * 37_184 + 10_240
    assert (found.experts, found.active_experts) == (5, 2)
    cache = 4 * 4 * 2 * 2 * 16 * 64
    if quantized:
        assert found.active == (4 * (37_184 - 320) + 10_240) * 20 // 32 + 4 * 4 * 320 + 40 + cache
    else:
        assert found.active == 4 * (4 * 37_184 + 10_240 + 64) + cache
    assert found.operations == 2 * found.active_parameters + 4 * 4 * 4 * 16 * 64


def test_experts_that_are_skipped_are_not_read(tmp_path: Path) -> None:
    bundle = made("mixtral", FLOATS, tmp_path)
    target = registry().get_target("cpu-x64")
    work = counted(bundle, target).work
    products = tuple(replace(p, active=1.5) if p.role == "expert" else p for p in work.products)
    assert work.active(0) - replace(work, products=products).active(0) == 4 * 4 * 12_288 // 2


@pytest.mark.parametrize("prefill", [None, "int8"])
def test_a_bundle_is_counted_as_its_plan_was(prefill: object, pycoder: Path, tmp_path: Path) -> None:
    target = registry().get_target("cpu-x64")
    bundle = build(pycoder, output=tmp_path / "b", recipe=INT4, prefill=prefill, load_check=False)  # type: ignore[arg-type]
    plan = Outlook.of(
        prepare(pycoder, target=target, recipe=INT4, context=None, ignore_config=(), prefill=prefill)  # type: ignore[arg-type]
    )
    found = counted(bundle, target)
    assert (found.work, found.prompts) == (plan.work, plan.prompts)
    assert found.beside == pytest.approx(plan.beside, rel=0.01)  # constants of less than 1 KiB are in both graphs
    context = bundle.manifest.context
    assert found.memory(found.work, context) == plan.memory(plan.work, context)


def test_bundles_are_compared(
    pycoder: Path, floats: Bundle, pycoder_bundle: Bundle, heldout: CalibrationText, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("It was the best of times, it was the worst of times. " * 40)
    found = compare(
        [floats.path, pycoder_bundle.path],
        text=heldout,
        out_of_domain=replace(heldout, path=other),
        memory=100_000_000,
        runs=0,
    )
    one, two = found.variants
    assert two.inside == evaluate(pycoder_bundle.path, heldout, against=floats.path)
    assert two.outside
    assert one.inside
    assert one.inside.distance is None
    assert two.weights < one.weights / 5
    assert two.active_parameters == one.active_parameters
    assert [found.fits(each) for each in found.variants] == [False, True]
    assert found.reference is one
    said = list(verdict(found))
    assert said[0].startswith(f"{pycoder_bundle.path}: fewer bits, 4.3 a weight, not 32.0; fits, with ")
    assert "nats a token from the reference outside of it" in said[0]
    assert said[-1].startswith("of those that fit, ")
    assert found.notes == (
        "speed is not predicted: the profile of cpu-x64 has no figures of it; `edgewise probe` measures the machine it "
        "runs on",
    )


def test_speed_is_measured_where_the_target_is_and_predicted_where_it_is_known(
    pycoder_bundle: Bundle, heldout: CalibrationText
) -> None:
    if not_here(registry().get_target("cpu-x64")):
        pytest.skip("this machine is no x86-64")
    here = compare([pycoder_bundle.path], text=heldout, runs=1)
    assert here.variants[0].measured
    there = compare([pycoder_bundle.path], text=heldout, runs=1, target="raspberry-pi-5")
    (one,) = there.variants
    assert one.measured is None
    assert one.predicted
    assert one.predicted.prefill > one.predicted.decode > 0
    assert there.budget == int(8.59e9 * 0.85)
    assert any(note.startswith("speed is not measured: this machine ") for note in there.notes)


def test_another_vocabulary_is_said_and_only_its_divergence_is_missing(
    pycoder_bundle: Bundle, heldout: CalibrationText, tmp_path: Path
) -> None:
    other = made("llama", FLOATS, tmp_path, vocab_size=4097)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "llama" / name).write_bytes((pycoder_bundle.path / name).read_bytes())
    other = build(tmp_path / "llama", output=other.path, recipe=FLOATS, load_check=False, force=True)
    found = compare([pycoder_bundle.path, other.path], text=heldout, runs=0)
    assert found.variants[1].inside
    assert found.variants[1].inside.distance is None
    assert f"no divergence of {other.path}: the model has a vocabulary of 4,097 tokens" in found.notes[-1]


def test_what_cannot_be_compared_is_refused(pycoder_bundle: Bundle, heldout: CalibrationText, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle at"):
        compare([pycoder_bundle.path, tmp_path / "nothing"], text=heldout)
    with pytest.raises(OptionError, match=r"context: 100000 is not from 1 to \d+, which all bundles hold"):
        compare([pycoder_bundle.path], text=heldout, context=100_000)
    with pytest.raises(OptionError, match="memory is 0; it must be 1 byte or more"):
        compare([pycoder_bundle.path], text=heldout, memory=0)
    with pytest.raises(OptionError, match=r"text .* does not exist"):
        compare([pycoder_bundle.path], text=replace(heldout, path=tmp_path / "none.txt"), runs=0)
    card = {**pycoder_bundle.manifest.card, "compiled": {}}
    compiled = Bundle(pycoder_bundle.path, replace(pycoder_bundle.manifest, card=card))
    with pytest.raises(GraphError, match="its graphs are compiled for cpu-x64, and cannot be counted any more"):
        counted(compiled, registry().get_target("cpu-x64"))


def line(name: str, **figures: object) -> Variant:
    """A variant, of which some figures are others."""
    plain = Variant(name, 1000, 1000, 0, 0, 32.0, 4000, 5_000_000, 4100, 2000, Pace(100, 10))
    return replace(plain, **figures)  # type: ignore[arg-type]


MIXTURE = {"experts": 8.0, "active_experts": 2.0}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, "as many weights, as many of them active, in as many bits"),
        ({}, {"parameters": 750}, "weights removed, 25% of them"),
        ({}, {"bits": 4.3}, "fewer bits, 4.3 a weight, not 32.0"),
        (MIXTURE, MIXTURE | {"parameters": 800, "experts": 6.0}, "weights removed, 20% of them"),
        (
            MIXTURE,
            MIXTURE | {"active_experts": 1.4},
            "fewer active weights, all resident: a token uses 1.4 of 8 experts, not 2 of 8 experts",
        ),
        (
            {},
            MIXTURE | {"parameters": 1010},
            "1% more weights, fewer active weights, all resident: a token uses 2 of 8 experts",
        ),
    ],
)
def test_removed_weights_are_told_from_fewer_active_ones(
    before: dict[str, object], after: dict[str, object], said: str
) -> None:
    assert changed(line("after", **after), line("before", **before)) == said


def test_of_those_that_fit_the_fastest_and_the_smallest_are_named() -> None:
    large, small = line("large", predicted=Pace(300, 30), memory=9_000_000), line("small", memory=2_000_000)
    ledger = Ledger("phone", 512, 6_000_000, "plain", (line("plain"), large, small), ())
    assert list(verdict(ledger)) == [
        "large: as many weights, as many of them active, in as many bits; does NOT fit: 3.0 MB too much; decodes 3.00 "
        "times as fast, takes prompts in 3.00 times as fast (predicted)",
        "small: as many weights, as many of them active, in as many bits; fits, with 4.0 MB to spare; decodes 1.00 "
        "times as fast, takes prompts in 1.00 times as fast (predicted)",
        "of those that fit, plain is the fastest; small is the smallest",
    ]
    nothing = replace(ledger, budget=1_000_000)
    assert list(verdict(nothing))[-1] == "nothing fits; small takes least: 2.0 MB"


def test_the_command_line_prints_tables_and_json(
    pycoder: Path, pycoder_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(pycoder_bundle.path), "--against", str(pycoder), "--runs", "0", "--target", "pi-5"]
    arguments += ["--text", str(pycoder / "heldout.txt"), "--tokens", "128", "--length", "32"]
    assert execute(arguments) == 0
    printed = capsys.readouterr().out
    for heading in ("a token reads", "operations", "fits", "decode, predicted", "KLD", "bits per byte"):
        assert heading in printed
    assert execute([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["target"] == "raspberry-pi-5"
    assert data["fits"] == [True]
    assert data["variants"][0]["inside"]["distance"]["mean_kld"] > 0
    assert execute([*arguments, "--memory", "-1"]) == 1

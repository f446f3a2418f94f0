"""tests: checkpoint to bundle: what a build decides, says, refuses and leaves behind."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewise.bundle.read import Bundle
from edgewise.checkpoint import Checkpoint
from edgewise.errors import (
    BundleError,
    CheckpointError,
    EdgewiseError,
    OptionError,
    RecipeError,
    TargetError,
)
from edgewise.exporting import export
from edgewise.passes import BuildContext, Pass, context_of
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.steps import apply
from edgewise.target import Hardware, Number
from edgewise.tensors import Streamed

INT8 = Recipe((RecipeStep("quantize", {"bits": 8, "block_size": 32}),))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_the_same_build_gives_the_same_bytes(pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(pycoder, tmp_path / "another name")
    output = tmp_path / "deeper.edge"
    program = "import sys; from edgewise import build; build(sys.argv[1], output=sys.argv[2])"
    other_order = os.environ | {"PYTHONHASHSEED": "1234"}
    subprocess.run([sys.executable, "-c", program, str(copy), str(output)], check=True, env=other_order)
    assert contents(output) == contents(pycoder_bundle.path)


def test_no_file_of_a_bundle_says_where_it_was_made(pycoder_bundle: Bundle, pycoder: Path) -> None:
    for name, content in contents(pycoder_bundle.path).items():
        for place in (pycoder_bundle.path.parent, pycoder.parent, Path.home()):
            assert str(place).encode() not in content, name


def test_permissions_do_not_follow_the_umask(pycoder: Path, tmp_path: Path) -> None:
    with umask(0o077):
        bundle = build(pycoder, output=tmp_path / "model.edge", load_check=False)
    assert bundle.path.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in bundle.path.rglob("*") if path.is_file()} == {0o644}


def test_the_graph_is_valid_onnx_with_its_weights_beside_it(pycoder_bundle: Bundle) -> None:
    model = onnx.load(pycoder_bundle.graph(), load_external_data=False)
    places = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data[:1]}
    assert places == {"model.onnx_data"}
    assert pycoder_bundle.graph().stat().st_size < 200_000


def test_a_recipe_replaces_that_of_the_target(pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[step]]\npass = "quantize"\nbits = 8\nblock_size = 32\n')
    bundle = build(pycoder, output=tmp_path / "model.edge", recipe=path)
    assert [(step["pass"], step["bits"]) for step in bundle.manifest.recipe] == [("quantize", 8)]
    size, usual = (b.manifest.files["onnx/model.onnx_data"].bytes for b in (bundle, pycoder_bundle))
    assert 1.5 < size / usual < 2.5
    assert bundle.manifest.recipe[0]["symmetric"] is False  # defaults are recorded too


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (RecipeStep("quantise"), "recipe: no pass is named 'quantise'; did you mean 'quantize'"),
        (RecipeStep("quantize", {"bit": 4}), "recipe: step 1, quantize: no option is named 'bit'; did you mean 'bits'"),
        (RecipeStep("quantize", {"bits": "4"}), "recipe: step 1, quantize: bits: '4'"),
    ],
)
def test_a_wrong_step_is_named_and_leaves_nothing(
    step: RecipeStep, message: str, pycoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        build(pycoder, output=tmp_path / "model.edge", recipe=Recipe((step,)))
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Breaking(Pass):
    """Fails in the way of its option."""

    name: ClassVar[str] = "breaking"
    how: str = "error"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        assert context_of(model).context == 7
        if self.how == "error":
            raise EdgewiseError("that weight is odd")
        raise KeyError(self.how)


@pytest.mark.parametrize(("how", "problem"), [("error", "that weight is odd"), ("bug", "KeyError: 'bug'")])
def test_a_step_that_fails_is_named_with_its_options(how: str, problem: str) -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 23}), ir_version=10)
    with pytest.raises(RecipeError) as caught:
        apply(model, [Breaking(how=how)], BuildContext(context=7), error=RecipeError)
    assert str(caught.value) == f"step 1, breaking(how='{how}'): {problem}"


def test_each_step_says_what_it_changed(pycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edgewise.steps"):
        build(pycoder, output=tmp_path / "model.edge", load_check=False)
    steps = [record.getMessage() for record in caplog.records if record.name == "edgewise.steps"]
    assert [step.partition("(")[0] for step in steps] == ["quantize", "lower-ort"]
    assert all("bytes" in step for step in steps)


def test_the_plan_foretells_the_bytes_that_are_written(pycoder: Path, pycoder_bundle: Bundle) -> None:
    plan, files = plan_build(pycoder), pycoder_bundle.manifest.files
    written = sum(files[name].bytes for name in ("onnx/model.onnx", "onnx/model.onnx_data"))
    assert 0 <= written - plan.total.after < 100_000  # the graph itself, and what aligns the tensors
    assert sum(part.after for part in plan.parts.values()) == plan.total.after


def test_the_plan_counts_what_the_checkpoint_holds(pycoder: Path) -> None:
    tensors = Checkpoint.open(pycoder).tensors.values()
    whole = plan_build(pycoder).total
    assert whole.parameters == sum(tensor.size for tensor in tensors)
    assert whole.before == sum(tensor.nbytes for tensor in tensors)


def test_the_plan_reads_no_weight(pycoder: Path) -> None:
    def refuse(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a weight was read")

    source = Checkpoint.open(pycoder)
    unreadable = {name: Streamed(t.dims, t.dtype, refuse, name=name) for name, t in source.tensors.items()}
    assert plan_build(replace(source, tensors=unreadable)).total.after > 0


def test_a_model_too_large_for_its_target_is_refused_with_the_numbers(pycoder: Path, tmp_path: Path) -> None:
    small = Hardware(memory=Number(64e6, "data sheet", "published"))
    target = replace(registry().get_target("cpu-x64"), name="watch", hardware=small)
    assert plan_build(pycoder, target=target).fits is False
    with pytest.raises(TargetError, match=r"target 'watch' has 0.06 GB of memory.*0.1\d GB.*a smaller model"):
        build(pycoder, target=target, output=tmp_path / "model.edge")
    assert list(tmp_path.iterdir()) == []


def test_the_default_context_can_be_chosen_within_that_of_the_model(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, output=tmp_path / "model.edge", context=300, load_check=False)
    assert bundle.manifest.context == 300
    assert json.loads((bundle.path / "genai_config.json").read_text())["search"]["max_length"] == 300
    for context in (0, 1025):
        with pytest.raises(OptionError, match=f"context: {context} is not from 1 to 1024"):
            build(pycoder, output=tmp_path / "other.edge", context=context)


def test_a_graph_that_does_not_run_is_not_kept(pycoder: Path, tmp_path: Path) -> None:
    bare = replace(registry().get_target("cpu-x64"), lowering=())  # its graph asks for position_ids
    with pytest.raises(BundleError, match=r"was built, and does not run: .*model.edge/onnx/model.onnx: "):
        build(pycoder, target=bare, output=tmp_path / "model.edge")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_ends_its_process_is_refused_before_any_weight_is_read(pycoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pycoder, tmp_path / "hostile")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    padding = {"strategy": {"Fixed": 2**60}, "direction": "Right", "pad_to_multiple_of": None}
    tokenizer["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    stages: list[str] = []
    with pytest.raises(CheckpointError, match=r"^tokenizer.json ends the process that reads it \(SIGABRT\)"):
        build(copy, output=tmp_path / "model.edge", progress=lambda stage, done, total: stages.append(stage))
    assert stages == []
    assert list(tmp_path.iterdir()) == [copy]


def test_an_unknown_target_is_refused(pycoder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no target is named 'cpu-x46'; did you mean 'cpu-x64'"):
        build(pycoder, target="cpu-x46", output=tmp_path / "model.edge")


def test_a_configuration_key_that_is_not_known_can_be_left_out(pycoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pycoder, tmp_path / "checkpoint")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"new_trick": 2}))
    with pytest.raises(CheckpointError, match="new_trick"):
        build(copy, output=tmp_path / "model.edge")
    bundle = build(copy, output=tmp_path / "model.edge", ignore_config=["new_trick"])
    assert json.loads((bundle.path / "config.json").read_text())["new_trick"] == 2


def test_no_exporter_for_a_checkpoint_is_an_error_that_lists_what_there_is(pycoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pycoder, tmp_path / "checkpoint")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "lama"}))
    with pytest.raises(CheckpointError, match=r"'lama'.*llama.*qwen2"):
        build(copy, output=tmp_path / "model.edge")


def test_export_writes_the_canonical_graph_alone(pycoder: Path, tmp_path: Path) -> None:
    path = export(pycoder, tmp_path / "graph")
    assert sorted(file.name for file in (tmp_path / "graph").iterdir()) == ["model.onnx", "model.onnx_data"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    with pytest.raises(BundleError, match="exists"):
        export(pycoder, tmp_path / "graph")
    export(pycoder, tmp_path / "graph", exporter="decoder", force=True)


def test_a_bundle_tells_transformers_js_where_its_graph_is(pycoder_bundle: Bundle) -> None:
    config = json.loads((pycoder_bundle.path / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["transformers.js_config"] == {"dtype": "fp32", "use_external_data_format": {"model.onnx": 1}}


def test_the_card_says_what_was_built_and_how_large_it_is(pycoder_bundle: Bundle) -> None:
    card, text = pycoder_bundle.manifest.card, (pycoder_bundle.path / "README.md").read_text()
    assert card["parameters"] == 5_770_496
    assert card["bytes"]["after"] < 0.4 * card["bytes"]["before"]
    assert "# llama, 5.8 million parameters, for cpu-x64" in text
    assert "`quantize`: bits = 4, block_size = 128" in text
    assert f"edgewise {pycoder_bundle.manifest.edgewise}" in text


def test_the_card_of_a_measured_build_says_how_fast_it_is_and_where(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, output=tmp_path / "model.edge", measure=True, load_check=False)
    assert Bundle.open(bundle.path) == bundle
    speed = bundle.manifest.card["speed"]
    assert speed["decode_tokens_per_s"] > 0
    assert speed["processor"] in (bundle.path / "README.md").read_text()


def test_inputs_and_dimensions_have_the_names_that_other_runtimes_look_for(pycoder_bundle: Bundle) -> None:
    graph = onnx.load(pycoder_bundle.graph(), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
        if value.name not in weights
    }
    cache = {name: dims.pop(name) for name in list(dims) if name.startswith("past_key_values.")}
    assert dims == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
    }
    assert set(cache) == {f"past_key_values.{layer}.{part}" for layer in range(6) for part in ("key", "value")}
    assert all(shape == ["batch_size", 2, "past_sequence_length", 64] for shape in cache.values())


def test_a_build_takes_no_more_memory_than_its_plan_says(pycoder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from edgewise.pipeline import build; from edgewise.runtime.result import peak_memory\n"
        "plans = []\n"
        "build(sys.argv[1], output=sys.argv[2], load_check=False, on_plan=plans.append)\n"
        "print(peak_memory() / plans[0].build_memory)"
    )
    command = [sys.executable, "-c", program, str(pycoder), str(tmp_path / "model.edge")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.3 < float(done.stdout) < 1

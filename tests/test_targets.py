"""tests: targets: the installed profiles are sound, each of them packs the demo model, and can be shown."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from onnxruntime.capi import _pybind_state

import edgewise
from edgewise.bundle.read import verify
from edgewise.errors import OptionError, TargetError
from edgewise.names import names
from edgewise.plan import plan_build
from edgewise.registry import registry
from edgewise.steps import resolve
from edgewise.target import Target
from tiny import checkpoint

EVERY = registry().targets.names()
DEVICES = registry().devices()


def target(name: str) -> Target:
    return registry().find_target(name)


ASKED_FOR = {
    *("cpu-x64", "cpu-x64-vnni", "cpu-x64-avx2", "cpu-arm64", "raspberry-pi-5"),
    *("cuda", "h200", "l4", "rtx-4090", "jetson-orin-nano", "jetson-agx-orin", "tensorrt-rtx", "directml"),
    *("qnn-x-elite", "qnn-8-elite", "qnn-8-gen3", "openvino-cpu", "openvino-gpu", "openvino-npu"),
    *("coreml-m4", "webgpu", "web-wasm", "ryzen-ai"),
}

MINE = """
name = "mine"
description = "a board of mine"
extends = "raspberry-pi-5"
context = 64

[hardware]
memory = { value = 4e9, source = "its label", kind = "published" }
"""


def test_all_devices_that_were_asked_for_are_there() -> None:
    assert set(DEVICES) >= ASKED_FOR


@pytest.mark.parametrize("name", EVERY)
def test_every_step_of_an_installed_target_is_a_pass_with_options_it_knows(name: str) -> None:
    assert resolve(target(name).lowering, where=name)
    resolve(target(name).recipe, where=name)
    resolve(target(name).calibrated, where=name)


@pytest.mark.parametrize("name", EVERY)
def test_settings_of_a_provider_are_of_one_that_the_target_has(name: str) -> None:
    own = [key.split(".")[1] for key in target(name).session if key.startswith("ep.")]
    providers = [provider.name.lower() for provider in target(name).providers]
    assert all(any(provider.startswith(each) for provider in providers) for each in own)


@pytest.mark.parametrize("name", DEVICES)
def test_the_demo_model_is_planned_and_lowered_for_every_device(name: str, pycoder: Path) -> None:
    plan = plan_build(pycoder, target=name, context=128)
    assert plan.target == name
    assert plan.fits is not False


@pytest.fixture(scope="module")
def with_head_norms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that normalizes each head of queries and keys, for which every dialect has another form."""
    return checkpoint("qwen3", tmp_path_factory.mktemp("qwen3"), use_sliding_window=False)


@pytest.mark.parametrize("name", DEVICES)
def test_no_profile_denies_what_its_lowering_makes_of_heads(name: str, with_head_norms: Path) -> None:
    assert plan_build(with_head_norms, target=name).target == name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEVICES if not target(name).compile])
def test_the_demo_model_is_packed_for_every_device(name: str, pycoder: Path, tmp_path: Path) -> None:
    """Those whose graphs are compiled ahead have tests of their own."""
    bundle = edgewise.build(pycoder, target=name, output=tmp_path / "model.edge", load_check=False)
    assert bundle.manifest.target == name
    assert bundle.manifest.providers == target(name).providers
    verify(bundle.path)


@pytest.mark.parametrize("name", EVERY)
def test_every_profile_says_what_it_is_and_what_it_computes_with(name: str) -> None:
    said = target(name)
    assert said.name == name
    assert said.description[0] == said.description.strip()[0]
    assert not said.description.endswith(".")
    assert said.numerics.weights
    assert said.needs.layout == "BNSH"


@pytest.mark.parametrize("name", EVERY)
def test_what_weights_are_multiplied_in_is_known_where_compute_is(name: str) -> None:
    """Otherwise a planner has nothing to foretell a prompt's time with."""
    said = target(name)
    if said.hardware.compute:
        kinds = {said.numerics.arithmetic[kind] for kind in said.numerics.weights}
        assert kinds <= set(said.hardware.compute), f"{name}: no compute in {kinds - set(said.hardware.compute)}"
        assert said.hardware.bandwidth
        assert said.hardware.efficiency.of("decode", "int4")
        assert said.hardware.efficiency.of("prefill", "int4")


@pytest.mark.parametrize("name", EVERY)
def test_a_published_number_names_a_page_or_a_document(name: str) -> None:
    for key, number in target(name).hardware.numbers():
        if number.kind == "published":
            assert any(mark in number.source for mark in ("://", "Data Sheet", "Brief", "perf.yaml")), f"{name}: {key}"


def test_names_and_aliases_are_of_one_target_each() -> None:
    known = [alias for name in EVERY for alias in (name, *target(name).aliases)]
    assert len(known) == len(set(known))


def test_an_alias_stands_for_its_target_and_is_a_name_to_extend(tmp_path: Path) -> None:
    assert registry().get_target("pi-5").name == "raspberry-pi-5"
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace("raspberry-pi-5", "pi-5"), "utf-8")
    assert registry().get_target(str(path)).device.vendor == "Raspberry Pi"


def test_a_base_is_refused_with_those_that_extend_it() -> None:
    with pytest.raises(
        OptionError, match=r"target 'qnn' is there for others to extend; .*: qnn-8-elite, qnn-8-gen3, qn"
    ):
        registry().get_target("qnn")
    assert "qnn" not in DEVICES
    assert target("qnn").base


def test_a_target_that_is_not_there_is_one_line_with_all_that_are() -> None:
    with pytest.raises(OptionError, match=r"no target is named 'cpu-x46'; did you mean 'cpu-x64'.* known: .*web-wasm"):
        registry().get_target("cpu-x46")
    with pytest.raises(TargetError, match=r"target profile nowhere.toml: No such file"):
        registry().get_target("nowhere.toml")


def test_the_names_of_a_profile_are_those_that_onnx_runtime_knows() -> None:
    """The other way round is not so: an operator without a kernel, say, is in no profile."""
    known = names()
    schemas = {(schema.domain, schema.name) for schema in _pybind_state.get_all_operator_schema()}
    assert known["operators"] <= {f"{domain}:{name}" if domain else name for domain, name in schemas}
    assert known["providers"] <= set(ort.get_all_providers())
    library = next(Path(ort.__file__).parent.glob("capi/libonnxruntime.so*")).read_bytes()
    arm = {"mlas.enable_gemm_fastmath_arm64_bfloat16", "mlas.disable_kleidiai"}
    assert not [name for name in known["session"] - arm if name.encode() not in library]


def test_a_profile_of_the_user_is_built_for(pycoder: Path, tmp_path: Path) -> None:
    from edgewise.cli.main import execute

    (tmp_path / "mine.toml").write_text(MINE, "utf-8")
    output = tmp_path / "mine.edge"
    assert execute(["build", str(pycoder), "--target", str(tmp_path / "mine.toml"), "-o", str(output)]) == 0
    manifest = json.loads((output / "manifest.json").read_text("utf-8"))
    assert (manifest["target"], manifest["context"]) == ("mine", 64)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    from edgewise.cli.main import execute

    assert execute(["targets", *words]) == 0
    return capsys.readouterr().out


def test_the_list_says_how_each_target_is_proved(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in json.loads(shown(capsys, "--json"))}
    assert list(rows) == EVERY
    assert [rows[name]["proof"] for name in ("cpu-x64", "qnn", "qnn-8-elite", "raspberry-pi-5")] == [
        "run",
        "base",
        "emulated",
        "specified",
    ]
    words = [line.split() for line in shown(capsys).splitlines()]
    assert ["raspberry-pi-5", "specified", "edgewise", *target("raspberry-pi-5").description.split()] in words


@pytest.mark.parametrize("name", EVERY)
def test_all_that_a_profile_says_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = shown(capsys, "show", name), target(name)
    assert text.startswith(f"{name}: {said.description}\n")
    for key, number in said.hardware.numbers():
        assert key in text
        assert number.source in text
        assert number.kind in text
    for provider in said.providers:
        assert provider.name in text
    for step in (*said.recipe, *said.calibrated, *said.lowering):
        assert step.name in text
    for words in (said.aliases, said.device.os, said.numerics.weights, said.needs.denied, said.session):
        assert all(word in text for word in words)
    as_json = json.loads(shown(capsys, "show", name, "--json"))
    assert set(as_json) == set(vars(said))
    assert as_json["hardware"]["compute"].keys() == said.hardware.compute.keys()


def test_a_profile_of_the_user_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE, "utf-8")
    text = shown(capsys, "show", str(tmp_path / "mine.toml"))
    assert "extends       raspberry-pi-5" in text
    assert "memory                       4 GB  published  its label" in text
    assert "bandwidth                 17 GB/s  published  32 bits at 4267 MT/s" in text

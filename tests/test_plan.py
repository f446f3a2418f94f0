"""tests: plan: what a build is said to give on a device, and what becomes of one that is too small."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewise.bundle.read import Bundle
from edgewise.cli.main import command_line, execute
from edgewise.errors import EdgewiseError, TargetError
from edgewise.pipeline import build
from edgewise.plan import Plan, plan_build, plan_everywhere
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.target import Hardware, Number, Target

FLOATS = Recipe()
INT4 = Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 128}),))


def with_memory(size: float) -> Target:
    """A processor with so many bytes."""
    hardware = Hardware(memory=Number(size, "its data sheet", "published"))
    return replace(registry().get_target("cpu-x64"), name="watch", hardware=hardware)


def test_every_installed_device_has_a_plan_or_a_reason(pycoder: Path) -> None:
    found = dict(plan_everywhere(pycoder))
    assert list(found) == list(registry().devices())
    for name, plan in found.items():
        if isinstance(plan, EdgewiseError):
            assert str(plan)
            continue
        assert plan.target == name
        assert plan.run_memory > plan.total.after
        hardware = registry().get_target(name).hardware
        assert (plan.speed is not None) == bool(hardware.bandwidth and (hardware.compute or hardware.kernels))


def test_devices_that_share_the_work_have_the_plans_that_they_have_alone(pycoder: Path) -> None:
    everywhere = dict(plan_everywhere(pycoder, context=256))
    for name in ("cpu-x64", "cpu-x64-avx2", "raspberry-pi-5", "qnn-x-elite"):
        assert everywhere[name] == plan_build(pycoder, target=name, context=256)


def test_the_download_is_the_bundle(pycoder: Path, pycoder_bundle: Bundle) -> None:
    size = sum(file.stat().st_size for file in pycoder_bundle.path.rglob("*") if file.is_file())
    assert plan_build(pycoder).download == pytest.approx(size, rel=0.03)


def test_a_longer_context_takes_the_memory_of_its_keys_and_values(pycoder: Path) -> None:
    long, longer = (plan_build(pycoder, context=context) for context in (512, 1024))
    assert longer.cache == 2 * long.cache
    assert longer.run_memory > long.run_memory


@pytest.mark.parametrize("share", [0.97, 0.7])
def test_what_a_small_device_is_told_would_fit_does(pycoder: Path, share: float) -> None:
    whole = plan_build(pycoder, recipe=FLOATS, context=1024)
    target = with_memory(whole.needs.runtime + share * (whole.run_memory - whole.needs.runtime))
    refused = plan_build(pycoder, target=target, recipe=FLOATS, context=1024)
    assert refused.fits is False
    with pytest.raises(TargetError, match=r"target 'watch' has .* would fit: ") as caught:
        refused.refuse_what_does_not_fit()
    advised = re.search(r"int(\d) in blocks of (\d+) with a context of ([\d,]+) tokens", str(caught.value))
    assert advised
    bits, block, context = (int(number.replace(",", "")) for number in advised.groups())
    recipe = Recipe((RecipeStep("quantize", {"bits": bits, "block_size": block}),))
    assert plan_build(pycoder, target=target, recipe=recipe, context=context).fits is True


def test_a_build_refuses_with_the_words_of_the_plan(pycoder: Path, tmp_path: Path) -> None:
    target = with_memory(90e6)
    with pytest.raises(TargetError) as planned:
        plan_build(pycoder, target=target).refuse_what_does_not_fit()
    with pytest.raises(TargetError) as built:
        build(pycoder, target=target, output=tmp_path / "model.edge")
    assert str(planned.value) == str(built.value)
    assert list(tmp_path.iterdir()) == []


def test_only_a_share_of_the_memory_may_be_for_one_process(pycoder: Path) -> None:
    target = with_memory(200e6)
    assert plan_build(pycoder, target=target).fits is True
    shared = replace(target.hardware, usable=Number(0.4, "its system takes the rest", "estimated"))
    plan = plan_build(pycoder, target=replace(target, hardware=shared))
    assert plan.fits is False
    with pytest.raises(TargetError, match="of which one process gets 40%"):
        plan.refuse_what_does_not_fit()


def test_a_second_graph_that_does_not_fit_is_what_is_said_to_be_left_out(pycoder: Path) -> None:
    plan, two = (plan_build(pycoder, prefill=prefill) for prefill in (None, "int8"))
    target = with_memory((plan.run_memory + two.run_memory) / 2)
    with pytest.raises(TargetError, match="without a second graph for prompts it would fit"):
        plan_build(pycoder, target=target, prefill="int8").refuse_what_does_not_fit()


def test_a_profile_without_figures_has_no_speed_and_says_what_to_do(pycoder: Path) -> None:
    result = CliRunner().invoke(command_line(registry()), ["plan", str(pycoder)])
    assert plan_build(pycoder).speed is None
    assert "edgewise probe" in result.output


def test_energy_is_power_by_speed(pycoder: Path) -> None:
    target = registry().get_target("raspberry-pi-5")
    power = replace(target.hardware, power=Number(7.0, "a meter", "measured"))
    speed = plan_build(pycoder, target=replace(target, hardware=power)).speed
    assert speed is not None
    assert speed.joules_per_token == pytest.approx(7 / speed.decode_tokens_per_s)


def test_fewer_bits_are_said_to_help_where_bandwidth_limits_and_do(pycoder: Path) -> None:
    recipe = Recipe((RecipeStep("quantize", {"bits": 8, "block_size": 128}),))
    plans: list[Plan] = [plan_build(pycoder, target="raspberry-pi-5", recipe=recipe)]
    plans += [plan_build(pycoder, target="raspberry-pi-5", recipe=INT4)]
    before, after = (plan.speed for plan in plans)
    assert before
    assert after
    assert before.decode_limit == "bandwidth"
    gain = next(match for text in plans[0].helps if (match := re.match(r"int4 would decode ([\d.]+) times", text)))
    assert after.decode_tokens_per_s / before.decode_tokens_per_s == pytest.approx(float(gain[1]), abs=0.06)


def test_the_command_prints_what_is_planned(pycoder: Path) -> None:
    result = CliRunner().invoke(
        command_line(registry()), ["plan", str(pycoder), "--target", "raspberry-pi-5", "--json"]
    )
    plan = plan_build(pycoder, target="raspberry-pi-5")
    said = json.loads(result.stdout)
    assert (said["run_memory"], said["fits"], said["download"]) == (plan.run_memory, True, plan.download)


def test_the_survey_has_a_line_for_each_device(pycoder: Path) -> None:
    result = CliRunner().invoke(command_line(registry()), ["plan", str(pycoder), "--all"])
    assert result.exit_code == 0
    for name in registry().devices():
        assert name in result.output


def test_one_device_and_all_are_not_asked_for_at_once(pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", str(pycoder), "--all", "--target", "h200"]) == 2
    assert "Give '--target' or '--all', not both." in capsys.readouterr().err


def test_a_device_that_is_too_small_ends_the_command_with_one_line(
    pycoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "watch.toml"
    profile.write_text(
        'name = "watch"\ndescription = "a watch"\nextends = "cpu-x64"\n'
        '[hardware]\nmemory = { value = 90e6, source = "its data sheet", kind = "published" }\n'
    )
    assert execute(["plan", str(pycoder), "--target", str(profile)]) == 1
    printed = capsys.readouterr()
    assert "it does NOT fit" in printed.out
    assert printed.err.startswith("error: target 'watch' has 0.09 GB of memory")
    assert printed.err.count("\n") == 1


def test_a_gpu_of_unknown_size_is_not_held_against_the_memory_of_this_machine(pycoder: Path) -> None:
    assert plan_build(pycoder, target="cuda").memory is None
    assert plan_build(pycoder, target="cpu-x64").memory is not None


MEASURE = """
import sys
from edgewise.runtime.result import peak_memory
from edgewise.runtime.runner import Runner

with Runner.open(sys.argv[1], threads=1, prefix_cache=0) as runner:
    session = runner.session(capacity=int(sys.argv[2]))
    session.prefill([i % runner.model.facts.vocab_size for i in range(int(sys.argv[2]))])
print(peak_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libraries of other systems take another room")
@pytest.mark.parametrize("recipe", [FLOATS, INT4], ids=["floats", "int4"])
def test_a_process_takes_the_memory_that_was_planned(pycoder: Path, tmp_path: Path, recipe: Recipe) -> None:
    context = 1024
    bundle = build(pycoder, output=tmp_path / "model.edge", recipe=recipe, context=context, load_check=False)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(bundle.path), str(context)], check=True, stdout=subprocess.PIPE, text=True
    )
    planned = plan_build(pycoder, recipe=recipe, context=context).run_memory
    assert planned == pytest.approx(int(measured.stdout), rel=0.1)

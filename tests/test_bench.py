"""tests: measuring: what is counted, how two measurements compare, and machines that count energy or do not."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise.bench.answer import answer
from edgewise.bench.bandwidth import bandwidth, bytes_per_token
from edgewise.bench.compare import compare, ratio
from edgewise.bench.energy import Meter
from edgewise.bench.host import Host
from edgewise.bench.rates import Latency, Rate
from edgewise.bench.report import Report, bench
from edgewise.bench.speed import measure
from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.runtime.runner import Runner
from toy import toy


@pytest.fixture(scope="module")
def report(pycoder_bundle: Bundle) -> Report:
    return bench(pycoder_bundle.path, prefill=24, decode=8, runs=3, threads=1, prompt="def read(", max_tokens=12)


def test_a_report_has_every_run_and_names_the_machine(report: Report) -> None:
    assert (report.speed.prefill.tokens, report.speed.prefill.runs) == (24, 3)
    assert (report.speed.decode.tokens, report.speed.decode.runs) == (8, 3)
    assert report.threads == 1
    assert min(report.speed.prefill.samples + report.speed.decode.samples) > 0
    assert report.host.cores >= 1
    assert report.host.processor
    assert report.host.onnxruntime == Host.here().onnxruntime


def test_a_report_comes_back_from_its_json(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report.data()))
    assert Report.read(path) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "bundle": 3}'])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"report\.json"):
        Report.read(path)


def test_the_output_is_the_same_in_each_measurement_and_changes_with_the_model(
    report: Report, pycoder_bundle: Bundle, tmp_path: Path
) -> None:
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        assert measure(runner, prefill=1, decode=1, runs=1).output_blake3 == report.speed.output_blake3
        other = Runner(toy(tmp_path, vocabulary=400), runner.tokenizer)
    assert measure(other, prefill=1, decode=1, runs=1).output_blake3 != report.speed.output_blake3


def test_what_is_not_asked_for_fits_the_context_and_what_is_asked_for_must(pycoder_bundle: Bundle) -> None:
    steps: list[tuple[str, int, int]] = []
    with Runner.open(pycoder_bundle.path, context=40) as runner:
        speed = measure(runner, runs=1, progress=lambda *step: steps.append(step))
        assert (speed.prefill.tokens, speed.decode.tokens) == (40, 40)
        assert steps == [("measure", 0, 2), ("measure", 1, 2)]
        with pytest.raises(ContextOverflow, match="prefill is 41 tokens, and the context is 40"):
            measure(runner, prefill=41)
        with pytest.raises(OptionError, match="runs is 0; it must be 1 or more"):
            measure(runner, runs=0)
        with pytest.raises(OptionError, match="decode is 0; it must be 1 or more"):
            measure(runner, decode=0)


def test_an_answer_is_measured_to_its_first_text_and_between_its_tokens(report: Report) -> None:
    assert report.answer is not None
    assert report.answer.rate.tokens == 12
    assert report.answer.prompt_tokens > 1
    assert report.answer.repeats
    assert report.answer.between_tokens_s is not None
    assert 0 < report.answer.between_tokens_s.p50 <= report.answer.between_tokens_s.p99
    assert report.answer.first_text_s.p50 > 0


def test_a_prompt_that_gets_no_text_is_an_error(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path) as runner:
        best = runner.generate("def read(", max_tokens=1).text
        with pytest.raises(GenerationError, match="the prompt got no text"):
            answer(runner, "def read(", runs=1, stop=best)


def test_percentiles_are_by_nearest_rank() -> None:
    assert Latency.of([float(i) for i in range(1, 101)]) == Latency(50.0, 95.0, 99.0)
    assert Latency.of([3.0, 1.0]) == Latency(1.0, 3.0, 3.0)
    assert Latency.of([7.0]) == Latency(7.0, 7.0, 7.0)


def test_the_spread_of_a_single_run_is_none() -> None:
    assert Rate(4, (2.0,)).deviation == 0.0
    assert Rate(4, (1.0, 3.0)).deviation == pytest.approx(2**0.5)


def test_a_ratio_lies_in_its_spread_and_equal_samples_have_none() -> None:
    rng = np.random.default_rng(0)
    found = ratio("decode", rng.normal(20, 1, 30).tolist(), rng.normal(10, 1, 30).tolist())
    assert found.low < found.ratio < found.high
    assert found.ratio == pytest.approx(2, rel=0.1)
    same = ratio("decode", [5.0, 5.0], [5.0, 5.0])
    assert (same.ratio, same.low, same.high) == (1.0, 1.0, 1.0)


def test_measurements_that_differ_in_more_than_the_bundle_say_so(report: Report) -> None:
    assert compare(report, report).differences == ()
    other = Report(**{**report.__dict__, "threads": 2})
    assert compare(report, other).differences == ("threads: 1 and 2",)
    assert [each.name for each in compare(report, other).ratios] == ["prefill", "decode", "answer"]


def test_answers_to_different_prompts_are_not_compared_in_silence(report: Report) -> None:
    assert report.answer is not None
    other = Report(**{**report.__dict__, "answer": replace(report.answer, prompt_blake3="0", prompt_tokens=9)})
    assert compare(report, other).differences == (f"prompt: one of {report.answer.prompt_tokens} tokens and one of 9",)


def test_an_answer_of_one_token_has_no_time_between_tokens(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path) as runner:
        assert answer(runner, "def read(", runs=1, max_tokens=1).between_tokens_s is None


def test_memory_is_read_at_a_plausible_speed() -> None:
    assert 1e8 < bandwidth(1, bytes_each=1 << 22, runs=2) < 1e13


def test_a_token_reads_the_weights_once_and_of_an_untied_embedding_a_row(pycoder_bundle: Bundle) -> None:
    manifest = pycoder_bundle.manifest
    needed = bytes_per_token(manifest, 0)
    assert needed is not None
    parts = manifest.card["parts"]
    assert needed == sum(parts[name]["after"] for name in parts if name != "tables")
    cache = bytes_per_token(manifest, 512)
    assert cache is not None
    assert cache - needed == manifest.language_model.cache_bytes(512)


# Energy, by counters as the kernel shows them.


def rapl(folder: Path, microjoules: int, span: int = 1000) -> Path:
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "max_energy_range_uj").write_text(str(span))
    (zone / "energy_uj").write_text(str(microjoules))
    return folder


def test_energy_is_what_the_counter_went_up_by_also_when_it_wraps(tmp_path: Path) -> None:
    with Meter(rapl(tmp_path, 900)) as meter:
        rapl(tmp_path, 99)
    assert (meter.energy.joules, meter.energy.method) == (200 / 1e6, "rapl")


def test_a_sampled_rail_is_summed_over_time(tmp_path: Path) -> None:
    chip = tmp_path / "hwmon0"
    chip.mkdir()
    for name, text in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000"}.items():
        (chip / name).write_text(text)
    for name, text in {"in2_label": "VDD_SOC", "in2_input": "5000", "curr2_input": "1000"}.items():
        (chip / name).write_text(text)  # a part of what comes in: it does not count twice
    started = time.perf_counter()
    with Meter(tmp_path / "none", tmp_path) as meter:
        time.sleep(0.3)
    seconds = time.perf_counter() - started
    assert meter.energy.method == "ina3221"
    assert meter.energy.joules is not None
    assert 0 < meter.energy.joules <= 10 * seconds


def test_without_a_counter_there_is_a_reason_and_no_figure(tmp_path: Path) -> None:
    with Meter(tmp_path, tmp_path) as meter:
        pass
    assert meter.energy.joules is None
    assert "no energy counter" in str(meter.energy.reason)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_counter_that_only_root_reads_is_named(tmp_path: Path) -> None:
    folder = rapl(tmp_path, 5)
    (folder / "intel-rapl:0" / "energy_uj").chmod(0)
    with Meter(folder, tmp_path) as meter:
        pass
    assert "root only" in str(meter.energy.reason)


# The command.


def test_two_results_are_compared_by_the_command(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(report.data()))
    assert execute(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "1.000 times" in out
    assert out.count("times") == 3


def test_the_command_wants_a_bundle_or_two_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench"]) == 2
    assert "two results to --compare" in capsys.readouterr().err

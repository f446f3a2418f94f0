"""tests: the command line: data on stdout, talk on stderr, one line for a fault of the user's."""

import json
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from edgewise.cli.main import COMMANDS, execute
from terminal import SIGINT, terminal

NAMES = [str(command.name) for commands in COMMANDS.values() for command in commands]

CODE = "from edgewise.cli.main import main; main()"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example:\n    edgewise {name}" in text


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("biuld", "no command is named 'biuld'; did you mean 'build'?"),
        ("build checkpoint -o x.edge --taget cpu-x64", "'--target'"),
        ("build checkpoint", "Missing option '-o'"),
        ("build checkpoint -o x.edge --context many", "'many' is not a valid integer"),
        ("inspect", "Missing argument 'BUNDLE'"),
        ("run model.edge x --set temperature=1", "'--set' needs '--search'"),
        ("run model.edge x --search sample --set temperature", "not of the form key=value"),
    ],
)
def test_wrong_usage_is_met_with_the_closest_there_is(
    command: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["build", "checkpoint", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "plan for cpu-x64: quantize(bits=4" in text
    assert "it fits" in text
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "model.edge"]


def test_a_build_prints_its_plan_as_talk_and_its_result_as_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["build", "checkpoint", "-o", "new.edge", "--no-load-check"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("new.edge: ")
    assert out.count("\n") == 1
    assert err.startswith("plan for cpu-x64")


def test_progress_is_shown_to_a_terminal_and_to_nothing_else(folder: Path) -> None:
    build = ["build", "checkpoint", "--no-load-check", "-o"]
    with terminal(*build, "seen.edge") as screen:
        screen.read(b"write")
        screen.read("\u2501".encode())  # of the bar
        screen.read(b"seen.edge: ")
    done = subprocess.run([sys.executable, "-c", CODE, *build, "new.edge"], capture_output=True, text=True, timeout=60)
    assert "write" not in done.stderr
    assert "\u2501" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "build checkpoint --dry-run",
        "build checkpoint -o new.edge --no-load-check",
        "export checkpoint -o graph",
        "export checkpoint --format safetensors -o again",
        "inspect model.edge",
        "verify model.edge",
        "targets",
        "passes",
        "exporters",
        "searches",
        "processors",
        "stop-rules",
        "plugins",
    ],
)
def test_every_report_is_there_as_json(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_reader_that_leaves_ends_the_command_quietly(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "inspect", "model.edge"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        assert child.wait(60) == 1
        assert child.stderr.read() == b""


def run_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert execute(["run", "model.edge", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_text_goes_to_stdout_and_timings_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "model.edge", "def read_json(", "--max-tokens", "12"]) == 0
    out, err = capsys.readouterr()
    result = run_json("def read_json(", "--max-tokens", "12", capsys=capsys)
    assert out == result["text"] + "\n"
    assert err.startswith("12 tokens in ")
    assert "ended by length" in err
    assert err.count("\n") == 1


def test_a_prompt_is_read_from_stdin_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"import json\n"), "utf-8"))
    piped = run_json("-", "--max-tokens", "8", capsys=capsys)
    assert piped["tokens"] == run_json("import json\n", "--max-tokens", "8", capsys=capsys)["tokens"]


def test_the_options_of_a_search_are_typed_and_a_seed_repeats_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = ("class Queue:", "--max-tokens", "24", "--search", "sample", "--set", "top_k=40")
    hot = (*sample, "--set", "temperature=1.5")
    first, again = (run_json(*hot, "--seed", "3", capsys=capsys) for _ in range(2))
    assert first["tokens"] == again["tokens"]
    assert first["tokens"] != run_json(*hot, "--seed", "4", capsys=capsys)["tokens"]
    greedy = run_json("class Queue:", "--max-tokens", "24", capsys=capsys)
    assert run_json(*sample, "--set", "temperature=0", capsys=capsys)["tokens"] == greedy["tokens"]


def test_a_stop_text_ends_the_text_before_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = run_json("def read_json(", "--max-tokens", "32", capsys=capsys)["text"]
    stopped = run_json("def read_json(", "--max-tokens", "32", "--stop", '"""', capsys=capsys)
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == free[: free.index('"""')]


def test_a_control_token_that_a_user_types_is_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json("<|endoftext|>", "--max-tokens", "1", capsys=capsys)["timings"]["prompt_tokens"] > 1


def test_a_bundle_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "model.edge", "--prefill", "16", "--decode", "4", "--runs", "2"]
    assert execute(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["prefill", "decode"]
    assert execute([*arguments, "--json"]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert (speed["prefill"]["tokens"], speed["decode"]["tokens"], len(speed["decode"]["samples"])) == (16, 4, 2)


def test_ctrl_c_ends_a_command_quietly(folder: Path) -> None:
    options = ("--search", "sample", "--max-tokens", "1000")
    command = [sys.executable, "-c", f"{SIGINT}; {CODE}", "run", "model.edge", "def f(", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stderr
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        assert child.wait(60) == 130
        assert child.stderr.read().strip() == b""

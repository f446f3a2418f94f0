"""tests: what the command line offers of the cache: a prompt kept in a file, and generations without an end."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgewise.bundle.manifest import CHUNK
from edgewise.cli.main import execute

PROMPT = "def read_json(path):\n" + "    # a comment of some words\n" * 40


def run_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The result, and what was said."""
    assert execute(["run", "model.edge", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    result: dict[str, Any] = json.loads(out)
    return result, err


def test_a_prompt_is_kept_in_a_file_and_read_from_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_json(PROMPT, "--prompt-cache", "kept", "--max-tokens", "8", capsys=capsys) for _ in range(2)]
    plain, _ = run_json(PROMPT, "--max-tokens", "8", capsys=capsys)
    whole = (plain["timings"]["prompt_tokens"] - 1) // CHUNK * CHUNK
    assert whole > CHUNK
    assert [result["timings"]["prompt_tokens_cached"] for result, _ in runs] == [0, whole]
    assert [result["tokens"] for result, _ in runs] == [plain["tokens"]] * 2
    assert [err for _, err in runs] == [f"kept: {whole} tokens of the prompt are kept\n", ""]


def test_the_file_grows_with_the_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for prompt in (PROMPT, PROMPT * 2, PROMPT):
        run_json(prompt, "--prompt-cache", "kept", "--max-tokens", "1", capsys=capsys)
        sizes.append(Path("kept").stat().st_size)
    assert sizes[0] < sizes[1] == sizes[2]


def test_a_prompt_that_is_too_short_is_not_kept_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run_json("def f(", "--prompt-cache", "kept", "--max-tokens", "1", capsys=capsys)
    assert err == f"the prompt is not kept: it has 3 tokens, and they are kept in blocks of {CHUNK}\n"
    assert not Path("kept").exists()


def test_a_file_of_another_kind_is_refused_and_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes").write_text("not to be lost")
    assert execute(["run", "model.edge", PROMPT, "--prompt-cache", "notes"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: notes: its 14 bytes are not those of a safetensors file, or not all of them\n"
    assert Path("notes").read_text() == "not to be lost"


def test_past_the_context_it_goes_on_with_sinks_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["x = [1, 2, ", "--context", "48", "--max-tokens", "90", "--processor", "min_length=90"]
    assert execute(["run", "model.edge", *options]) == 1
    assert "and the context is 48" in capsys.readouterr().err
    assert execute(["run", "model.edge", *options, "--sinks", "4"]) == 0
    assert " tokens were dropped" in capsys.readouterr().err


def test_a_prompt_that_lost_tokens_is_not_kept_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt-cache", "kept", "--context", "160", "--sinks", "4", "--max-tokens", "1"]
    _, err = run_json(PROMPT, *options, capsys=capsys)
    assert "the prompt is not kept: " in err
    assert "of its tokens were dropped" in err
    assert not Path("kept").exists()


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["run", "model.edge", PROMPT, "--prompt-cache", "nowhere/kept"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: nowhere/kept: its folder is not there")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_file_that_cannot_be_replaced_serves_what_it_holds_and_no_more(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("shared").mkdir()
    run_json(PROMPT, "--prompt-cache", "shared/kept", "--max-tokens", "1", capsys=capsys)
    Path("shared").chmod(0o500)
    result, _ = run_json(PROMPT, "--prompt-cache", "shared/kept", "--max-tokens", "1", capsys=capsys)
    assert result["timings"]["prompt_tokens_cached"] > CHUNK
    assert execute(["run", "model.edge", PROMPT * 2, "--prompt-cache", "shared/kept"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: shared/kept: its folder is not there, or cannot be written in")


def test_an_empty_file_is_a_damaged_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("kept").touch()
    assert execute(["run", "model.edge", PROMPT, "--prompt-cache", "kept"]) == 1
    assert capsys.readouterr().err.startswith("error: kept: ")

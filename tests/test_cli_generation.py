"""tests: a generation on the command line: searches, processors and stop rules as words, and what comes out of it."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from edgewise.cli.main import execute
from edgewise.cli.parts import Part, nested, part
from edgewise.describe import Option, options
from edgewise.registry import registry
from edgewise.search.stops import Loop

RUN = ["run", "model.edge", "class Queue:", "--max-tokens", "12"]


def run_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert execute([*RUN, *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dry", Part("dry")),
        ("repetition_penalty=1.1", Part("repetition_penalty", first=1.1)),
        ("stop=two words, one text", Part("stop", first="two words, one text")),
        ('stop="7"', Part("stop", first="7")),
        ("grammar={}", Part("grammar", first={})),
        ("loop:count=3,length=9", Part("loop", {"count": 3, "length": 9})),
        ('a:words=["x,y", \'"\'],on=true', Part("a", {"words": ["x,y", '"'], "on": True})),
        ("a:text=some text", Part("a", {"text": "some text"})),
    ],
)
def test_a_part_is_a_name_with_options(text: str, expected: Part) -> None:
    assert part(text) == expected


@pytest.mark.parametrize("text", ["", "=3", "a b", "loop:", "loop:count", "loop:count=3,length"])
def test_a_part_that_cannot_be_read_says_how_one_is_written(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not of the form"):
        part(text)


def test_the_value_of_a_part_is_its_first_option_a_list_where_that_is_one() -> None:
    rules = registry().stop_rules
    assert part("floor=0.5").table(rules) == {"name": "floor", "probability": 0.5}
    assert part("stop=END").table(rules) == {"name": "stop", "strings": ["END"]}
    assert part('stop=["END", "."]').table(rules) == {"name": "stop", "strings": ["END", "."]}


def test_options_of_what_an_option_names_are_nested() -> None:
    settings = [("search.top_k", 3), ("search", "sample"), ("scale", 1.5), ("search.inner.x", True)]
    assert nested(settings) == {"search": {"name": "sample", "top_k": 3, "inner": {"x": True}}, "scale": 1.5}


def test_processors_and_stop_rules_do_what_their_python_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_json(capsys=capsys)
    other = run_json("--processor", "repetition_penalty=9", capsys=capsys)
    assert other["tokens"] != plain["tokens"]
    assert len(set(other["tokens"])) > len(set(plain["tokens"]))
    looped = run_json("--processor", "repetition_penalty=0.01", "--stop-rule", "loop:count=2,length=4", capsys=capsys)
    assert looped["finish_reason"] == "loop"
    assert run_json("--stop-rule", "floor=1", capsys=capsys)["finish_reason"] == "floor"
    assert run_json("--stop-rule", f"stop={plain['text'][:3]}", capsys=capsys)["finish_reason"] == "stop"


def test_a_grammar_comes_from_a_file_or_is_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "schema.json").write_text('{"type": "integer", "minimum": 10, "maximum": 99}', "utf-8")
    (folder / "calls.lark").write_text('start: /[a-z]{1,5}/ "()"', "utf-8")
    assert re.fullmatch(r"\d\d", run_json("--json-schema", "schema.json", capsys=capsys)["text"])
    assert re.fullmatch(r"[a-z]{1,5}\(\)", run_json("--grammar", "calls.lark", capsys=capsys)["text"])
    typed = run_json("--regex", "[A-Z]{3}", capsys=capsys)
    assert re.fullmatch("[A-Z]{3}", typed["text"])
    assert typed["finish_reason"] == "eos"


def test_the_first_completion_is_streamed_and_others_follow(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beams = ["--search", "beam", "--set", "num_beams=3", "--set", "num_return=3"]
    found = run_json(*beams, capsys=capsys)["completions"]
    assert execute([*RUN, *beams]) == 0
    out, err = capsys.readouterr()
    assert out == "".join(each["text"] + "\n" for each in found)
    headings = [line for line in err.splitlines() if " of 3, ended by " in line]
    assert [line[0] for line in headings] == ["2", "3"]
    assert all(line.endswith(f"score {each['score']:.4g}:") for line, each in zip(headings, found[1:], strict=True))


def test_log_probabilities_are_part_of_the_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json("--logprobs", "2", capsys=capsys)
    assert [each["token"] for each in result["logprobs"]] == result["tokens"]
    assert all(len(each["top"]) == 2 and each["logprob"] <= 0 for each in result["logprobs"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("--processor =3", 2, "'=3' is not of the form NAME, NAME=VALUE or NAME:KEY=VALUE"),
        ("--stop-rule loop:count", 2, "'count' is not of the form key=value"),
        ("--logprobs 3", 2, "'--logprobs' needs '--json'"),
        ("--regex a --grammar model.edge/manifest.json", 2, "Give one of '--json-schema', '--regex' and '--grammar'"),
        ("--json-schema missing.json", 2, "'missing.json' does not exist"),
        ("--processor penalty=1", 1, "error: no processor is named 'penalty'; did you mean"),
        ("--stop-rule loop:cuont=1", 1, "error: stop rule 'loop': no option is named 'cuont'; did you mean 'count'?"),
        ("--grammar checkpoint/model.safetensors", 1, "error: checkpoint/model.safetensors is not UTF-8: byte"),
        ("--regex (", 1, "error: regex cannot be used"),
        ("--search greedy --set search.x=1", 1, "error: search 'greedy': no option is named 'search'"),
        ("--assistant missing.edge", 1, "error: there is no bundle at missing.edge"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, arguments: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([*RUN, *arguments.split()]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert code == 2 or err.count("\n") == 1


@pytest.mark.parametrize("command", ["searches", "processors", "stop-rules", "passes"])
def test_every_name_in_a_listing_is_described_with_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["description"] for row in rows)
    for row in rows:
        assert execute([command, row["name"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["description"].startswith(row["description"])
        assert execute([command, row["name"]]) == 0
        assert capsys.readouterr().out.startswith(row["description"])


def test_options_are_told_as_their_class_declares_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert options(Loop)[0] == Option("period", "int", "64", "tokens of the longest cycle that is looked for")
    assert execute(["stop-rules", "floor"]) == 0
    assert "\nprobability: float\n" in capsys.readouterr().out
    assert execute(["searches", "greedy"]) == 0
    assert capsys.readouterr().out.endswith("It has no options.\n")

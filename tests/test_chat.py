"""tests: a conversation in a terminal: the template, the commands, Ctrl-C and Ctrl-D."""

import os
import shutil
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from threading import Event

import pytest

from edgewise.cli.main import execute
from edgewise.pipeline import build
from edgewise.runtime.runner import Runner
from terminal import CTRL_C, CTRL_D, terminal

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def talker(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with a chat template; what it answers is no matter."""
    folder = tmp_path_factory.mktemp("talker")
    checkpoint = shutil.copytree(pycoder, folder / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return build(checkpoint, output=folder / "talker.edge", load_check=False).path


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("".join(f"{line}\n" for line in lines)))


def test_a_model_without_a_template_cannot_chat_but_run(
    pycoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = build(pycoder, output=tmp_path / "model.edge", load_check=False).path
    assert execute(["chat", str(bundle)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no chat template" in line
    assert "edgewise run" in line


def test_each_turn_knows_the_ones_before_it(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = ["chat", str(talker), "--max-tokens", "8", "--search", "greedy"]
    say(monkeypatch, "one", "two", "/clear", "two", "/exit", "three")
    assert execute(chat) == 0
    first = capsys.readouterr().out
    say(monkeypatch, "two")
    assert execute(chat) == 0
    alone = capsys.readouterr().out
    assert first.endswith(alone)
    assert not first.removesuffix(alone).endswith(alone)


def test_commands_are_explained_and_an_unknown_one_is_not_sent(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "/help", "/clera", "")
    assert execute(["chat", str(talker)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "no command is named '/clera'; did you mean '/clear'?" in err
    assert err.count("forget the conversation") == 2


def test_a_conversation_that_grows_too_long_says_so_and_goes_on(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "word " * 2000, "short", "word " * 2000)
    assert execute(["chat", str(talker), "--max-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    assert out
    first, last = err.splitlines()
    assert first.startswith("error: the prompt has ")
    assert "/clear" not in first  # there is nothing to forget
    assert last.endswith("/clear forgets the conversation")


def test_what_no_answer_can_be_asked_for_is_said_before_the_first_question(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "hello")
    assert execute(["chat", str(talker), "--search", "gredy"]) == 1
    assert execute(["chat", str(talker), "--max-tokens", "2000"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean 'greedy'?" in err
    assert "and the context is 1,024" in err


def test_the_conversation_so_far_is_computed_while_the_user_types(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = []
    original = Runner.prepare

    def prepare(self: Runner, prompt: Sequence[int], *, stop: Event) -> int:
        prepared.append(self.tokenizer.decode(prompt))
        return original(self, prompt, stop=Event())

    monkeypatch.setattr(Runner, "prepare", prepare)
    say(monkeypatch, "one " * 100, "two", "/clear", "three")
    assert execute(["chat", str(talker), "--max-tokens", "4", "--search", "greedy"]) == 0
    answers = capsys.readouterr().out.splitlines()
    assert [[word in text for word in ("one", "two", "three")] for text in prepared] == [
        [True, False, False],
        [True, True, False],
        [False, False, True],
    ]
    assert answers[0] in prepared[0]


def test_ctrl_c_stops_an_answer_and_ctrl_d_leaves(talker: Path) -> None:
    with terminal("chat", str(talker), "--search", "greedy", "--max-tokens", "900") as typed:
        typed.read(b"> ")
        typed.press(CTRL_C, until=b"leaves)")
        typed.read(b"> ")
        os.write(typed.keyboard, b"hello\n")
        typed.read(b"hello")
        typed.read(b"e")  # of an answer of 900 tokens
        typed.press(CTRL_C, until=b"> ")
        os.write(typed.keyboard, CTRL_D)
        assert typed.child.wait(60) == 0

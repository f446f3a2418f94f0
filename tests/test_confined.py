"""tests: programs that nobody vouches for do no harm, and end."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from answering import Answers, scaled
from edgewise.confined.limits import Limits
from edgewise.confined.run import run_program, run_tool
from edgewise.errors import OptionError
from edgewise.scaling.best_of_n import BestOfN
from edgewise.scaling.programs import JsonSchema, Tool, UnitTests
from edgewise.scaling.protocol import Candidate, Context

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="programs are confined on Linux")
SOON = Limits(seconds=2)


def test_a_program_that_passes_says_what_it_says() -> None:
    outcome = run_program("import math, statistics\nprint(math.pi > statistics.mean([1, 2]))")
    assert (outcome.passed, outcome.said, outcome.why) == (True, "True\n", "")


def test_what_a_program_raises_is_why_it_failed() -> None:
    assert run_program("assert 1 == 2, 'one is not two'").why == "AssertionError: one is not two"
    assert run_program("def f(:").why == "SyntaxError: invalid syntax"
    assert run_program("raise SystemExit(3)").why == "it ended with code 3, before its end"


@pytest.mark.parametrize("end", ["raise SystemExit", "import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_a_program_that_ends_before_its_tests_has_not_passed_them(end: str) -> None:
    assert not run_program(f"def add(a, b): return 5\n{end}", "assert add(2, 2) == 4").passed
    assert not run_program("def add(a, b): return 4", f"{end}\nassert add(2, 2) == 4").passed


def test_a_program_may_end_where_it_was_run_as_one() -> None:
    program = "import sys\ndef add(a, b): return a + b\nif __name__ == '__main__':\n    sys.exit(0)\n"
    assert run_program(program, "assert add(2, 2) == 4").passed


def test_a_program_cannot_say_that_nothing_confines_it() -> None:
    assert run_program("raise SystemExit(125)").why == "it ended with code 125, before its end"
    assert run_program("import os\nos.write(1, b'not confined: x')").passed


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()",
        "import os\nos.kill(os.getppid(), 9)",
        "import socket\nsocket.socket()",
        "import socket\nsocket.socketpair()",
        "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "open('/tmp/outside', 'w')",
        "import os\nos.listdir('/root')",
        "import os\nos.symlink('/etc/passwd', 'link')\nopen('link').read()",
        "open('big', 'wb').write(bytes(1 << 25))",
        "held = bytearray(1 << 31)",
        "import os\nos.chmod('/tmp', 0o700)",
        "import os\nos.utime('/tmp')",
        "import os\nos.chown('/tmp', 0, 0)",
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os\nos.setsid()",
        "import os\nos.memfd_create('x')",
        "import os\nos.truncate('/etc/hostname', 0)",
        "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 1, 0) == 0",
    ],
)
def test_a_program_reaches_nothing_outside(program: str) -> None:
    outcome = run_program(program, limits=SOON)
    assert not outcome.passed
    assert outcome.why
    assert not Path("/tmp/outside").exists()


@pytest.mark.parametrize(
    "program", ["while True: pass", "import time\ntime.sleep(60)", "import signal\nsignal.pause()", "x = 9 ** 9 ** 9"]
)
def test_a_program_that_goes_on_for_ever_is_ended(program: str) -> None:
    assert run_program(program, limits=Limits(seconds=1)).why == "it took too long"


def test_a_program_may_have_threads_and_a_folder() -> None:
    program = "import threading, pathlib\nt = threading.Thread(target=lambda: pathlib.Path('x').write_text('7'))\n"
    outcome = run_program(program + "t.start(); t.join()\nprint(pathlib.Path('x').read_text())")
    assert (outcome.said, outcome.complained) == ("7\n", "")


def test_a_program_that_prints_without_end_fills_no_disk() -> None:
    outcome = run_program("while True: print('x' * 1000)", limits=Limits(seconds=5, written=1 << 20))
    assert not outcome.passed
    assert len(outcome.said) <= 1 << 16


def test_a_program_may_write_to_nowhere_and_look_at_its_limits() -> None:
    program = "import os, resource\nopen(os.devnull, 'w').write('x')\nresource.getrlimit(resource.RLIMIT_AS)"
    assert run_program(program).passed


def test_no_secret_of_the_environment_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    assert "hush" not in run_program("import os\nprint(dict(os.environ))").said


def test_a_tool_is_given_the_answer_and_its_number_is_the_score(tmp_path: Path) -> None:
    script = tmp_path / "check.py"
    script.write_text("import json, sys\nanswer = json.load(sys.stdin)['text']\nprint(len(answer) / 10)\n")
    how = BestOfN(verifier=Tool(command=(sys.executable, str(script))))
    choice = scaled(how, Answers(["a", "abc", "ab"], samples=3))
    assert (choice.best.text, choice.best.score) == ("abc", 0.3)


def test_a_tool_has_no_network_and_writes_nothing_elsewhere(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}))"
        assert not run_tool([sys.executable, "-c", program], "", limits=SOON).passed
    assert not run_tool(["touch", str(tmp_path / "there")], "", limits=SOON).passed
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [("no-such-tool --x", "is not there: no-such-tool"), ("a 'b", "cannot be read"), ("", "it is empty")],
)
def test_a_tool_that_cannot_start_is_no_verdict(command: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Tool(command=command)


def test_a_tool_may_be_named_by_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "check.py").write_text("print(0.5)\n")
    monkeypatch.chdir(tmp_path)
    choice = scaled(BestOfN(verifier=Tool(command=f"{sys.executable} check.py")), Answers(["a"], samples=1))
    assert choice.best.score == 0.5


def test_what_there_is_no_time_for_is_not_run() -> None:
    verifier = UnitTests(tests="assert True")
    flow = verifier.judge(Context("", left=lambda: -1.0), (Candidate(text="x = 1"),))
    with pytest.raises(StopIteration) as end:
        next(flow)
    (verdict,) = end.value.value
    assert (verdict.accepted, verdict.feedback) == (False, "the budget was spent before it was verified")


def test_what_a_model_prints_is_no_score() -> None:
    tests = UnitTests(tests="assert add(2, 2) == 4")
    forged = "def add(a, b): return 5\nprint(1e9)\nraise SystemExit"
    honest = "def add(a, b): return a + b\nprint(-1)"
    choice = scaled(BestOfN(verifier=tests), Answers([forged, honest], samples=2))
    assert (choice.best.text, choice.best.score) == (honest, 1.0)


def test_what_a_tool_leaves_behind_is_ended(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    alive: list[str] = []
    reader = threading.Thread(target=lambda: alive.append(pipe.read_text()))
    reader.start()
    run_tool(["sh", "-c", f"sleep 60 < {pipe} & exec 3> {pipe}; exit 0"], "", limits=SOON)
    with pipe.open("w"):
        pass
    reader.join(10)
    assert not reader.is_alive()


def test_unit_tests_are_of_the_last_block_or_of_the_prompt_and_the_text() -> None:
    tests = UnitTests(tests="assert add(2, 2) == 4")
    fenced = "First\n```python\ndef add(a, b): return 5\n```\nno:\n```python\ndef add(a, b):\n    return a + b\n```\n"
    choice = scaled(BestOfN(verifier=tests), Answers(["a - b", fenced], samples=2), prompt="def add(a, b): return ")
    assert choice.best.text == fenced
    assert [each.score for each in choice.candidates] == [0.0, 1.0]
    plain = scaled(BestOfN(verifier=tests), Answers(["a - b", "a + b"], samples=2), prompt="def add(a, b): return ")
    assert plain.best.text == "a + b"


def test_json_is_held_to_its_schema() -> None:
    schema = json.dumps({"type": "object", "required": ["x"]})
    choice = scaled(BestOfN(verifier=JsonSchema(schema=schema)), Answers(["{}", "no", '{"x": 1}'], samples=3))
    assert choice.best.text == '{"x": 1}'
    with pytest.raises(OptionError, match="the schema is no JSON"):
        JsonSchema(schema="{")


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match="it must be more than 0"):
        Limits(seconds=0)

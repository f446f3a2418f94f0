"""tests: a vendor's library that ends its process or does not come back is one line; the figures of a comparison."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.apart import ask
from edgewise.errors import TargetError
from edgewise.parity import describe, figures

CHILDREN = {
    "answers": 'import json, sys; print("a line of the library"); print(json.dumps({"got": json.load(sys.stdin)}))',
    "babbles": "import os; os.write(1, b'\\xff\\xfe\\n'); print('3')",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import time; time.sleep(60)",
    "logs": "import sys; sys.exit('\\x1b[1;31m[E:onnxruntime:, file.cc:1 f] no such chip\\x1b[m\\nFail: it did')",
    "raises": "from edgewise.apart import answer; import sys; sys.exit(answer(lambda job: job['absent']))",
}


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in CHILDREN.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("children")
def test_a_child_answers_in_its_last_line() -> None:
    assert ask("answers", {"x": 1}, doing="it", seconds=30) == {"got": {"x": 1}}


@pytest.mark.usefixtures("children")
def test_what_a_library_prints_may_be_no_text() -> None:
    assert ask("babbles", {}, doing="it", seconds=30) == 3


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("crashes", r"the compiler ended the process it ran in \(SIGSEGV\)"),
        ("hangs", r"the compiler took more than 1 s and was ended"),
        ("logs", r"the compiler failed: no such chip"),
        ("raises", r"the compiler failed: KeyError: 'absent'"),
    ],
)
def test_a_child_that_fails_is_one_line(child: str, said: str) -> None:
    with pytest.raises(TargetError, match=f"^{said}$"):
        ask(child, {}, doing="the compiler", seconds=1 if child == "hangs" else 30)


def test_the_figures_are_those_of_their_definitions() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 2, 11)).astype(np.float32)
    scores[:, 1] = scores[:, 0] + 0.1 * scores[:, 1]
    scores[3, 1] = -scores[3, 0]  # another token
    found = figures(scores)
    p, q = (np.exp(side) / np.exp(side).sum(axis=-1, keepdims=True) for side in scores.transpose(1, 0, 2))
    assert found["tokens"] == 5
    assert found["same"] == 3
    assert found["difference"] == pytest.approx(
        np.abs(scores[:, 0] - scores[:, 1]).max() / np.abs(scores[:, 0]).max(), abs=1e-6
    )
    assert found["mean_kld"] == pytest.approx((p * np.log(p / q)).sum(axis=-1).mean(), abs=1e-5)
    assert describe(found)[0].startswith("against the same graphs on a processor: other text from token 4 of 5 on; ")


def test_scores_that_are_equal_differ_by_nothing() -> None:
    scores = np.repeat(np.random.default_rng(0).standard_normal((4, 1, 7)), 2, axis=1)
    assert figures(scores) == {"tokens": 4, "same": 4, "difference": 0.0, "mean_kld": 0.0}

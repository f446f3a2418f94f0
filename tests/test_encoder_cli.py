"""tests: `edgewise embed` and `edgewise classify`, and the example that searches passages."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.cli.main import execute
from edgewise.recipe import Recipe
from edgewise.runtime.encoder import Encoder
from encoding import ENCODERS, TEXTS, packed

SEARCH = Path(__file__).parent.parent / "examples" / "semantic-search"


@pytest.fixture(scope="module")
def bundles(home: Path) -> Path:
    for name in ("sentence", "distilbert", "tokens"):
        packed(ENCODERS / name, home / f"{name}.edge", recipe=Recipe())
    return home


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert execute([str(each) for each in arguments]) == code
    return tuple(capsys.readouterr())  # type: ignore[return-value]


def test_each_text_is_a_line_of_json(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "embed", bundles / "sentence.edge", *TEXTS)
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["text"] for each in found] == list(TEXTS)
    with Encoder.open(bundles / "sentence.edge") as encoder:
        expected = encoder.embed(TEXTS)
    np.testing.assert_array_equal(np.array([each["embedding"] for each in found], np.float32), expected)


def test_an_array_is_written_whole_from_a_file_or_stdin(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    bundle = bundles / "sentence.edge"
    out, err = run(capsys, "embed", bundle, "--file", tmp_path / "texts.txt", "-o", tmp_path / "a.npy")
    assert (out, err) == (f"{tmp_path / 'a.npy'}: 6 vectors of 32 numbers\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    run(capsys, "embed", bundle, "-o", tmp_path / "b.npy")
    assert np.load(tmp_path / "a.npy").dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy", "texts.txt"]


def test_only_the_end_of_a_line_ends_a_text(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_bytes("\ufeffhello\u2028there\r\nthe\x85 cold\x0b\x0c day\n".encode())
    out, _ = run(capsys, "embed", bundles / "sentence.edge", "--file", tmp_path / "texts.txt")
    found = [json.loads(line)["text"] for line in out.rstrip("\n").split("\n")]
    assert found == ["hello\u2028there", "the\x85 cold\x0b\x0c day"]


def test_labels_are_a_table_or_json(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "classify", bundles / "distilbert.edge", "hello there", "i do")
    assert out.splitlines()[0].split() == ["text", "label", "probability"]
    assert len(out.splitlines()) == 3
    out, _ = run(capsys, "classify", bundles / "distilbert.edge", "hello there", "--json")
    (found,) = json.loads(out)
    assert sum(label["probability"] for label in found["labels"]) == pytest.approx(1)
    assert found.keys() == {"text", "labels"}
    out, _ = run(capsys, "classify", bundles / "tokens.edge", "hello there", "--json")
    (found,) = json.loads(out)
    assert [token["text"] for token in found["tokens"]] == ["hello", "there"]
    assert found["spans"][0]["end"] in (5, 11)
    out, _ = run(capsys, "classify", bundles / "tokens.edge", "hello there")
    assert out.splitlines()[0].split() == ["text", "at", "what", "label", "probability"]


def test_a_mistake_is_one_line(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gap.txt").write_text("hello\n\nthere\n", "utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    bundle = bundles / "sentence.edge"
    for arguments, message in (
        (
            ("classify", bundle, "hello"),
            "holds a model for feature-extraction: edgewise embed and",
        ),
        (("run", bundle, "hello"), "which generates no text: edgewise embed and"),
        (("embed", bundle, ""), "text 1 of 1 is empty"),
        (("embed", bundle, "--file", tmp_path / "gap.txt"), "line 2 is empty"),
        (("embed", bundle, "--file", tmp_path / "latin.txt"), "is not UTF-8: byte 3"),
        (("embed", bundle, "--file", tmp_path / "absent.txt"), "absent.txt: No such file"),
        (("embed", bundle, "hello", "--prompt", "query"), "no prompt is named 'query'"),
        (("embed", bundle, "hello", "-o", tmp_path / "absent" / "a.npy"), "No such file"),
        (("eval", bundle, "--text", tmp_path / "gap.txt"), "--against"),
        (("bench", bundle), "which generates no text"),
        (("compare", bundle, bundle, "--target", "cpu-x64", "--text", tmp_path / "gap.txt"), "which generates no text"),
    ):
        _, err = run(capsys, *arguments, code=1)
        assert message in err, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    _, err = run(capsys, "embed", bundle, "hello", "-o", "a.txt", code=2)
    assert "does not end in .npy" in err


def test_inspect_says_what_an_encoder_gives(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "inspect", bundles / "sentence.edge")
    assert "A vector for each text: the mean of its tokens, of length 1" in out
    out, _ = run(capsys, "inspect", bundles / "distilbert.edge")
    assert "For each text one of 3 labels: sad, neutral, glad" in out


def test_a_passage_is_what_is_nearest_to_itself(bundles: Path) -> None:
    passages = (SEARCH / "passages.txt").read_text("utf-8").splitlines()
    assert len(passages) == len(set(passages)) > 100
    command = [sys.executable, str(SEARCH / "search.py"), str(bundles / "sentence.edge"), passages[7]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [passages[7], f"  {passages[7]}"]


def test_each_query_of_the_example_asks_for_one_of_its_passages() -> None:
    passages = (SEARCH / "passages.txt").read_text("utf-8").splitlines()
    for line in (SEARCH / "queries.txt").read_text("utf-8").splitlines():
        query, _, begins = line.partition("\t")
        assert query
        assert sum(passage.startswith(begins) for passage in passages) == 1, begins

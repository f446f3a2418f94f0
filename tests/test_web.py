"""tests: examples/web: a bundle in Node and in Chromium, on WebAssembly, gives the tokens that our runner gives."""

import http.client
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from edgewise import Runner
from edgewise.bundle.read import Bundle
from edgewise.pipeline import build
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

ROOT = Path(__file__).parents[1]
WEB = ROOT / "examples" / "web"
TEXT, COUNT = "def read_json(", 32
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 120  # that a page may take on a busy machine

node = pytest.mark.skipif(not shutil.which("node"), reason="Node is not installed")
packages = pytest.mark.skipif(
    not (WEB / "node_modules").is_dir(), reason="the packages are not installed: npm ci --prefix examples/web"
)
chromium = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")

IN_NODE = """
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { Decoder } from "./decoder.mjs";

const [bundle, count, ...prompt] = process.argv.slice(1);
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1;
const decoder = await Decoder.load(ort, (name) => readFile(`${bundle}/${name}`));
const tokens = [];
for await (const token of decoder.greedy(prompt.map(Number), Number(count))) tokens.push(token);
console.log(JSON.stringify(tokens));
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("web") / "pycoder.edge"
    return build(ROOT / "examples" / "pycoder", target="web-wasm", output=output)


@pytest.fixture(scope="module")
def runner(bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(bundle.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(bundle: Bundle) -> Iterator[str]:
    """Where the server of the example listens."""
    command = ["node", "serve.mjs", str(bundle.path), "0"]
    with subprocess.Popen(command, cwd=WEB, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def in_node(bundle: Bundle, prompt: Sequence[int], count: int) -> list[int]:
    command = ["node", "--input-type=module", "-e", IN_NODE, str(bundle.path), *map(str, [count, *prompt])]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    tokens: list[int] = json.loads(done.stdout)
    return tokens


@node
@packages
def test_tokens_in_node_are_those_of_the_runner(bundle: Bundle, runner: Runner) -> None:
    tokens = in_node(bundle, runner.tokenizer.encode(TEXT), COUNT)
    assert tokens == list(runner.generate(TEXT, max_tokens=COUNT).tokens)


@pytest.mark.slow
@node
@packages
@pytest.mark.parametrize("family", ["mixtral", "olmo2", "phi3", "qwen2", "qwen2_moe", "qwen3"])
def test_other_families_run_in_node_too(family: str, tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint(family, tmp_path / "checkpoint", eos_token_id=1)
    bundle = build(checkpoint, target="web-wasm", output=tmp_path / "model.edge")
    session = Session(Model.load(bundle.path, bundle.manifest), capacity=COUNT)
    tokens = [int(session.prefill([5, 6, 7, 8, 9])[0].argmax())]
    while len(tokens) < 12:
        tokens.append(int(session.decode(tokens[-1])[0].argmax()))
    assert in_node(bundle, [5, 6, 7, 8, 9], len(tokens)) == tokens


@pytest.mark.slow
@node
@packages
@chromium
@pytest.mark.parametrize("way", ["transformers.js", "onnxruntime-web"])
def test_a_page_without_a_network_gives_the_tokens_of_the_runner(address: str, way: str, runner: Runner) -> None:
    said = console(f"{address}?text={TEXT}&count={COUNT}&way={way}")
    expected = runner.generate(TEXT, max_tokens=COUNT)
    assert said["edgewise"].get("tokens") == list(expected.tokens), said
    assert said["edgewise"]["text"] == expected.text
    assert said["origins"] == [address.rstrip("/")]
    assert said["isolated"]


def console(url: str) -> dict[str, Any]:
    """What the page says on its console, in a browser that finds no host but this one."""
    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        command = ["timeout", str(SECONDS), str(CHROMIUM), *flags, url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as browser:
            assert browser.stderr
            lines, found = list[str](), None
            for line in browser.stderr:
                lines.append(line)
                if found := re.search(r'"(\{"edgewise".*\})", source: ', line):
                    break
                if "Uncaught" in line:
                    break
            browser.terminate()
            browser.communicate()
    assert found, "".join(lines)
    said: dict[str, Any] = json.loads(found[1])
    return said


@node
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/bundle/manifest.json", 200),
        ("/page.mjs?text=x", 200),
        ("/bundle/../../../../etc/passwd", 404),
        ("/..%2F..%2Fpyproject.toml", 404),
        ("/bundle", 404),
        ("/nothing", 404),
        ("/%", 404),
    ],
)
def test_the_server_gives_files_of_the_example_and_of_the_bundle(address: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"))
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == status
    if status == 200:
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    connection.close()


@node
def test_the_server_says_how_it_is_called() -> None:
    done = subprocess.run(["node", "serve.mjs"], cwd=WEB, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: node serve.mjs BUNDLE [PORT]\n")


def test_packages_are_pinned_by_their_content() -> None:
    stated = json.loads((WEB / "package.json").read_text("utf-8"))
    locked = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    for name, version in stated["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.-]+)?", version)
        assert locked[f"node_modules/{name}"]["version"] == version
    for name, package in locked.items():
        assert not name or package["integrity"].startswith("sha512-")
        assert "resolved" not in package

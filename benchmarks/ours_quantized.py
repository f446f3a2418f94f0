"""Bundles of edgewise by quantization recipe, each built and calibrated by a process of its own."""

import re
import subprocess
import tempfile
from pathlib import Path

import peer
from build import Cost, run
from candidates import Candidate, Failed, once

from edgewise.bundle.read import Bundle
from edgewise.quality.scorers import lowered

CALIBRATION_TOKENS = 32_768

QUANTIZE = '[[step]]\npass = "quantize"\nmethod = "{}"\nbits = {}\nblock_size = {}\n'
AWQ = '[[step]]\npass = "awq"\nbits = 4\nblock_size = 128\n'
ROTATE = '[[step]]\npass = "rotate"\n'
SMOOTH = '[[step]]\npass = "smoothquant"\n'
W8A8 = '[[step]]\npass = "w8a8"\n'
HEAD = 'rules = [{ role = "lm_head", bits = 8 }, { role = "embedding", bits = 8 }]\n'
RECIPES = {
    **{
        (method, f"int4, {block}"): QUANTIZE.format(method, 4, block)
        for block in (128, 32)
        for method in ("nearest", "grid", "hqq", "gptq")
    },
    ("awq, gptq", "int4, 128"): AWQ + QUANTIZE.format("gptq", 4, 128),
    ("rotate, gptq", "int4, 128"): ROTATE + QUANTIZE.format("gptq", 4, 128),
    ("autoround", "int4, 128"): QUANTIZE.format("autoround", 4, 128),
    ("gptq, lm_head int8", "int4, 128"): QUANTIZE.format("gptq", 4, 128) + HEAD,
    ("nearest", "int8, 128"): QUANTIZE.format("nearest", 8, 128),
    ("w8a8", "int8, row"): W8A8,
    ("smoothquant, w8a8", "int8, row"): SMOOTH + W8A8,
    ("gptq", "int2, 32"): QUANTIZE.format("gptq", 2, 32),
}
FLOAT = '[[step]]\npass = "quantize"\nrules = [{ keep = true }]\n'
MIX = '[[step]]\npass = "mix"\nmax_bytes = {}\nblock_size = {}\n'
MEASURED = ("grid", "gptq", "autoround", "awq", "smoothquant", "mix")  # methods that take a calibration text


def build(name: str, form: str, recipe: str, *, checkpoint: Path, work: Path) -> Candidate | Failed:
    """The bundle of a recipe. A calibration is part of its cost: nothing is taken from an earlier one."""
    output = work / (re.sub(r"\W+", "-", f"{name} {form}") + ".edge")
    file = output.with_suffix(".toml")
    file.write_text(recipe)
    command: list[object] = [peer.here().with_name("edgewise"), "build", checkpoint, "--recipe", file, "-o", output]
    command += ["--force", "--no-load-check"]
    if any(method in name for method in MEASURED):
        text = checkpoint / "calibration.txt"
        command += ["--calibration-text", text, "--calibration-tokens", CALIBRATION_TOKENS]
    try:
        with tempfile.TemporaryDirectory() as cache:
            cost = once(output, lambda: run(command, EDGEWISE_CACHE=cache))
    except subprocess.CalledProcessError as error:
        return Failed.of(f"edgewise {name}", form, error)
    return candidate(f"edgewise {name}", form, output, cost=cost)


def candidate(name: str, form: str, folder: Path, *, cost: Cost | None) -> Candidate:
    """A bundle as a candidate."""
    bundle = Bundle.open(folder)
    stored = sum(file.bytes for path, file in bundle.manifest.files.items() if path.endswith(".onnx_data"))
    return Candidate(
        name,
        form,
        stored,
        cost,
        lambda sequences: lowered(bundle, length=sequences.shape[1]).logits(sequences),
        (peer.here(), "bundle.py", (folder,)),
    )

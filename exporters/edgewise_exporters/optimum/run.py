"""exporters, optimum: runs the other Python: its steps as lines of a log, its end as graphs or as one clear line."""

import json
import logging
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from edgewise.calibration.cache import cache_folder
from edgewise.errors import CheckpointError
from edgewise_exporters.decoder.config import HARMLESS
from edgewise_exporters.optimum.environment import Python, environment
from edgewise_exporters.optimum.workplace import Workplace

logger = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("child.py")
UNREAD = HARMLESS | {  # keys of configurations that older releases have written, and none reads
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "directionality",
    "gradient_checkpointing",
    "masked_softmax_fusion",
    "n_ctx",
    "n_positions",
    "offset_alibi",
    "output_past",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "seq_length",
    "skip_bias_add",
    "skip_bias_add_qkv",
    "tie_weights_",
    "unk_token_id",
}
STEPS = {
    "import": "starts",
    "load": "loads the checkpoint",
    "trace": "traces the model",
    "check": "holds the graph against torch",
}


def run(python: Python, place: Workplace, task: str) -> None:
    """Fill `place.output` with the graphs of the checkpoint. Raises CheckpointError, in one line."""
    request = {
        "checkpoint": str(place.checkpoint),
        "output": str(place.output),
        "task": task,
        "harmless": sorted(UNREAD),
    }
    place.request.write_text(json.dumps(request), "utf-8")
    temporary = dict.fromkeys(("TEMP", "TMP", "TMPDIR"), str(place.temporary))
    variables = environment() | temporary | {"HF_HOME": str(place.path / "home")}
    began = time.monotonic()
    logger.info("optimum: exports for %s with %s", task, python)
    with (
        place.log.open("wb") as log,
        subprocess.Popen(
            [python.path, "-I", CHILD, place.request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
        ) as child,
    ):
        try:
            last = _follow(child)
        except BaseException:
            child.kill()
            raise
    if "done" not in last:
        raise CheckpointError(_problem(last, child.returncode, place))
    if unread := last["done"]["unread"]:
        named = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
        logger.warning("optimum: %d weights of the checkpoint are no part of this model: %s", len(unread), named)
    logger.info(
        "optimum: done in %.0f s; torch and the graph differ by %.1g", time.monotonic() - began, last["done"]["differs"]
    )


def _follow(child: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What the process says last; its steps are logged as they come."""
    last: dict[str, Any] = {}
    assert child.stdout
    for line in child.stdout:
        last = json.loads(line)
        if step := STEPS.get(last.get("stage", "")):
            logger.info("optimum: %s", step)
    child.wait()
    return last


def _problem(last: dict[str, Any], code: int, place: Workplace) -> str:
    if "error" in last:
        return " ".join(str(last["error"]).split())
    kept = cache_folder().with_name("optimum.log")
    shutil.copyfile(place.log, kept)
    if "failed" in last:
        return f"optimum cannot export this checkpoint: {' '.join(last['failed'].split()):.300}; its log: {kept}"
    ended = signal.Signals(-code).name if code < 0 else f"code {code}"
    out_of_memory = " (is there too little memory?)" if ended == "SIGKILL" else ""
    step = STEPS.get(last.get("stage", ""), "starts")
    return f"the Python of optimum ended with {ended}{out_of_memory} where it {step}; its log: {kept}"

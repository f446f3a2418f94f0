"""exporters, optimum: what runs in the other Python: torch, transformers and optimum turn a checkpoint into ONNX.

`python -I child.py REQUEST`, a JSON file; edgewise is not installed there, and nothing of it is imported. It ends where
stdin does. What it has to say goes to stdout, a JSON object a line: `stage`, and at last `done` or `error`. All else is
its log, on stderr.
"""

import gc
import inspect
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OFFLINE = {"FORCE_ONNX_EXTERNAL_DATA": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
FORBIDDEN = {
    "os.exec", "os.posix_spawn", "os.system", "pickle.find_class", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "socket.gethostbyname", "socket.sendmsg", "socket.sendto", "subprocess.Popen",
}  # fmt: skip
parent = sys.stdout
TOLERANCE = 1e-4  # of an output of the graph from torch's, as a part of the largest one above 1
BATCH, LENGTH, LONGEST = 3, 19, 1030  # other sizes than the trace's; past a window, where that is not too long
PAST = 11  # tokens that a decoder takes first
WINDOWS = (
    "attention_chunk_size", "attention_window", "local_attention", "local_radius", "sliding_window", "window_size",
)  # fmt: skip


class Refused(Exception):
    """Something about the checkpoint that the user can mend."""


def main(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load, trace, check; what is exported lies in the output folder."""
    say(stage="import")
    os.environ |= OFFLINE
    import torch
    from optimum.exporters.onnx.convert import onnx_export_from_model

    task, output = request["task"], Path(request["output"])
    say(stage="load")
    model, given, expected = load_and_compute(Path(request["checkpoint"]), task, request["harmless"])
    say(stage="trace")
    model.config.use_cache = task.endswith("-with-past")
    with torch.no_grad():
        onnx_export_from_model(model, output, task=task, do_validation=False, no_post_process=True, preprocessors=[])
    unread = model.unread
    del model
    gc.collect()
    say(stage="check")
    return {"differs": check(output, task, given, expected), "unread": unread}


def load_and_compute(folder: Path, task: str, harmless: list[str]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The model, inputs of it, and what torch makes of these. Raises Refused."""
    import torch
    from optimum.exporters.utils import DisableCompileContextManager

    with DisableCompileContextManager(), torch.no_grad():
        model = load(folder, task, harmless)
        return model, *reference(model, task)


def load(folder: Path, task: str, harmless: list[str]) -> Any:
    """The model in float32; a weight that the checkpoint lacks is NaN, so that it cannot be used and not show."""
    import torch
    import transformers
    from optimum.exporters.tasks import TasksManager

    stated = json.loads((folder / "config.json").read_text("utf-8"))
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    refuse_unread(stated, config, harmless, transformers.__version__)
    if getattr(config, "attention_type", "") == "block_sparse":
        raise Refused("config.json: attention_type is block_sparse: a trace has full attention; write original_full")
    kind = TasksManager.get_model_class_for_task(task, framework="pt", model_type=config.model_type)
    model, found = kind.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True,
        trust_remote_code=False, output_loading_info=True,
    )  # fmt: skip
    for name in found["missing_keys"]:
        model.get_parameter(name).fill_(float("nan"))
    model.missing, model.unread = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if adapters := [name for name in model.unread if "lora_" in name]:
        raise Refused(f"the weight {adapters[0]} is an adapter's, which is to be merged first")
    if task == "text-classification" and model.config.pad_token_id is None:
        raise Refused("config.json states no pad_token_id, which a classifier of padded texts needs")
    return model.eval()


def refuse_unread(stated: Mapping[str, Any], config: Any, harmless: list[str], version: str) -> None:
    """A key that the model's class does not read may change the computation, and would be ignored in silence."""
    known = {*harmless, *config.attribute_map, *type(config)().to_dict()}
    for kind in type(config).__mro__[:-1]:
        known |= set(inspect.signature(kind).parameters)
    for key in sorted(set(stated) - known):
        if stated[key] not in (None, False, 0, "", [], {}):
            raise Refused(
                f"config.json: the key '{key}' is not read by transformers {version} and may change the computation; "
                f"where it does not, leave it out with --ignore-config {key}"
            )


def reference(model: Any, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs, and what torch makes of them: float32 arrays by the names that the graph's outputs have."""
    import torch

    given = inputs(model, task)
    called = inspect.signature(model.forward).parameters
    output = model(**{name: torch.from_numpy(given[name]) for name in given if name in called})
    name = "last_hidden_state" if task == "feature-extraction" else "logits"
    expected = {name: output[name].float().numpy().copy()}
    if not np.isfinite(expected[name]).all():
        lacks = f"; it lacks the weight {model.missing[0]} ({len(model.missing)} in all)" if model.missing else ""
        raise Refused(f"torch computes no numbers for {task} from this checkpoint{lacks}")
    return given, expected


def inputs(model: Any, task: str) -> dict[str, Any]:
    """Random tokens of several lengths; those of a decoder fill the batch."""
    generator = np.random.default_rng(0)
    config = model.config.get_text_config(decoder=False) if hasattr(model.config, "get_text_config") else model.config
    length = min(past_windows(config), LONGEST, getattr(config, "max_position_embeddings", None) or LONGEST)
    unused = {config.pad_token_id, *np.atleast_1d(config.eos_token_id or 0).tolist()}
    words = [token for token in range(config.vocab_size) if token not in unused]
    given = {"input_ids": generator.choice(words, (BATCH, length)), "attention_mask": np.ones((BATCH, length), int)}
    if "with-past" not in task or "text2text" in task:
        for row, kept in enumerate((length, length // 2, 2)):
            given["attention_mask"][row, kept:] = 0
            given["input_ids"][row, kept:] = config.pad_token_id or 0
    if "text2text" in task:
        given["decoder_input_ids"] = generator.choice(words, (BATCH, PAST + 1))
    if getattr(config, "type_vocab_size", 0):
        given["token_type_ids"] = np.zeros((BATCH, length), int)
    return given


def past_windows(config: Any) -> int:
    """A length at which the first token is out of sight of the last."""
    stated = [getattr(config, name, None) for name in WINDOWS]
    widths = [width for value in stated for width in (value if isinstance(value, list) else [value])]
    return max([LENGTH, *(2 * width + 3 for width in widths if isinstance(width, int))])


def check(folder: Path, task: str, given: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest difference between graphs and torch, as a part of the largest number above 1. Refused: too much."""
    (name, wanted), *_ = expected.items()
    if task == "text-generation-with-past":
        found = in_two_steps(Graph(folder / "model.onnx"), given)
    elif task == "text2text-generation-with-past":
        found = translated(folder, given)
    else:
        positions = np.tile(np.arange(given["input_ids"].shape[1]), (BATCH, 1))
        found = Graph(folder / "model.onnx").run({"position_ids": positions, **given})[name]
    if found.shape != wanted.shape:
        raise Refused(f"the exported graph gives {name} {list(found.shape)}, torch {list(wanted.shape)}")
    counts = np.ones(wanted.shape[:2], bool) if name == "logits" else given["attention_mask"].astype(bool)
    if task == "token-classification":
        counts = given["attention_mask"].astype(bool)
    differs = float(np.abs(found - wanted)[counts[: len(wanted)]].max() / max(1, np.abs(wanted).max()))
    if not differs <= TOLERANCE:
        raise Refused(f"the exported graph and torch disagree: {name} differ by {differs:.2g}, above {TOLERANCE:g}")
    return differs


def in_two_steps(graph: "Graph", given: dict[str, Any]) -> Any:
    """Logits of all tokens: the first ones without a past, the others after these."""
    ids, logits, past = given["input_ids"], [], graph.empty_past(BATCH)
    for start, stop in ((0, PAST), (PAST, ids.shape[1])):
        known = {
            "input_ids": ids[:, start:stop],
            "attention_mask": np.ones((BATCH, stop), int),
            "position_ids": np.tile(np.arange(start, stop), (BATCH, 1)),
        }
        given_back = graph.run(known | past)
        logits.append(given_back["logits"])
        past = {name.replace("present", "past_key_values"): array for name, array in given_back.items()}
    return np.concatenate(logits, axis=1)


def translated(folder: Path, given: dict[str, Any]) -> Any:
    """Logits of all tokens of a decoder that reads an encoder: the last one after the others."""
    encoded = Graph(folder / "encoder_model.onnx").run(given)["last_hidden_state"]
    ids, known = given["decoder_input_ids"], {"encoder_attention_mask": given["attention_mask"]}
    known["encoder_hidden_states"] = encoded
    first = Graph(folder / "decoder_model.onnx").run({**known, "input_ids": ids[:, :-1]})
    past = {name.replace("present", "past_key_values"): array for name, array in first.items()}
    step = Graph(folder / "decoder_with_past_model.onnx").run({**known, **past, "input_ids": ids[:, -1:]})
    return np.concatenate([first["logits"], step["logits"]], axis=1)


class Graph:
    """An exported graph in ONNX Runtime; of what it is given it takes what it has inputs for."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        outputs = [value.name for value in self.session.get_outputs()]
        arrays = self.session.run(outputs, {name: given[name] for name in self.inputs})
        return dict(zip(outputs, arrays, strict=True))

    def empty_past(self, batch: int) -> dict[str, Any]:
        """Keys and values of no token."""
        shapes = {name: value.shape for name, value in self.inputs.items() if name.startswith("past_key_values")}
        return {name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: a checkpoint is untrusted, nothing is unpickled or started, and nobody is called."""
    if event in FORBIDDEN:
        raise PermissionError(f"{event} {arguments!r:.80} is not allowed in an export")


def end_with_parent() -> None:
    """The parent holds the other end of stdin for as long as it lives."""
    os.read(0, 1)
    os._exit(1)


def say(**what: Any) -> None:
    print(json.dumps(what), file=parent, flush=True)


if __name__ == "__main__":
    parent = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is part of the log
    sys.addaudithook(forbid)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        say(done=main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
    except Refused as error:
        say(error=str(error))
    except Exception as error:
        import traceback

        traceback.print_exc()
        say(failed=f"{type(error).__name__}: {error}")

"""sdk: the files by which sentence-transformers says how a text becomes a vector: modules.json, and what it names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.options import known

MODULES = "modules.json"
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
LENGTHS = tuple(f"sentence_{kind}_config.json" for kind in KINDS)  # the first that says something
PROMPTS = "config_sentence_transformers.json"

Pooling = Literal["mean", "cls", "last"]
MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
DONE = ("Transformer", "Pooling", "Normalize")  # the modules that an encoder here can be made of


@dataclass(frozen=True)
class Sentence:
    """What the files say; nothing where there are none."""

    max_length: int | None = None
    lower_case: bool = False
    pooling: Pooling | None = None
    normalized: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None


def read_sentence(checkpoint: Checkpoint) -> Sentence:
    """How a checkpoint embeds a text. Raises CheckpointError for a module or a pooling that is not done here."""
    modules = _modules(checkpoint)
    length = next((table for name in LENGTHS if (table := checkpoint.table(name))), {})
    prompts = checkpoint.table(PROMPTS)
    texts = {str(name): str(text) for name, text in (prompts.get("prompts") or {}).items() if text}
    default = prompts.get("default_prompt_name")
    return Sentence(
        max_length=length.get("max_seq_length"),
        lower_case=bool(length.get("do_lower_case")),
        pooling=_pooling(checkpoint, modules["Pooling"]) if "Pooling" in modules else None,
        normalized="Normalize" in modules,
        prompts=texts,
        prompt=str(default) if default in texts else None,
    )


def _modules(checkpoint: Checkpoint) -> dict[str, str]:
    """The kinds of the modules with their folders, in order."""
    found: dict[str, str] = {}
    modules = checkpoint.other(MODULES) or []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{checkpoint.folder / MODULES}: expected a list of modules")
    for module in modules:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind not in DONE or kind in found:
            raise CheckpointError(
                f"{MODULES}: the module '{kind}' is not done here; known, once each: {known(DONE)}. Export the model "
                "without it, and apply it to the vectors"
            )
        found[kind] = str(module.get("path", ""))
    return found


def _pooling(checkpoint: Checkpoint, folder: str) -> Pooling:
    name = f"{folder}/config.json"
    table = checkpoint.table(name)
    if not table:
        raise CheckpointError(f"{checkpoint.folder / name} is missing; {MODULES} names it")
    if table.get("include_prompt") is False:
        raise CheckpointError(f"{name}: include_prompt is false: pooling without the tokens of a prompt is not done")
    modes = [key for key, value in table.items() if key.startswith("pooling_mode") and value is True]
    if len(modes) != 1 or modes[0] not in MODES:
        raise CheckpointError(f"{name}: it asks for {known(modes)}; what is done is one of {known(MODES)}")
    return MODES[modes[0]]

"""sdk: what an encoder is, by the files of its checkpoint: config.json, and those of sentence-transformers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, OptionError
from edgewise.facts import EncoderFacts, EncoderTask
from edgewise.options import known
from edgewise.sentence import Sentence, read_sentence

logger = logging.getLogger(__name__)

SIZES = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size", "dim", "d_model", "n_embd"),
    "layers": ("num_hidden_layers", "n_layers", "num_layers", "n_layer"),
}
POSITIONS = ("max_position_embeddings", "n_positions")
AFTER_PAD = {  # their first position is pad + 1
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "mpnet"),
    *("roberta", "xlm-roberta", "xlm-roberta-xl"),
}
UNLIMITED = 1e15  # transformers writes 1e30 for a tokenizer that knows of no limit
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")

Scores = Literal["softmax", "sigmoid", "none"]
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def encoder_facts(checkpoint: Checkpoint, task: EncoderTask, *, inputs: Sequence[str], output: str) -> EncoderFacts:
    """What an encoder is, whose graph has these inputs and is read at `output`.

    Raises CheckpointError for what the files leave open, or ask for and nobody here does.
    """
    if strange := set(inputs) - set(INPUTS):
        raise CheckpointError(f"the graph has the input '{min(strange)}'; an encoder's are {known(INPUTS)}")
    config, sentence = checkpoint.config, read_sentence(checkpoint)
    sizes = {name: _size(config, keys) for name, keys in SIZES.items()}
    embeds, classifies = task == "feature-extraction", task != "feature-extraction"
    return EncoderFacts(
        task=task,
        model_type=str(config.get("model_type")),
        context_length=_context(checkpoint, sentence),
        output=output,
        inputs=tuple(inputs),
        pad=int(config.get("pad_token_id") or 0),
        pooling=_pooling(sentence) if embeds else None,
        normalized=embeds and sentence.normalized,
        lower_case=sentence.lower_case,
        prompts=sentence.prompts if embeds else {},
        prompt=sentence.prompt if embeds else None,
        labels=_labels(config) if classifies else (),
        scores=_scores(config, task) if classifies else "softmax",
        **sizes,
    )


def refuse_of_decoders(facts: EncoderFacts, asked: Mapping[str, object]) -> None:
    """Raises OptionError for what was asked of a build, by name, and only models that generate text have."""
    if names := [name for name, value in asked.items() if value]:
        raise OptionError(f"{names[0]}: a model for {facts.task} has none; leave it out")


def _size(config: Mapping[str, Any], keys: Sequence[str]) -> int:
    for key in keys:
        if isinstance(value := config.get(key), int):
            return value
    raise CheckpointError(f"config.json has none of {known(keys)}")


def _context(checkpoint: Checkpoint, sentence: Sentence) -> int:
    """Tokens of a text: what sentence-transformers allows, or the tokenizer; never more than there are positions."""
    config = checkpoint.config
    limits = [positions] if (positions := next((config[key] for key in POSITIONS if config.get(key)), 0)) else []
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    if limits and config.get("model_type") in AFTER_PAD and (absolute or config["model_type"] != "esm"):
        limits = [positions - int(config.get("pad_token_id") or 0) - 1]
    stated = sentence.max_length or checkpoint.table("tokenizer_config.json").get("model_max_length")
    if isinstance(stated, int | float) and 0 < stated < UNLIMITED:
        limits.append(int(stated))
    if not limits:
        raise CheckpointError(
            "nothing says how long a text may be: config.json has no max_position_embeddings, tokenizer_config.json no "
            "model_max_length; write one of them"
        )
    return min(limits)


def _pooling(sentence: Sentence) -> Literal["mean", "cls", "last"]:
    if sentence.pooling is None:
        logger.warning("no modules.json says how vectors are pooled: the mean of all tokens is taken")
    return sentence.pooling or "mean"


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order of the scores; those that transformers gives where none are stated."""
    stated = config.get("id2label")
    if not stated:
        return tuple(f"LABEL_{number}" for number in range(int(config.get("num_labels") or 2)))
    by_number = {str(number): str(label) for number, label in stated.items()}
    if set(by_number) != set(map(str, range(len(by_number)))):
        raise CheckpointError(f"config.json: id2label has the numbers {known(by_number)}, which are not 0, 1, 2 ...")
    return tuple(by_number[str(number)] for number in range(len(by_number)))


def _scores(config: Mapping[str, Any], task: EncoderTask) -> Scores:
    """What makes probabilities of logits, as the pipelines of transformers choose it.

    That for tokens knows only softmax; `function_to_apply` is read by none of them where there is a label.
    """
    problem = config.get("problem_type")
    if problem and problem not in PROBLEMS:
        raise CheckpointError(f"config.json: problem_type is {problem!r}; known: {known(PROBLEMS)}")
    if task == "token-classification":
        return "softmax"
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or len(_labels(config)) == 1 else "softmax"

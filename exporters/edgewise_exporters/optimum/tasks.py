"""exporters, optimum: what a checkpoint is for, and whether optimum-onnx 0.1.0 exports models of its type for that."""

from collections.abc import Mapping
from typing import Any

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Refusal
from edgewise.options import known

EMBED, CLASSIFY, TAG = "feature-extraction", "text-classification", "token-classification"
GENERATE, TRANSLATE = "text-generation-with-past", "text2text-generation-with-past"

MOST_LAYERS = 10_000
CLASSES = {  # of transformers, by the end of their names; the first that matches
    "ForSequenceClassification": CLASSIFY,
    "ForTokenClassification": TAG,
    "ForCausalLM": GENERATE,
    "LMHeadModel": GENERATE,
    "ForConditionalGeneration": TRANSLATE,
    "MTModel": TRANSLATE,
    "Model": EMBED,
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENCODERS = _names("""
    albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra esm flaubert ibert
    megatron-bert mobilebert modernbert mpnet nystromformer rembert roberta roformer squeezebert xlm xlm-roberta
""")
DECODERS = _names("""
    arcee bloom codegen cohere deepseek_v3 falcon gemma gemma2 gemma3_text glm gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss
    gptj granite helium llama mistral mpt nemotron olmo olmo2 opt phi phi3 qwen2 qwen3 qwen3_moe smollm3 stablelm
""")
CLASSIFYING_DECODERS = _names("""
    bloom gemma gemma2 gpt2 gpt_bigcode gpt_neo gpt_neox gptj llama mistral mpt opt phi phi3 qwen2 qwen3 qwen3_moe
    smollm3
""")
TAGGING_DECODERS = _names("bloom falcon gpt2 gpt_bigcode mpt qwen2 qwen3_moe")
ENCODER_DECODERS = _names("""
    bart bigbird_pegasus blenderbot blenderbot-small longt5 m2m_100 marian mbart mt5 pegasus t5
""")
TYPES: Mapping[str, frozenset[str]] = {
    EMBED: ENCODERS | DECODERS,
    CLASSIFY: ENCODERS | CLASSIFYING_DECODERS,
    TAG: ENCODERS | TAGGING_DECODERS,
    GENERATE: DECODERS,
    TRANSLATE: ENCODER_DECODERS,
}


def task_of(checkpoint: Checkpoint) -> str | Refusal:
    """The task that the files of a checkpoint state, where models of its type are exported for it."""
    config = checkpoint.config
    kind = str(config.get("model_type"))
    near = any(kind in types for types in TYPES.values())
    if "auto_map" in config:
        advice = f"; transformers knows '{kind}' without it: --ignore-config auto_map" if near else ""
        return Refusal(f"config.json asks for code of the checkpoint (auto_map), which is not run{advice}", near)
    if "quantization_config" in config:
        return Refusal("config.json: weights that are quantized (quantization_config) are not read by optimum", near)
    if key := next((key for key in config if "layer" in key and _is_above(config[key], MOST_LAYERS)), None):
        return Refusal(f"config.json: {key} is {config[key]}; at most {MOST_LAYERS:,} layers are exported", near)
    task = EMBED if checkpoint.other("modules.json") else _stated(config)
    if isinstance(task, Refusal):
        return task if near else Refusal(_unknown(kind))
    if kind not in TYPES[task]:
        return Refusal(
            f"config.json: optimum-onnx 0.1.0 does not export '{kind}' for {task}" if near else _unknown(kind)
        )
    return task


def _stated(config: Mapping[str, Any]) -> str | Refusal:
    """The task by the name of the class that wrote the weights."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    ends = known(f"...{end}" for end in CLASSES)
    if name is None:
        return Refusal(f"config.json has no architectures, which say what the model is for; known: {ends}", near=True)
    for end, task in CLASSES.items():
        if name.endswith(end) and not (task == EMBED and (config.get("is_encoder_decoder") or "Heads" in name)):
            return task
    return Refusal(f"config.json: nothing runs an architecture like '{name:.80}'; known: {ends}", near=True)


def _is_above(value: object, most: int) -> bool:
    return isinstance(value, int) and value > most


def _unknown(kind: str) -> str:
    return f"config.json: optimum-onnx 0.1.0 exports no text model of type '{kind:.80}'"

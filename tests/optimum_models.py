"""tests: tiny random checkpoints of models that optimum exports, and what torch computes with them.

`python optimum_models.py FOLDER NAME=TASK ...` is run by the Python of the bridge: transformers, torch, no edgewise.
Each NAME becomes FOLDER/NAME, a checkpoint, with FOLDER/NAME.npz beside it, and in FOLDER/NAME.onnx, a folder, what the
bridge's own script makes of it; without a task, it is not exported. FOLDER/types.json is what optimum says it exports.
"""

import json
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BFLOAT16 = ("tokens",)
Fast: Any = transformers.PreTrainedTokenizerFast
BRIDGE = Path(__file__).parents[1] / "exporters" / "edgewise_exporters" / "optimum"
HARMLESS = ["architectures", "dtype", "model_type", "seq_length", "torch_dtype", "transformers_version"]
PEAK = 1.6  # of queries and of keys: a query then gives about half of its attention to one key
GREEDY = 32
PROMPT = "hello there, this is"
TEXTS = ("hello there", "a cold day in the north; all is hers", "i do")
WORDS = ("hello", "there", "a", "cold", "day", "in", "the", "north", "all", "is", "i", "do", "##s", "her", ",", ";")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LABELS = {0: "sad", 1: "neutral", 2: "glad"}

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DECODER: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def wordpiece() -> Any:
    """As BERT: words, letters for the others, [CLS] and [SEP] around them."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pieces = dict.fromkeys([*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    library = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return Fast(tokenizer_object=library, model_max_length=64, **dict(zip(names, special, strict=True)))


def bytes_of_text() -> Any:
    """As GPT-2: bytes, a few merges."""
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("\u0120", "t"), ("\u0120t", "he")]
    pieces = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    library = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return Fast(tokenizer_object=library, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def unigram() -> Any:
    """As T5: pieces with a mark for spaces, </s> at the end."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581the", -3.5)]
    library = Tokenizer(models.Unigram([*pieces, *((letter, -3.0) for letter in LETTERS + ",;")], unk_id=2))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return Fast(tokenizer_object=library, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def model(kind: str, config: str, tokenizer: Any, **sizes: Any) -> Any:
    """A model of that class, with random weights."""
    made = getattr(transformers, config)(vocab_size=len(tokenizer), **sizes)
    return getattr(transformers, kind)(made)


BERT = {**SMALL, "max_position_embeddings": 64}
ALBERT = {**BERT, "embedding_size": 16, "num_hidden_layers": 3}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
GPT2 = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 128}
LLAMA = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 3000.0}
OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 128,
    "word_embed_proj_dim": 32,
}
GPT_NEO = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "max_position_embeddings": 128,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 6,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
MODELS: dict[str, tuple[str, str, dict[str, Any], Callable[[], Any]]] = {
    "albert": ("AlbertForTokenClassification", "AlbertConfig", ALBERT | {"id2label": LABELS}, wordpiece),
    "bert": ("BertModel", "BertConfig", BERT, wordpiece),
    "bloom": ("BloomForCausalLM", "BloomConfig", BLOOM | DECODER, bytes_of_text),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        DISTILBERT | {"id2label": LABELS},
        wordpiece,
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2 | DECODER, bytes_of_text),
    "gpt2_sentence": ("GPT2Model", "GPT2Config", GPT2 | DECODER, bytes_of_text),
    "gpt_neo": ("GPTNeoForCausalLM", "GPTNeoConfig", GPT_NEO | DECODER, bytes_of_text),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA | DECODER, bytes_of_text),
    "opt": ("OPTForCausalLM", "OPTConfig", OPT | DECODER, bytes_of_text),
    "sentence": ("BertModel", "BertConfig", BERT, wordpiece),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5, unigram),
    "tokens": ("BertForTokenClassification", "BertConfig", BERT | {"id2label": LABELS}, wordpiece),
}


def make(name: str, folder: Path) -> None:
    """The checkpoint, the same one each time, and beside it what torch computes."""
    kind, config, sizes, tokenizer_of = MODELS[name]
    tokenizer = tokenizer_of()
    network = model(kind, config, tokenizer, **sizes).eval()
    randomize(network)
    if name in BFLOAT16:
        network.bfloat16().save_pretrained(folder / name)
        network.float()
    else:
        network.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    if name == "sentence":
        sentence_files(folder / name)
    with torch.no_grad():
        np.savez(folder / f"{name}.npz", **reference(network, tokenizer))


def randomize(model: torch.nn.Module) -> None:
    """Activations near 1 everywhere; queries and keys larger, so that attention is peaked."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name.lower() or ".ln_" in name:
                weight.add_(0.2 * noise)
            elif name.endswith("bias"):
                weight.copy_(0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name or "shared" in name:
                weight.copy_(noise)
            else:
                peaked = any(part in name for part in ("query", "key", "q_", "k_", ".q.", ".k.", "c_attn"))
                weight.copy_(noise * (PEAK if peaked else 1) / weight.shape[-1] ** 0.5)


def sentence_files(folder: Path) -> None:
    """What sentence-transformers adds to a checkpoint: mean pooling, then vectors of length 1."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def reference(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Of texts of different lengths, padded on the right: what the model gives; of a decoder its greedy text too."""
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        decoder_ids = torch.tensor([[0, 5, 6, 7]] * len(TEXTS))
        given = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids)
        found |= {"decoder_input_ids": decoder_ids, "encoder": given.encoder_last_hidden_state, "logits": given.logits}
    else:
        given = model(input_ids=ids, attention_mask=mask)
        found |= {"logits": given.logits} if "logits" in given else {"hidden": given.last_hidden_state}
    if model.can_generate():
        prompt = tokenizer(PROMPT, return_tensors="pt")
        chosen = model.generate(
            prompt["input_ids"], attention_mask=prompt["attention_mask"],
            max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False,
        )  # fmt: skip
        found |= {"prompt": prompt["input_ids"], "greedy": chosen}
    return found


def types() -> dict[str, list[str]]:
    """The types of models that optimum exports, by task."""
    from optimum.exporters.tasks import TasksManager

    found: dict[str, list[str]] = {}
    for kind, exporters in TasksManager._LIBRARY_TO_SUPPORTED_MODEL_TYPES["transformers"].items():
        for task in exporters.get("onnx", ()):
            found.setdefault(task, []).append(kind)
    return found


def bridge() -> Any:
    """The bridge's script, as a module."""
    sys.path.insert(0, str(BRIDGE))
    return import_module("child")


def export(checkpoint: Path, output: Path, task: str) -> None:
    """As the bridge does it, in this process."""
    request = {"checkpoint": str(checkpoint), "output": str(output), "task": task, "harmless": HARMLESS}
    output.mkdir()
    bridge().main(request)


def refusals(folder: Path) -> dict[str, str]:
    """What the bridge's script says of checkpoints, and of a graph, that something is wrong with."""
    child, said = bridge(), {}

    def refuse(name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except child.Refused as error:
            said[name] = str(error)

    for name, change, task in (
        ("weight", {}, "token-classification"),
        ("key", {"scores_scale": 2.0}, "feature-extraction"),
        ("sparse", {"model_type": "big_bird", "position_embedding_type": None}, "feature-extraction"),
        ("padding", {"pad_token_id": None, "num_labels": 2}, "text-classification"),
    ):
        shutil.copytree(folder / "sentence", folder / name)
        config = json.loads((folder / name / "config.json").read_text()) | change
        (folder / name / "config.json").write_text(json.dumps(config))
        refuse(name, lambda: child.load_and_compute(folder / name, task, HARMLESS))  # noqa: B023
    _, given, expected = child.load_and_compute(folder / "distilbert", "text-classification", HARMLESS)
    expected["logits"][0, 0] += 0.01
    refuse("check", lambda: child.check(folder / "distilbert.onnx", "text-classification", given, expected))
    return said


if __name__ == "__main__":
    folder, *wanted = sys.argv[1:]
    for each in wanted:
        name, _, task = each.partition("=")
        make(name, Path(folder))
        if task:
            export(Path(folder, name), Path(folder, f"{name}.onnx"), task)
    Path(folder, "types.json").write_text(json.dumps(types()))
    if {"sentence", "distilbert"} <= {each.partition("=")[0] for each in wanted}:
        Path(folder, "refusals.json").write_text(json.dumps(refusals(Path(folder))))

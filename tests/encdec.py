"""tests: tiny random encoder-decoders of the T5 kind, written by transformers, whose answers follow their source."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, processors

VOCABULARY = 160
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SOURCE = "how are you doing today my friend"

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
    "n_positions": 96,
    "layer_norm_epsilon": 3e-5,
}

KINDS: dict[str, dict[str, Any]] = {
    "t5": {},
    "flan": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "silu": {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3},
}


def encoder_decoder(kind: str, folder: Path, **overrides: Any) -> Any:
    """A checkpoint with a tokenizer in `folder`, the same one each time, and its model in transformers."""
    config = transformers.T5Config(**{**COMMON, **KINDS[kind], **overrides})
    model: Any = transformers.T5ForConditionalGeneration(config)
    model.eval()
    if not config.scale_decoder_outputs:  # as Flan-T5, which has an lm_head of its own
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, config.d_model))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(_scaled(name, weight, noise, tied=config.scale_decoder_outputs))
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return model


def _scaled(name: str, weight: torch.Tensor, noise: torch.Tensor, *, tied: bool) -> torch.Tensor:
    """Activations near 1, distances and the source of weight; a tied embedding small, or it answers with itself."""
    if "layer_norm" in name:
        return weight + 0.2 * noise
    if "relative" in name:
        return noise
    if name == "shared.weight":
        return noise * (0.03 if tied else 1.0)
    peaked = 1.3 if name.endswith(("q.weight", "k.weight")) else 1.0
    scaled: torch.Tensor = noise * peaked * weight.shape[1] ** (-0.4 if "q.weight" in name else -0.5)
    return scaled


def tokenizer() -> Library:
    """A unigram model with marks for spaces; a text ends with </s>, as in T5."""
    pairs = [a + b for a in LETTERS for b in "aeiou"]
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *LETTERS, ":", *pairs][:VOCABULARY]
    library = Library(models.Unigram([(piece, -float(len(piece) < 2)) for piece in pieces], unk_id=2))
    library.add_special_tokens(["<pad>", "</s>"])
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return library


def greedy(model: Any, source: list[int], limit: int) -> list[int]:
    """The most probable answer by transformers, without a cache: all of it again for each token."""
    answer = [0]
    with torch.no_grad():
        for _ in range(limit):
            logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([answer])).logits
            answer.append(int(logits[0, -1].argmax()))
            if answer[-1] == 1:
                break
    return [token for token in answer[1:] if token != 1]

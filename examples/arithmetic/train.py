"""Trains a small character-level model on written arithmetic, and writes it as a Hugging Face checkpoint.

    python examples/arithmetic/train.py small
    python examples/arithmetic/train.py large

Takes torch and transformers. Loss is on the steps alone; a problem that is for tests is never seen.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from problems import problems, solution, value

CHARACTERS = "\n*+=0123456789"
PAD, BOS, EOS = 0, 1, 2
SHAPES = {
    "small": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
    "large": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
}
BATCH = 64
STEPS, WARMUP = 3000, 100
RATES = {"matrices": 0.02, "rest": 3e-3}  # of Muon and of AdamW
IGNORED = -100
HERE = Path(__file__).parent


def config(size: str) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=3 + len(CHARACTERS),
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **SHAPES[size],
    )


def encode(text: str) -> list[int]:
    return [3 + CHARACTERS.index(character) for character in text]


def batches(seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels, `[BATCH, longest]`; labels are of the steps and the end alone."""
    rng, source = random.Random(seed), problems(seed, tests=False)
    while True:
        rows = [(encode(f"{text}\n"), encode(solution(text, rng))) for text in islice(source, BATCH)]
        longest = max(len(asked) + len(steps) for asked, steps in rows) + 2
        tokens = torch.full((BATCH, longest), PAD)
        labels = torch.full((BATCH, longest), IGNORED)
        for i, (asked, steps) in enumerate(rows):
            row = torch.tensor([BOS, *asked, *steps, EOS])
            tokens[i, : len(row)] = row
            labels[i, len(asked) + 1 : len(row)] = row[len(asked) + 1 :]
        yield tokens, labels


def train(model: LlamaForCausalLM, steps: int, seed: int) -> None:
    """Muon for the matrices of the layers and AdamW for the rest, after a warm-up, falling like a cosine."""
    matrices = [each for name, each in model.named_parameters() if each.ndim == 2 and "layers" in name]
    rest = [each for name, each in model.named_parameters() if each.ndim != 2 or "layers" not in name]
    optimizers = {
        "matrices": torch.optim.Muon(matrices, lr=RATES["matrices"], weight_decay=0.01),
        "rest": torch.optim.AdamW(rest, lr=RATES["rest"], weight_decay=0.01),
    }
    losses, started = [], time.perf_counter()
    for step, (tokens, labels) in enumerate(islice(batches(seed), steps)):
        share = min(1, (step + 1) / WARMUP) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        loss = model(input_ids=tokens, attention_mask=(tokens != PAD).long(), labels=labels).loss
        loss.backward()
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = RATES[name] * share
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            seconds = time.perf_counter() - started
            print(f"step {step + 1} of {steps}: loss {sum(losses[-100:]) / 100:.3f}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, count: int = 200) -> float:
    """How many held-out problems greedy decoding solves."""
    right = 0
    for text in islice(problems(1, tests=True), count):
        asked = torch.tensor([[BOS, *encode(f"{text}\n")]])
        tokens = model.generate(asked, max_new_tokens=120, do_sample=False)[0, asked.shape[1] :].tolist()
        answer = "".join(CHARACTERS[token - 3] for token in tokens if token > EOS).rpartition("=")[2]
        right += answer == str(value(text))
    return right / count


def write(model: LlamaForCausalLM, folder: Path) -> None:
    """Weights in float16, and a tokenizer of characters."""
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, **{c: 3 + i for i, c in enumerate(CHARACTERS)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    model.generation_config.update(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.half().save_pretrained(folder)
    wrapped.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=sorted(SHAPES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(config(options.size))
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters")
    train(model, options.steps, options.seed)
    print(f"greedy solves {accuracy(model.eval()):.1%} of held-out problems")
    write(model, options.output or HERE / options.size)


if __name__ == "__main__":
    main()

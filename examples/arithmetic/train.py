"""Trains a small character-level model on written arithmetic, and writes it as a Hugging Face checkpoint.

    python examples/arithmetic/train.py small
    python examples/arithmetic/train.py large

Takes torch and transformers. Loss is on the steps alone; a problem that is for tests is never seen. Each is trained
until greedy decoding solves so many of other problems, so that there is something left for more compute to win.
"""

import argparse
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from problems import problems, solution, value

CHARACTERS = "\n*+=0123456789"
PAD, BOS, EOS = 0, 1, 2
TOKENS = 140  # of an answer at most
SHAPES = {
    "small": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
    "large": {"hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 3, "num_attention_heads": 6},
}
GOALS = {"small": 0.4, "large": 0.66}
BATCH, WARMUP = 64, 100
RATES = {"matrices": 0.02, "rest": 3e-3}  # of Muon and of AdamW
DECAY = 0.98  # of the average of weights, which is what is written
EVERY = 25  # steps between looks at how many it solves
LOOK = 200  # problems of a look
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


def train(model: LlamaForCausalLM, goal: float, seed: int) -> LlamaForCausalLM:
    """Muon for the matrices of the layers and AdamW for the rest; the average of the weights of late."""
    matrices = [each for name, each in model.named_parameters() if each.ndim == 2 and "layers" in name]
    rest = [each for name, each in model.named_parameters() if each.ndim != 2 or "layers" not in name]
    optimizers = {
        "matrices": torch.optim.Muon(matrices, lr=RATES["matrices"], weight_decay=0.01),
        "rest": torch.optim.AdamW(rest, lr=RATES["rest"], weight_decay=0.01),
    }
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    losses, started = [], time.perf_counter()
    for step, (tokens, labels) in enumerate(batches(seed), 1):
        loss = model(input_ids=tokens, attention_mask=(tokens != PAD).long(), labels=labels).loss
        loss.backward()
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = RATES[name] * min(1, step / WARMUP)
            optimizer.step()
            optimizer.zero_grad()
        average.update_parameters(model)
        losses.append(loss.item())
        if step % EVERY == 0:
            solved = accuracy(average.module, problems(seed + 1, tests=False))
            mean, seconds = sum(losses[-EVERY:]) / EVERY, time.perf_counter() - started
            print(f"step {step}: loss {mean:.3f}, solves {solved:.1%}, {seconds:.0f} s", flush=True)
            if solved >= goal:
                break
    return average.module


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, source: Iterator[str], count: int = LOOK) -> float:
    """The share of problems that greedy decoding solves."""
    asked = list(islice(source, count))
    rows = [[BOS, *encode(f"{text}\n")] for text in asked]
    longest = max(map(len, rows))
    tokens = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    found = model.generate(tokens, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False)[:, longest:].tolist()
    answers = ("".join(CHARACTERS[t - 3] for t in row if t > EOS).rpartition("=")[2] for row in found)
    return sum(answer == str(value(text)) for answer, text in zip(answers, asked, strict=True)) / count


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
    parser.add_argument("--goal", type=float, help="stop once so many are solved, from 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(config(options.size))
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters")
    goal = GOALS[options.size] if options.goal is None else options.goal
    model = train(model, goal, options.seed)
    print(f"greedy solves {accuracy(model, problems(1, tests=True), 500):.1%} of 500 held-out problems")
    write(model, options.output or HERE / options.size)


if __name__ == "__main__":
    main()

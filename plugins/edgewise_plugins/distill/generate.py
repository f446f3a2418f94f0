"""plugins, distill: text that a model writes, in torch: what a student learns from beside what people wrote."""

import numpy as np
import torch

from edgewise_plugins.distill.executor import Executor

Tensor = torch.Tensor

KINDS = ("key", "value")  # of a cache


@torch.no_grad()
def write(executor: Executor, prompts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Prompts `[sequences, tokens]`, each gone on from to `length` tokens, drawn by their probabilities.

    A text that ends is followed by another one, as the model was trained.
    """
    caches = {f"present.{i}.{kind}": f"past_key_values.{i}.{kind}" for i in range(executor.layers) for kind in KINDS}
    text, said = prompts, executor(prompts, ("logits", *caches))
    while text.shape[1] < length:
        chances = said["logits"][:, -1].float().softmax(dim=-1)
        text = torch.cat([text, torch.multinomial(chances, 1, generator=generator)], dim=1)
        given = {caches[name]: said[name] for name in caches}
        given |= {
            "attention_mask": torch.ones_like(text),
            "position_ids": torch.full_like(text[:, :1], text.shape[1] - 1),
        }
        if text.shape[1] < length:
            said = executor(text[:, -1:], ("logits", *caches), given)
    return text


def generator(device: str, *seeds: int) -> torch.Generator:
    """Draws that follow from these numbers alone."""
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

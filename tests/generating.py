"""tests: a tiny checkpoint in transformers: what its `generate` gives, and the same scores for a search of ours."""

from pathlib import Path
from typing import Any

import torch
import transformers

from edgewise.search.protocol import FloatArray
from tiny import VOCABULARY, checkpoint

PROMPT = (5, 17, 80)
LIMIT = 10  # new tokens
ENDS = {"never": (), "rarely": (7,), "often": tuple(range(1, VOCABULARY, 9))}  # token 0 pads


class Tiny:
    """A llama with random weights, in one thread: faster than two for it."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint("llama", folder), dtype=torch.float32
        )
        self._known: dict[tuple[int, ...], FloatArray] = {}

    def scores(self, text: tuple[int, ...]) -> FloatArray:
        """Of the token after a text."""
        if text not in self._known:
            with torch.no_grad():
                self._known[text] = self.model(torch.tensor([text])).logits[0, -1].numpy()
        return self._known[text]

    def generate(self, eos: tuple[int, ...], **options: Any) -> list[tuple[tuple[int, ...], float]]:
        """Sequences and their scores, without what ends or pads them."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        out = self.model.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
            max_new_tokens=LIMIT,
            eos_token_id=list(eos) or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        torch.set_num_threads(threads)
        texts = [tuple(row[len(PROMPT) :].tolist()) for row in out.sequences]
        ends = [next((i for i, token in enumerate(text) if token in (*eos, 0)), LIMIT) for text in texts]
        return [
            (text[:end], score) for text, end, score in zip(texts, ends, out.sequences_scores.tolist(), strict=True)
        ]

"""transformers on a GPU in float16, timed on request: "PREFILL DECODE SEED" on stdin gives seconds on stdout."""

import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM


@torch.inference_mode()
def measure(model: Any, rows: int, prompt: int, new: int, seed: int) -> tuple[float, float]:
    """Seconds for the prompts of all rows at once, and for `new` tokens of each row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.config.vocab_size, (rows, prompt), generator=generator).cuda()
    torch.cuda.synchronize()
    start = time.perf_counter()
    found = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    torch.cuda.synchronize()
    middle = time.perf_counter()
    for _ in range(new):
        token = found.logits[:, -1:].argmax(-1)
        found = model(input_ids=token, past_key_values=found.past_key_values, use_cache=True)
    torch.cuda.synchronize()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    checkpoint, rows = sys.argv[1], int(sys.argv[2])
    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float16)
    model = loaded.cuda().eval()
    print("ready", flush=True)
    for line in sys.stdin:
        print(*measure(model, rows, *map(int, line.split())), flush=True)


if __name__ == "__main__":
    main()

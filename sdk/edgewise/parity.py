"""sdk: what an accelerator, or its emulator, computes, held against the same graphs on this machine's processor.

`python -m edgewise.parity` is the child that runs both.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.apart import answer, ask
from edgewise.errors import GenerationError

SECONDS = 7200
PROMPT = 64  # tokens at most: enough for every tile of a compiled graph to be at work
SAMPLE = """\
def mean(values):
    \"\"\"The arithmetic mean of some numbers.\"\"\"
    return sum(values) / len(values)


def variance(values):
    \"\"\"How far numbers are spread out: the mean of the squared distances from their mean.\"\"\"
    middle = mean(values)
    return mean([(value - middle) ** 2 for value in values])


def median(values):
    """
DIGITS = 6  # of the figures on a card


def compare(folder: Path, *, tokens: int) -> dict[str, float | int]:
    """How the graphs of a bundle that is not compiled yet do on its providers; the text is what the processor writes.

    `tokens` of greedy text were scored, the first `same` of them are what the accelerator would have written too. Of
    all scores, `difference` is the largest one, as a share of the largest score; `mean_kld` is the divergence of the
    accelerator's distributions from the processor's, in nats. Raises TargetError where they cannot be run.
    """
    job = {"folder": str(folder), "tokens": tokens}
    found: dict[str, float | int] = ask("edgewise.parity", job, doing=f"{tokens} tokens", seconds=SECONDS)
    return found


def _compare(job: dict[str, Any]) -> dict[str, float | int]:
    from edgewise.bundle.manifest import CPU
    from edgewise.bundle.read import Bundle
    from edgewise.runtime.model import Model
    from edgewise.runtime.session import Session

    folder, tokens = Path(job["folder"]), int(job["tokens"])
    manifest = Bundle.open(folder, verify=False).manifest
    room = min(PROMPT, manifest.context - tokens)
    if room < 1:
        raise GenerationError(f"{tokens} tokens after a prompt do not fit a context of {manifest.context}")
    prompt = _prompt(folder, manifest.language_model.vocab_size)[-room:]
    sessions = [
        Session(Model.load(folder, replace(manifest, providers=providers)), capacity=manifest.context)
        for providers in ((CPU,), manifest.providers)
    ]
    pieces, scores = prompt, list[np.ndarray]()
    for _ in range(tokens):
        pair = np.stack([session.prefill(pieces)[-1] for session in sessions])
        scores.append(pair)
        pieces = [int(pair[0].argmax())]
    return figures(np.stack(scores))


def figures(scores: np.ndarray) -> dict[str, float | int]:
    """Of `[tokens, 2, vocabulary]`: the processor's scores, and the accelerator's."""
    cpu, other = scores[:, 0].astype(np.float64), scores[:, 1].astype(np.float64)
    agree = cpu.argmax(axis=-1) == other.argmax(axis=-1)
    logs = [values - _log_sum(values) for values in (cpu, other)]
    kld = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=-1)
    return {
        "tokens": len(agree),
        "same": len(agree) if agree.all() else int(agree.argmin()),
        "difference": round(float(np.abs(cpu - other).max() / np.abs(cpu).max()), DIGITS),
        "mean_kld": round(float(kld.mean()), DIGITS),
    }


def describe(found: Mapping[str, Any]) -> list[str]:
    """The figures in a sentence, for the card."""
    same, tokens = found["same"], found["tokens"]
    text = f"the same {tokens} tokens" if same == tokens else f"other text from token {same + 1} of {tokens} on"
    return [
        f"against the same graphs on a processor: {text}; scores differ by {found['difference']:.2%} of the largest "
        f"at most, KL divergence {found['mean_kld']:.2g} in the mean"
    ]


def _log_sum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=-1, keepdims=True)
    total: np.ndarray = largest + np.log(np.exp(values - largest).sum(axis=-1, keepdims=True))
    return total


def _prompt(folder: Path, vocabulary: int) -> list[int]:
    """A text that stands for any; without a tokenizer, the first tokens."""
    if not (folder / "tokenizer.json").exists():
        return [number % vocabulary for number in range(PROMPT)]
    from edgewise.text.tokenizer import Tokenizer

    return list(Tokenizer.load(folder).encode(SAMPLE))


if __name__ == "__main__":
    sys.exit(answer(_compare))

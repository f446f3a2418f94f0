"""sdk, scaling: what a classifier says of a text, as a candidate: its labels are as tokens that might come next."""

import numpy as np

from edgewise.errors import OptionError
from edgewise.runtime.encoder import Encoder
from edgewise.scaling.protocol import Candidate
from edgewise.search.protocol import LogProb


def labelled(encoder: Encoder, text: str, model: int) -> Candidate:
    """The most probable label, with the log-probabilities of all; a score that is no probability counts as a logit.

    Raises OptionError for an encoder that gives no labels of whole texts, and what `Encoder.probabilities` raises.
    """
    facts = encoder.facts
    if facts.task != "text-classification":
        raise OptionError(f"model {model} is for {facts.task}; a verifier takes a bundle for text-classification")
    scores = encoder.probabilities([text])[0].astype(np.float64)
    with np.errstate(divide="ignore"):
        logs = -np.logaddexp(0, -scores) if facts.scores == "none" else np.log(scores)
    top = tuple((int(label), float(logs[label])) for label in np.argsort(-logs, kind="stable"))
    best, logprob = top[0]
    return Candidate(text=facts.labels[best], tokens=(best,), logprobs=(LogProb(best, logprob, top),), model=model)

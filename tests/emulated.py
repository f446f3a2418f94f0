"""tests: what there is of a Snapdragon on x86-64: Qualcomm's compiler, and an emulator of its accelerator."""

from dataclasses import replace

import numpy as np

import parity
from edgewise.bundle.read import Bundle
from edgewise.registry import registry
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.target import Target

# Floats are float16 on the accelerator, and attention in these models is peaked, which makes more of each rounding. The
# worst that was measured is olmo2, whose norms come after the blocks: 1.01 %.
FLOAT16 = 0.015  # of the largest score


def chip(name: str) -> Target:
    """The target of that name, but for its graphs, which do not share a binary: the emulator loads none that is."""
    target = registry().get_target(name)
    assert target.compile
    return replace(target, compile=replace(target.compile, share_weights=False))


def scores(bundle: Bundle, tokens: parity.Tokens, prompt: int) -> parity.Logits:
    """From the end of a prompt on, those after each token: `[len(tokens) - prompt + 1, vocabulary]`."""
    session = Session(Model.load(bundle.path, bundle.manifest), capacity=len(tokens))
    found = [session.prefill(tokens[:prompt].tolist())[-1].copy()]
    found += [session.decode(int(token))[-1].copy() for token in tokens[prompt:]]
    return np.stack(found)

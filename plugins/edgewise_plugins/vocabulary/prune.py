"""plugins, vocabulary: the pass: tokens that a text does not need are taken out of a model and its tokenizer."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.texts import passages
from edgewise.checkpoint import CONFIG, GENERATION
from edgewise.companions import Companions
from edgewise.errors import GraphError, OptionError
from edgewise.graph import get_facts, remark
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.text.tokenizer import FILE_NAME
from edgewise_plugins.prune.parts import check_multiple
from edgewise_plugins.vocabulary.choose import Vocabulary
from edgewise_plugins.vocabulary.rewrite import named, renumbered, tokenizer_with
from edgewise_plugins.vocabulary.rows import keep_tokens, kept_mass, refuse_quantized
from edgewise_plugins.vocabulary.templates import template_texts

logger = logging.getLogger(__name__)

TOKENS = 4096  # of the calibration text, on which the probability of what stays is measured
CONFIGS = (CONFIG, GENERATION, "tokenizer_config.json")


@dataclass(frozen=True)
class PruneVocabulary(Pass):
    """Removes tokens that a text does not use from the embedding, the lm_head and the tokenizer.

    The text is `text`, a file or a folder, all of it; without one, the calibration text. What spells any other text
    stays (bytes, or characters), and so do control tokens and those that the configurations name: every text can be
    written and read as before, in more tokens where it is unlike the one given. The number of tokens is rounded up to
    a multiple of `multiple`. Comes before `quantize`.
    """

    name: ClassVar[str] = "prune-vocabulary"

    text: str = ""
    multiple: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_multiple(self.multiple)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        context, before = context_of(model), get_facts(model).vocab_size
        if (companions := context.companions) is None:
            raise GraphError("pass 'prune-vocabulary' has no tokenizer: it is a step of a recipe, in a build")
        refuse_quantized(model)
        path = self._path(model)
        vocabulary = Vocabulary(companions.tokenizer(needed_by=f"text {path}"), before)
        seen = vocabulary.seen(passages(path))
        if not seen - vocabulary.tokenizer.control.keys():
            raise OptionError(f"text {path} is empty: every token would go that is not needed to spell")
        seen |= vocabulary.seen(template_texts(companions))
        configs = {name: companions.table(name) for name in CONFIGS if name in companions.names}
        kept = vocabulary.choose(seen, set().union(*map(named, configs.values())), multiple=self.multiple)
        said = f"{len(kept):,} of {before:,} tokens are left{self._worth(model, kept)}"
        remark(model, "vocabulary", said)
        logger.info("prune-vocabulary: %s", said)
        _rewrite(companions, vocabulary, kept)
        keep_tokens(model, kept)
        if context.reference is not None:
            keep_tokens(context.reference, kept)
        if context.calibration:
            context.calibration.read_with(companions.tokenizer(needed_by="the calibration text"))
        return ir.passes.PassResult(model, modified=len(kept) < before)

    def _path(self, model: ir.Model) -> Path:
        if self.text:
            return Path(self.text)
        calibration = calibration_of(model, needed_by="pass 'prune-vocabulary' without a text of its own")
        calibration.used = True
        return calibration.text.path

    def _worth(self, model: ir.Model, kept: np.ndarray) -> str:
        """What the tokens that stay are worth, for the end of a sentence, where there is a text to measure it on."""
        context = context_of(model)
        if (calibration := context.calibration) is None:
            return ""
        calibration.expect_statistics(model, tokens=TOKENS)
        if context.dry:
            return ""
        mass = kept_mass(model, calibration.part(TOKENS), kept, context=calibration.context)
        return f", which had {mass:.2%} of the probability on {calibration.text.path.name}"


def _rewrite(companions: Companions, vocabulary: Vocabulary, kept: np.ndarray) -> None:
    """Number the tokens anew, in the tokenizer and in every configuration that names some."""
    tokens = kept.tolist()
    numbers = {old: new for new, old in enumerate(tokens)}
    companions.put(FILE_NAME, tokenizer_with(vocabulary, tokens, companions.read(FILE_NAME)))
    for name in CONFIGS:
        if name in companions.names:
            config = renumbered(companions.table(name), numbers.__getitem__)
            if "vocab_size" in config:
                config["vocab_size"] = len(kept)
            companions.put(name, json.dumps(config, indent=2, sort_keys=True) + "\n")

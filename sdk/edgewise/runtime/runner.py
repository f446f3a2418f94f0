"""sdk, runtime: a bundle that answers: text in, text out."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Self, Unpack

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError
from edgewise.facts import Facts
from edgewise.runtime.asked import ask
from edgewise.runtime.defaults import default_processors, default_search, eos_tokens, read_generation_config
from edgewise.runtime.drive import Steps
from edgewise.runtime.generation import Options, check_open
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.prefix import LIMIT, PrefixCache
from edgewise.runtime.prompt import encode, read_source, whole
from edgewise.runtime.result import Result
from edgewise.runtime.rows import Rows
from edgewise.runtime.scheduler import SLOTS, Scheduler
from edgewise.runtime.score import Score, score
from edgewise.runtime.session import Session
from edgewise.runtime.source import Sources
from edgewise.runtime.stream import Pieces, Stream
from edgewise.search.protocol import Processor, Search
from edgewise.text.chat import ChatTemplate, Message
from edgewise.text.reasoning import Spans, Tags, tags_of, thinks_at_end
from edgewise.text.tokenizer import Tokenizer


class Runner:
    """A bundle, open: `generate`, `stream` and `chat`. Close it, or use it in a `with`, to give its memory back.

    Generations are independent of each other; each has its own cache, sized by its prompt and `max_tokens`. Several
    may be under way at once, also in several threads, a thread at a time for each.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        template: ChatTemplate | None = None,
        config: Mapping[str, Any] | None = None,
        name: str = "bundle",
        load_s: float = 0.0,
        prefix_cache: int = LIMIT,
    ) -> None:
        self.tokenizer = tokenizer
        self._model: Model | None = model
        self._prefixes: PrefixCache | None = PrefixCache(model, limit=prefix_cache)
        self._sources = Sources(model, limit=prefix_cache)
        self._template = template
        self._config = dict(config or {})
        self._name = name
        self.load_s = load_s

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        verify: bool = True,
        context: int | None = None,
        prefix_cache: int = LIMIT,
        trusted: bool = True,
    ) -> "Runner":
        """The runner of a bundle. `threads`: as many as physical cores, unless it is given.

        `context` bounds the prompt and the answer together: what the bundle was built for, unless it is given.
        Models whose rotary table follows the context (dynamic, longrope) take the table of that context.
        `prefix_cache`: bytes for the keys and values of earlier prompts; what a prompt has in common with one of them,
        from the beginning on, is not computed again. The output is the same; 0 is for none.
        `trusted`: whether the bundle's chat template, a program, may run in this process; otherwise it gets one of its
        own, with bounds of time and memory.
        """
        check_open(threads=threads, context=context, prefix_cache=prefix_cache)
        started = time.perf_counter()
        bundle = Bundle.open(path, verify=verify)
        tokenizer = Tokenizer.load(bundle.path)
        return cls(
            Model.load(bundle.path, bundle.manifest, threads=threads, context=context),
            tokenizer,
            template=ChatTemplate.load(bundle.path, tokenizer, trusted=trusted),
            config=read_generation_config(bundle.path),
            name=str(bundle.path),
            load_s=time.perf_counter() - started,
            prefix_cache=prefix_cache,
        )

    @property
    def model(self) -> Model:
        """What computes scores, with the facts about it and its context."""
        if self._model is None:
            raise GenerationError(f"the runner of {self._name} is closed")
        return self._model

    @property
    def facts(self) -> Facts:
        """What the model is."""
        return self.model.facts

    def session(self, *, capacity: int) -> Session:
        """A cache of its own for so many tokens, for those who work with scores themselves."""
        return Session(self.model, capacity=capacity)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Result:
        """The continuation of a prompt."""
        return self.stream(prompt, **options).result()

    def score(self, prompt: str | Sequence[int], text: str | Sequence[int], *, top: int = 0) -> Score:
        """How probable a text is after a prompt: each token, and with `top` so many of the most probable in its place.

        Without a prompt ("") the first token of the text is not scored.
        """
        return self.scores(prompt, (text,), top=top)[0]

    def scores(
        self, prompt: str | Sequence[int], texts: Iterable[str | Sequence[int]], *, top: int = 0
    ) -> tuple[Score, ...]:
        """The scores of several texts after one prompt, which is computed once."""
        within = self.tokenizer.encode_within if len(prompt) else self.tokenizer.encode
        tokens = [within(text) if isinstance(text, str) else whole(text) for text in texts]
        if self.facts.source:
            return score(self.answering(self._encode(prompt)), (self.facts.source.start,), tokens, top=top)
        return score(self.model, self._encode(prompt) if len(prompt) else (), tokens, top=top)

    def chat(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = (), **options: Unpack[Options]
    ) -> Stream:
        """The answer to a conversation, `[{"role": "user", "content": "..."}]`, piece by piece.

        tools: JSON schemas of functions that it may call; `edgewise.runtime.tools.with_tools` calls them.
        """
        return self.stream(self.encode_chat(messages, tools=tools), **options)

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Stream:
        """The continuation of a prompt, piece by piece. A prompt is a text or tokens; the text of tokens stands alone.

        The options are described at `edgewise.runtime.generation.Options`.
        Raises GenerationError, ContextOverflow (with the numbers) and OptionError.
        """
        return self.begin(prompt, options)

    def generate_batch(
        self, prompts: Iterable[str | Sequence[int]], *, slots: int = SLOTS, **options: Unpack[Options]
    ) -> list[Result]:
        """The continuations of several prompts, `slots` of them computed at a time; see `Scheduler`.

        Raises what `stream` raises before anything is computed, and what goes wrong with any of them.
        """
        with Scheduler(self, slots=slots) as scheduler:
            streams = [scheduler.submit(prompt, **options) for prompt in prompts]
            return [stream.result() for stream in streams]

    def begin(
        self,
        prompt: str | Sequence[int],
        options: Options,
        *,
        pools: dict[Model, Pool] | None = None,
        chunk: int | None = None,
        run: Callable[[Steps[None], Rows], Pieces] | None = None,
    ) -> Stream:
        """What `stream` gives; a scheduler has pools for all of its generations, and runs them its own way."""
        asked = ask(self, prompt, options)
        runners, source = (self, *(options.get("assistants") or ())), asked.source
        return Stream(
            asked.search.flow(asked.context),
            Rows(
                [each.answering(source) for each in runners],
                capacity=asked.capacity,
                prefixes=[each._known() for each in runners],
                window=asked.window,
                pools=None if source else pools,  # all rows of a pool answer one prompt
                chunk=chunk,
                restored=self._sources.known(source) if source else None,
            ),
            asked.rules,
            asked.text,
            prompt_tokens=asked.prompt_tokens,
            prompt_tokens_dropped=asked.dropped,
            load_s=self.load_s,
            spans=lambda: self._spans(asked.context.prompt),
            clock=asked.clock,
            drafts=asked.context.drafts,
            run=run,
        )

    def answering(self, source: tuple[int, ...]) -> Model:
        """What computes the scores of an answer: where an encoder reads prompts, the decoder that knows this one."""
        model = self.model
        return self._sources.of(source) if source else model

    def encode_chat(self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """A conversation as tokens, up to where the answer begins. What users wrote is never a control token."""
        if self.facts.source:
            raise GenerationError(
                f"{self._name} has an encoder, which reads one text: it answers that, and holds no conversation; "
                f"use: edgewise run {self._name} TEXT"
            )
        if self._template is None:
            raise GenerationError(
                f"{self._name} has no chat template: it continues texts; use: edgewise run {self._name} TEXT"
            )
        return self._template.encode(messages, tools=tools)

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end a sequence."""
        return eos_tokens(self._config, self.facts.eos)

    @property
    def default_search(self) -> Search:
        """What the checkpoint's generation config asks for."""
        return default_search(self._config)

    @property
    def default_processors(self) -> tuple[Processor, ...]:
        """What it applies to the scores before that search."""
        return default_processors(self._config)

    @property
    def reasoning_tags(self) -> Tags | None:
        """The texts around the model's thoughts; None where its chat template speaks of none."""
        return None if self._template is None else tags_of(self._template.source)

    def _spans(self, prompt: tuple[int, ...]) -> Spans:
        """Sorts what follows a prompt into thought and answer."""
        tags = self.reasoning_tags
        return Spans(tags, thinking=tags is not None and thinks_at_end(self.tokenizer.decode(prompt), tags))

    def prepare(self, prompt: str | Sequence[int], *, stop: Event | None = None) -> int:
        """Compute now what prompts that begin like this one will need: while a user types, for one. How many tokens.

        In another thread, say; there `stop` ends it within a block. Raises what `stream` raises for the prompt.
        """
        if self.facts.source:
            return self._sources.prepare(self._encode(prompt))
        session = self._known().prepare(self._encode(prompt), stop=stop)
        return session.length if session else 0

    def save_prefix(self, prompt: str | Sequence[int], path: str | Path) -> int:
        """Write keys and values of a prompt, whole blocks from its beginning, to a file for this bundle; of how many
        tokens. Raises CacheError, and what `stream` raises for the prompt.
        """
        return self._of_decoder("save").save(path, self._encode(prompt))

    def load_prefix(self, path: str | Path) -> int:
        """Read such a file: prompts that begin with these tokens, so many, begin with what is known of them.

        Raises CacheError where the file is damaged or of another bundle, OptionError where `prefix_cache` is less.
        """
        return self._of_decoder("load").load(path)

    def known_prefix(self, tokens: Sequence[int]) -> int:
        """How many of the first of these tokens a prompt would find computed already."""
        return self._sources.known(tuple(tokens)) if self.facts.source else self._known().known(tokens)

    def _known(self) -> PrefixCache:
        if self._prefixes is None:
            raise GenerationError(f"the runner of {self._name} is closed")
        return self._prefixes

    def _of_decoder(self, doing: str) -> PrefixCache:
        if self.facts.source:
            raise GenerationError(
                f"{self._name} has an encoder, which reads a prompt as a whole: there is no beginning to {doing}; "
                "prompts that it has read stay known while the runner is open"
            )
        return self._known()

    def close(self) -> None:
        """Give the memory of the model back, once generations that are under way are done with it."""
        self._model = self._prefixes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _encode(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if self.facts.source:
            return read_source(prompt, self.tokenizer, self.facts)
        return encode(prompt, self.tokenizer, context=self.model.context)

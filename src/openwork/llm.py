"""LLM: the engine in this process, with text at its edge.

    from openwork import LLM, SamplingParams

    llm = LLM()                                             # the embedded story model
    print(llm.generate("once upon a time")[0].text)

It guarantees that a request gives the same tokens alone, among others, or streamed; that an abandoned stream stops
being computed; and that calls from several threads do not disturb each other. It has an engine rather than being one,
so that other faces can stand on the same loop, scheduler and runner.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from openwork.build import Progress, build
from openwork.core.budget import Budget
from openwork.core.errors import RequestError
from openwork.core.output import Chosen, Chunk, Output
from openwork.core.request import Request, SamplingParams
from openwork.core.search import Beam, BestFirst, Choose, Search, as_search
from openwork.core.settings import (
    RECORD_BYTES,
    LoadSettings,
    RecordSettings,
    ScheduleSettings,
    SpeculationSettings,
)
from openwork.core.spec import ModelSpec
from openwork.following import Follower
from openwork.run.explain import Explainer
from openwork.text.options import Options, as_chosen, place
from openwork.text.tokenizer import Tokenizer
from openwork.text.trial import Trial
from openwork.wiring import Info

if TYPE_CHECKING:
    import numpy as np

    from openwork.run.row import Row
    from openwork.text.chat import ChatTemplate

Prompt = str | Sequence[int]
# A token is at most this many bytes of prompt; longer text can never fit and is refused before it is tokenised.
LONGEST_TOKEN_BYTES = 1024


class LLM:
    """A loaded model, ready to generate.

    model           a directory, a name on the hub such as "org/name", or None: the embedded ``openwork/stories``
    dtype           of the weights: "float32", "bfloat16", "int8", "int8-channel", "int4", or "auto": as they are stored
    kv_dtype        of keys and values: "float32", "bfloat16", "int8", or "auto": float32 beside float32 weights, else
                    bfloat16
    kv_cache_bytes  memory for keys and values; None: enough for 32 full sequences, within half of what is free
    threads         None: as many as there are cores for this process
    context         longest sequence; None: the longest that model and cache allow
    backend         "auto", "cpu" (the C++ core) or "reference" (NumPy)
    weight_cache    keep the packed weights of a big model in a file, and map it the next time (docs/quantization.md)
    speculate       guess tokens and verify several in one step: faster where they are right, never other tokens
                    (docs/speculation.md). "ngram": what a text repeats; else a smaller model with the same tokenizer,
                    which shares kv_cache_bytes
    max_draft       how many to guess at most; None: 15
    progress        called with (stage, done, total) while weights are packed, saved or loaded, in bytes
    tap             called with (sequence, position, row) for each row of logits (vocab,) before a token is chosen
    record          a directory: the engine's flight recorder writes there (docs/recorder.md)
    record_prompts  keep prompts and answers in it as token ids. Here whoever records is whoever asks, so they are kept
                    unless this is False; a server keeps other people's, and does not unless it is told to
    record_bytes    of its files together: the oldest go first
    record_layers   of so many rows, one is recorded layer by layer, so that a replay that differs can name the layer: 1
                    is every row, 0 none; None: as many as take 2 bytes a token

    A checkpoint without a tokenizer works with token ids; ``tokenizer`` is None then, and texts are empty.

    Raises ModelError, MemoryTooSmall, BackendError or TraceError. Close it, or use it in a ``with`` statement, to stop
    its thread.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        kv_dtype: str = "auto",
        kv_cache_bytes: int | None = None,
        threads: int | None = None,
        context: int | None = None,
        backend: str = "auto",
        block_size: int = 16,
        weight_cache: bool = True,
        speculate: str | None = None,
        max_draft: int | None = None,
        schedule: ScheduleSettings | None = None,
        progress: Progress | None = None,
        tap: Callable[[int, int, np.ndarray], None] | None = None,
        record: str | Path | None = None,
        record_prompts: bool = True,
        record_bytes: int = RECORD_BYTES,
        record_layers: int | None = None,
    ) -> None:
        settings = LoadSettings(
            dtype=dtype,
            kv_dtype=kv_dtype,
            kv_cache_bytes=kv_cache_bytes,
            threads=threads,
            context=context,
            backend=backend,
            block_size=block_size,
            cache=weight_cache,
        )
        schedule = schedule or ScheduleSettings()
        if speculate is not None or max_draft is not None:
            schedule = replace(schedule, speculation=SpeculationSettings.wished(speculate, max_draft))
        recording = None
        if record is not None:
            recording = RecordSettings(
                directory=str(record), keeps_prompts=record_prompts, max_bytes=record_bytes, layers=record_layers
            )
        built = build(model, settings, schedule, progress, tap, record=recording)
        self._engine = built.engine
        self._limits = built.limits
        self._guide = built.guide
        self._explainer = Explainer(built.examiner)
        self._follower = Follower(built.engine, built.tokenizer, self._explainer)
        self._template: ChatTemplate | None = None
        self._trial = Trial()
        weakref.finalize(self, self._trial.close)
        # The runner's thread keeps the weights alive; an LLM that is dropped without close() must not.
        weakref.finalize(self, built.engine.abandon)
        self.tokenizer: Tokenizer | None = built.tokenizer
        self.spec: ModelSpec = built.spec
        self.info: Info = built.info
        self.defaults: SamplingParams = built.generation.as_params()

    # -- generating ----------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Output]:
        """Continue one or many prompts (text or token ids), all in one batch; outputs in the order of the prompts.

        ``params`` is one for all or one for each; None: the checkpoint's own defaults. ``progress`` is called with
        ("prefill", prompt tokens done, of all) and ("requests", finished, of all). Raises RequestError for a prompt or
        parameter that cannot be served, before anything is computed, and EngineError when the engine fails.
        """
        many = _as_prompts(prompts)
        each = list(params) if isinstance(params, Sequence) else [params] * len(many)
        if len(each) != len(many):
            raise RequestError(f"{len(each)} were given for {len(many)} prompts", param="params")
        requests = [self._request(prompt, how) for prompt, how in zip(many, each, strict=True)]
        return self._follower.run(list(zip(requests, many, strict=True)), progress)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        search: Beam | BestFirst | Search | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Chunk]:
        """Continue one prompt; chunks come as tokens do, and the last one carries the whole Output.

        With ``search`` a token comes as soon as it is certain: when all beams agree on it, or when the search ends.
        Leaving the iteration early cancels the request. Raises as ``generate`` does; a wrong request at the call.
        """
        request = self._request(prompt, params, search)
        if request.params.best_of is not None:
            raise RequestError("cannot be streamed: which are best is known at the end", param="best_of")

        def chunks() -> Iterator[Chunk]:  # nothing is submitted for a stream that nobody reads
            yield from self._follower.follow([self._follower.submit(request, prompt)], progress)

        return chunks()

    def chat(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams | None = None) -> Output:
        """Answer a conversation, a list of {"role": ..., "content": ...}, by the checkpoint's chat template."""
        return self.generate([self.chat_prompt(messages)], params)[0]

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The token ids of a conversation, up to where the assistant's answer begins.

        Raises ModelError when there is no usable template, RequestError when the conversation does not suit it.
        """
        tokenizer = self._need_tokenizer("messages")
        if self._template is None:
            from openwork.text.chat import ChatTemplate

            self._template = ChatTemplate.load(tokenizer)
        longest = self._limits.context * LONGEST_TOKEN_BYTES
        return self._template.prompt(tokenizer, messages, max_bytes=longest).token_ids

    # -- searching -----------------------------------------------------------------------------------------------

    def search(
        self,
        prompt: Prompt,
        how: Beam | BestFirst | Search,
        params: SamplingParams | None = None,
        *,
        progress: Progress | None = None,
    ) -> Output:
        """The likeliest continuations of a prompt (docs/search.md); ``search`` of the Output says what is proved.

        ``params`` says n, lengths and ends, and nothing that bends the model's distribution. Raises as ``generate``.
        """
        return self._follower.run([(self._request(prompt, params, how), prompt)], progress)[0]

    def choose(
        self,
        prompt: Prompt,
        options: Options,
        *,
        end: bool | None = None,
        score_all: bool = False,
        at_once: int = 4,
        budget: Budget | None = None,
        trace: int = 0,
    ) -> Chosen:
        """The likeliest of some options behind a prompt, texts or token ids, with a certain interval for each.

        The rest is as in Choose; how options are tokenised stands in docs/search.md. Raises as ``generate``.
        """
        plain = self._request(prompt, SamplingParams())
        placed = place(self.tokenizer, prompt if isinstance(prompt, str) else None, plain.prompt, options)
        how = Choose(options=placed.options, end=end, score_all=score_all, at_once=at_once, budget=budget or Budget())
        request = Request(placed.prompt_ids, plain.params, self._limits, search=Search(choose=how, trace=trace))
        return as_chosen(self._follower.run([(request, prompt)], None)[0], placed, options, bool(how.end))

    # -- looking inside ------------------------------------------------------------------------------------------

    def explain(self, output: Output, i: int = 0, **how: Any) -> Row:
        """What is inside this model when token ``i`` of a completion is chosen, given as Output.explain is.

        ``output.explain(i)`` asks the LLM that the output came from. Raises as that does.
        """
        return self._explainer.explain(output, i, **how)

    # -- living --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is running and stop the engine's thread. Does nothing the second time."""
        self._follower.close()
        self._explainer.close()
        self._trial.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the way of a request ------------------------------------------------------------------------------------

    def _request(
        self, prompt: Prompt, params: SamplingParams | None, search: Beam | BestFirst | Search | None = None
    ) -> Request:
        if isinstance(prompt, str):
            if not prompt:
                raise RequestError("is empty", "Give at least one character.", param="prompt")
            tokenizer = self._need_tokenizer("prompt")
            ids = tokenizer.encode(prompt, max_bytes=self._limits.context * LONGEST_TOKEN_BYTES)
        else:
            ids = list(prompt)
        how = params or (self.defaults if search is None else SamplingParams())
        if how.stop:
            self._need_tokenizer("stop")
        if how.constraint is not None:
            self._need_tokenizer("constraint")
            self._trial.check(how.constraint)
            self._guide.begin(how.constraint)  # compiled here, and not while a step of everybody's waits for it
        return Request(tuple(ids), how, self._limits, search=None if search is None else as_search(search))

    def _need_tokenizer(self, param: str) -> Tokenizer:
        """Raises RequestError when text is given to a checkpoint that has no tokenizer."""
        if self.tokenizer is None:
            raise RequestError(
                f"is text, but there is no tokenizer.json in {self.info.directory}",
                "Give token ids, or add the tokenizer to the checkpoint.",
                param=param,
            )
        return self.tokenizer


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A list of prompts from one or many; an empty list is one empty prompt, and refused as such later."""
    is_one = isinstance(prompts, str) or not any(isinstance(each, Sequence) for each in prompts)
    return [cast(Prompt, prompts)] if is_one else list(cast(Sequence[Prompt], prompts))

"""The command line against a model that is none: it answers what a test tells it to, one byte a token."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from openwork.cli import opening, terminal
from openwork.cli.main import app
from openwork.core.errors import PromptTooLong
from openwork.core.output import Chunk, Completion, Logprob, Output, Timings
from openwork.core.request import SamplingParams
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint
from openwork.text.chat import ChatTemplate
from openwork.text.stream import TextStream
from openwork.text.tokenizer import Tokenizer


class FakeLLM:
    """Answers with ``answers`` in turn, the same again when they run out; remembers what it was asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.answers = [" world."]
        self.defaults = SamplingParams(temperature=0.75, top_p=0.5)
        self.info = SimpleNamespace(model="fake/model", dtype="float32", context=1000)
        self.failure: BaseException | None = None
        self.before_chunk = lambda number: None
        self.opened_with: dict = {}
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.is_closed = False
        self._template = ChatTemplate.load(tokenizer)

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_closed = True

    def chat_prompt(self, messages):
        return self.tokenizer.encode(self._template.render(messages), add_special=False)

    def generate(self, prompts, params=None, *, progress=None):
        for number in range(len(prompts)):
            progress("requests", number, len(prompts))
        return [self._output(prompt, params) for prompt in prompts]

    def stream(self, prompt, params=None, *, progress=None):
        progress("prefill", 0, 2)
        progress("prefill", 2, 2)
        output = self._output(prompt, params)
        texts = [TextStream(self.tokenizer) for _ in output.completions]
        for place in range(max(len(c.token_ids) for c in output.completions)):
            self.before_chunk(place)
            for completion in output.completions:
                if place < len(completion.token_ids):
                    token = completion.token_ids[place]
                    is_last = place == len(completion.token_ids) - 1
                    text = texts[completion.index].push([token])
                    yield Chunk(completion.index, text, (token,), None, "stop" if is_last else None)
        yield Chunk(0, "", (), output=output)

    def _output(self, prompt, params):
        if self.failure is not None:
            raise self.failure
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if len(ids) >= self.info.context:
            raise PromptTooLong(f"has {len(ids)} tokens")
        self.asked.append((ids, params))
        completions = []
        for index in range(params.n):
            text = self.answers[min(len(self.asked) - 1 + index, len(self.answers) - 1)]
            tokens = self.tokenizer.encode(text, add_special=False)
            logprobs = tuple(
                Logprob(token, -0.5, 1, ((token, -0.5), (2, float("-inf")))[: params.logprobs or 0]) for token in tokens
            )
            completions.append(
                Completion(index, text, tuple(tokens), "stop", None, logprobs if params.logprobs is not None else None)
            )
        head = None
        if params.prompt_logprobs is not None:
            head = (None, *(Logprob(token, -1.5, 2) for token in ids[1:]))
        return Output(
            prompt if isinstance(prompt, str) else None,
            tuple(ids),
            tuple(completions),
            Timings(0.0, 0.5, 1.0, 10.0, 20.0),
            3,
            head,
        )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer.load(write_byte_tokenizer(tmp_path_factory.mktemp("bytes")))


@pytest.fixture
def fake(tokenizer, monkeypatch) -> FakeLLM:
    llm = FakeLLM(tokenizer)

    def open_llm(model, **options):
        llm.opened_with = {"model": model, **options}
        return llm

    monkeypatch.setattr(opening, "open_llm", open_llm)
    return llm


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """A tiny model with random weights, in a directory."""
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoint(directory)
    return str(write_byte_tokenizer(directory))


@pytest.fixture
def run():
    """run(*arguments, input=...) -> the result, with exit_code, stdout and stderr."""

    def run(*arguments, input=None):
        return CliRunner().invoke(app, arguments, input=input)

    return run


@pytest.fixture
def watched(monkeypatch):
    """Makes the named streams look like terminals, in all that the command line asks."""

    def watched(*names):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(terminal, "is_terminal", lambda stream: _name(stream) in names)

    return watched


def _name(stream) -> str:
    import sys

    named = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    return next((name for name, each in named.items() if each is stream), "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen() -> Terminal:
    return Terminal()

"""The openai package, as its users use it, and curl, against the routes on a loopback socket."""

import asyncio
import enum
import json
import shutil
import socket
import subprocess
import threading
from typing import Annotated

import httpx
import openai
import pydantic
import pytest
import uvicorn
from serve.api import MODEL, USER, Api, Gatekeeper, echo_engine, stories_engine
from serve.test_forms import write_model

from openwork.serve.app import make_app
from openwork.serve.errors import unavailable
from openwork.testing.byte_tokenizer import write_byte_tokenizer

TEXT = ", there was a little girl named lily"
PLAIN = {"model": MODEL, "prompt": "once upon a time", "max_tokens": 8, "temperature": 0}
CHAT = {"model": MODEL, "messages": USER, "max_tokens": 8, "temperature": 0}


class Busy:
    """An application that is busy for its first ``num_refusals`` requests."""

    def __init__(self, app, num_refusals=0):
        self.app, self.num_refusals, self.num_requests = app, num_refusals, 0

    async def __call__(self, scope, receive, send):
        self.num_requests += 1
        if self.num_refusals:
            self.num_refusals -= 1
            raise unavailable("overloaded", "Try again.", 0.1)
        await self.app(scope, receive, send)


class Served:
    """An engine behind a socket, on a thread of its own."""

    def __init__(self, make_engine):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]  # noqa: UP031
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make_engine,))

    def __enter__(self):
        self._thread.start()
        assert self._is_up.wait(30)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self._thread.join(30)
        self.listener.close()

    def _run(self, make_engine):
        with Api(make_engine()) as self.api:
            self.busy = Busy(make_app(self.api.service))
            settings = {"log_level": "error", "lifespan": "off", "ws": "none", "http": "h11"}
            self.server = uvicorn.Server(uvicorn.Config(Gatekeeper(self.busy), **settings))
            self.server.install_signal_handlers = lambda: None
            self.listener.listen()
            self._is_up.set()
            self.api.run(self.server.serve([self.listener]))


@pytest.fixture(scope="module")
def served():
    with Served(stories_engine) as it:
        yield it


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=2) as it:
        yield it


def test_completions(client):
    said = client.completions.create(**PLAIN, logprobs=1)
    assert said.choices[0].text == TEXT and said.choices[0].finish_reason == "length"
    assert said.usage.total_tokens == 13 and len(said.choices[0].logprobs.tokens) == 8
    assert "".join(piece.choices[0].text for piece in client.completions.create(**PLAIN, stream=True)) == TEXT


def test_chat(client):
    said = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)
    message, logprobs = said.choices[0].message, said.choices[0].logprobs.content
    assert message.role == "assistant" and message.content == " there was a little girl named lily."
    assert bytes(b for each in logprobs for b in each.bytes).decode() == message.content
    assert all(len(each.top_logprobs) == 2 for each in logprobs)


def test_chat_streamed(client):
    pieces = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == " there was a little girl named lily."
    assert pieces[-1].usage.completion_tokens == 8 and pieces[0].choices[0].delta.role == "assistant"


def test_the_stream_helper_puts_the_same_answer_together(client):
    with client.chat.completions.stream(**CHAT, stop=" named") as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == " there was a little girl" and final.choices[0].finish_reason == "stop"


class Animal(enum.StrEnum):
    cat = "cat"
    dog = "dog"


class Pet(pydantic.BaseModel):
    """A pet."""

    name: Annotated[str, pydantic.Field(max_length=8)]
    kind: Animal
    age: Annotated[int, pydantic.Field(ge=0, le=30)] | None
    friends: Annotated[list[Animal], pydantic.Field(max_length=2)]


def test_answers_are_parsed_into_classes(client):
    asked = {"model": MODEL, "max_tokens": 300, "temperature": 1}
    parsed = client.chat.completions.parse(**asked, messages=USER, response_format=Pet, seed=3)
    assert isinstance(parsed.choices[0].message.parsed, Pet)
    with client.chat.completions.stream(**asked, messages=USER, response_format=Pet, seed=3) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed.choices[0].message.parsed
    said = client.responses.parse(model=MODEL, input="a pet", text_format=Pet, max_output_tokens=300)
    assert isinstance(said.output_parsed, Pet)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**asked | {"max_tokens": 3}, messages=USER, response_format=Pet)


def test_tools_are_called_with_classes_as_arguments(tmp_path):
    tool = openai.pydantic_function_tool(Pet, name="adopt")
    assert tool["function"]["strict"] is True
    with (
        Served(lambda: stories_engine(write_model(tmp_path, "hermes", ""))) as noise,
        openai.OpenAI(base_url=noise.url + "/v1", api_key="none") as client,
    ):
        asked = {"model": MODEL, "messages": USER, "tools": [tool], "tool_choice": "required", "max_tokens": 700}
        said = client.chat.completions.parse(**asked, parallel_tool_calls=False, seed=1)
        (call,) = said.choices[0].message.tool_calls
        assert isinstance(call.function.parsed_arguments, Pet) and said.choices[0].finish_reason == "tool_calls"


def test_a_search_is_an_extra_of_the_body(client):
    wish = {"strategy": "choose", "options": ["big box", "red ball"]}
    said = client.completions.create(model=MODEL, prompt="one day, tim found a ", extra_body={"decoding": wish})
    assert said.choices[0].text == "big box" and said.search[0]["proved"] is True


def test_async_clients_at_once(served):
    async def ask(client, seed):
        fields = {**CHAT, "temperature": 0.9, "seed": seed}
        whole = await client.chat.completions.create(**fields)
        text = ""
        async for piece in await client.chat.completions.create(**fields, stream=True):
            text += piece.choices[0].delta.content or ""
        return whole.choices[0].message.content, text

    async def scene():
        async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="none") as client:
            return await asyncio.gather(*(ask(client, seed) for seed in range(8)))

    pairs = asyncio.run(scene())
    assert all(whole == streamed for whole, streamed in pairs) and len({whole for whole, _ in pairs}) > 1


def test_a_busy_server_is_asked_again(served, client):
    served.busy.num_refusals, before = 1, served.busy.num_requests
    assert client.completions.create(**PLAIN).choices[0].text == TEXT
    assert served.busy.num_requests == before + 2


def test_what_the_client_did_wrong_is_not_asked_again(served, client):
    before = served.busy.num_requests
    with pytest.raises(openai.BadRequestError, match="maximum context length is 512 tokens") as caught:
        client.completions.create(**{**PLAIN, "max_tokens": 600})
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(**{**PLAIN, "model": "gpt-x"})
    assert served.busy.num_requests == before + 2


def test_responses(client):
    fields = {"model": MODEL, "input": "once upon", "max_output_tokens": 16, "temperature": 0}
    said = client.responses.create(**fields)
    assert said.output_text.startswith(" there was a little girl") and said.status == "incomplete"
    events = list(client.responses.create(**fields, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == said.output_text
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage.total_tokens == said.usage.total_tokens
    again = client.responses.retrieve(said.id)
    assert again.output_text == said.output_text
    more = client.responses.create(**{**fields, "input": "and then"}, previous_response_id=said.id)
    assert more.usage.input_tokens > said.usage.total_tokens
    client.responses.delete(said.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(said.id)


def test_the_helper_for_responses_puts_the_same_answer_together(client):
    fields = {"model": MODEL, "input": "once upon", "temperature": 0, "max_output_tokens": 64}
    with client.responses.stream(**fields, extra_body={"stop": " named"}) as stream:
        assert stream.get_final_response().output_text == " there was a little girl"


def test_models(client):
    assert [card.id for card in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_extras_are_sent_beside(client):
    said = client.completions.create(**PLAIN, extra_body={"top_k": -1, "timings": True, "min_tokens": 8})
    assert said.timings[0]["prefill_chunks"] == 1


def test_leaving_a_stream_ends_its_request(served, client):
    stream = client.completions.create(**{**PLAIN, "max_tokens": 500}, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    asyncio.run(served.api.rest())


def test_an_error_within_a_stream_is_raised(tmp_path):
    steps = set()

    def poisons(step, work):
        steps.add(step.number)
        return len(steps) == 6

    with Served(lambda: echo_engine(write_byte_tokenizer(tmp_path), "all of this", poisons=poisons)) as served:
        client = openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)
        pieces = []
        with client:
            stream = client.chat.completions.create(**{**CHAT, "model": "echo"}, stream=True)
            with pytest.raises(openai.APIError, match="went wrong for this request"):
                pieces.extend(stream)  # what came before the error is in it all the same
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text and "all of this".startswith(text) and text != "all of this"


def test_tools(tmp_path):
    template = "{% for t in tools or [] %}<tool_call>{% endfor %}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    with Served(lambda: echo_engine(write_byte_tokenizer(tmp_path, template), call)) as served:
        fields = {"model": "echo", "messages": USER, "tools": tools}
        with openai.OpenAI(base_url=served.url + "/v1", api_key="none") as client:
            said = client.chat.completions.create(**fields).choices[0]
            with client.chat.completions.stream(**fields) as stream:
                streamed = stream.get_final_completion().choices[0]
            result = {"role": "tool", "tool_call_id": said.message.tool_calls[0].id, "content": "x"}
            messages = [*USER, said.message, result]
            client.chat.completions.create(**{**fields, "messages": messages})
    for choice in (said, streamed):
        (made,) = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls" and json.loads(made.function.arguments) == {"city": "Rome"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(served):
    body = json.dumps({**PLAIN, "stream": True})
    command = ["curl", "-sN", "--max-time", "30", "-H", "content-type: application/json", "-d", body]
    done = subprocess.run(
        [*command, served.url + "/v1/completions"], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line for line in done.stdout.split("\n") if line]
    assert lines[-1] == "data: [DONE]" and len(lines) == 10
    assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]) == TEXT


def test_plain_httpx_reads_every_line(served):
    with httpx.stream("POST", served.url + "/v1/completions", json={**PLAIN, "stream": True}, timeout=60) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: {") for line in lines[:-1])

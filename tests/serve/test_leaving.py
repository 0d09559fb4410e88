"""Clients that leave, time that is up, engines that fail: every call ends once, and nothing runs on for nobody."""

import asyncio
import threading
from contextlib import nullcontext

import pytest
from serve.api import USER, Api, Client, echo_engine, events, paused, stories_engine

from openwork.serve.bounds import Bounds
from openwork.serve.callers import Caller, Reservation

LONG = {"prompt": "once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": True}
ROUTES = [
    ("/v1/completions", LONG),
    ("/v1/chat/completions", {"messages": USER, "max_tokens": 400, "ignore_eos": True}),
]
MOMENTS = [(is_stream, when) for is_stream in (False, True) for when in ("at once", "queued", "computing")]
MOMENTS += [(True, "streaming")]


@pytest.fixture(scope="module")
def api():
    with Api(stories_engine()) as it:
        yield it


async def leave(api, path, body, when):
    """A call whose client leaves at a moment."""
    async with paused(api.engine) if when == "queued" else nullcontext(), Client(api, path, body) as client:
        if when == "queued":
            while not api.engine.engine.num_requests:
                await asyncio.sleep(0.001)
        elif when == "streaming":
            await client.until(b"data: ")
        elif when == "computing":
            before = len(api.engine.submitted)
            while len(api.engine.submitted) == before:
                await asyncio.sleep(0)
        client.leave()
        async with asyncio.timeout(10):
            await client.task
    await api.rest()


@pytest.mark.parametrize(("path", "body"), ROUTES)
@pytest.mark.parametrize(("is_stream", "when"), MOMENTS)
def test_q01_a_client_that_leaves_is_not_computed_for(api, path, body, is_stream, when):
    api.run(leave(api, path, {**body, "stream": is_stream}, when))
    assert api.is_at_rest
    text = api.complete(prompt="once upon a time", max_tokens=4, temperature=0).json()["choices"][0]["text"]
    assert text == ", there was a"


def test_q01_the_end_comes_within_a_step(api):
    """While no step is made, leaving alone ends the request."""

    async def scene():
        async with Client(api, "/v1/completions", LONG) as client, paused(api.engine):
            while not api.engine.engine.num_requests:
                await asyncio.sleep(0)
            client.leave()
            async with asyncio.timeout(10):
                await client.task
            assert api.engine.engine.num_requests == 0

    api.run(scene())


def test_q01_a_client_may_leave_while_its_text_is_tokenised(api):
    async def scene():
        submitted = len(api.engine.submitted)
        gate, entered = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold():
            loop.call_soon_threadsafe(entered.set)
            gate.wait(10)

        holding = [asyncio.create_task(api.service.texts.run(hold)) for _ in range(2)]
        await entered.wait()
        async with Client(api, "/v1/completions", LONG) as client:
            await asyncio.sleep(0.01)
            client.leave()
            async with asyncio.timeout(10):
                await client.task
        gate.set()
        await asyncio.gather(*holding)
        assert len(api.engine.submitted) == submitted and client.status is None

    api.run(scene())


def test_many_prompts_leave_together(api):
    async def scene():
        body = {**LONG, "prompt": ["once", "the dog", "a cat"], "n": 2, "stream": True}
        async with Client(api, "/v1/completions", body) as client:
            await client.until(b'"index":5')
            client.leave()
        await api.rest()

    api.run(scene())


def test_no_task_is_left_behind(api):
    async def scene():
        before = len(asyncio.all_tasks())
        for when in ("queued", "computing"):
            await leave(api, "/v1/completions", LONG, when)
        await api.send("/v1/completions", {"prompt": "once", "max_tokens": 3, "stream": True})
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= before

    api.run(api.send("/v1/completions", {"prompt": "once", "max_tokens": 3}))
    api.run(scene())


class Till(Caller):
    """Notes what is reserved and settled."""

    def __init__(self):
        self.open, self.settled = 0, []

    def reserve(self, tokens):
        return Place(self, tokens)


class Place(Reservation):
    def __init__(self, till, tokens):
        self.till, self.tokens = till, tokens

    def __enter__(self):
        self.till.open += 1
        return self

    def __exit__(self, *_):
        self.till.open -= 1

    def settle(self, tokens):
        self.till.settled.append((self.tokens, tokens))


def test_what_was_reserved_is_settled_also_when_the_client_left():
    till = Till()
    with Api(stories_engine(), caller=till) as api:
        assert api.complete(prompt="once upon a time", max_tokens=4, n=2).status_code == 200
        assert (till.open, till.settled) == (0, [(5 + 2 * 4, 5 + 2 * 4)])
        api.run(leave(api, "/v1/completions", {**LONG, "stream": True}, "streaming"))
        (_, (most, took)) = till.settled
        assert till.open == 0 and most == 405 and 5 < took < most
        assert api.complete(prompt="x" * 9999).status_code == 400
        assert (till.open, len(till.settled)) == (0, 2)


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_that_takes_too_long_is_a_504(path, body):
    with Api(stories_engine(), Bounds(request_s=0.5)) as api:
        api.engine.pause()
        whole = api.post(path, body)
        streamed = api.post(path, {**body, "stream": True})
        assert whole.status_code == 504 and whole.json()["error"]["code"] == "deadline_exceeded"
        assert [event["error"]["code"] for event in events(streamed.text)] == ["deadline_exceeded"]
        assert "[DONE]" not in streamed.text and api.is_at_rest
        api.engine.resume()


@pytest.mark.parametrize("is_stream", [False, True])
def test_c13_numbers_that_went_bad_are_an_error_and_never_an_answer(byte_model, is_stream):
    steps = []

    def poisons(step, work):
        steps.append(step.number)
        return len(set(steps)) == 6

    with Api(echo_engine(byte_model, "never all of this", poisons=poisons)) as api:
        answer = api.chat(stream=is_stream)
        if is_stream:
            *pieces, error = events(answer.text)
            assert answer.status_code == 200 and pieces and error["error"]["code"] == "numerical_error"
            assert "[DONE]" not in answer.text
            assert all(piece["choices"][0]["finish_reason"] is None for piece in pieces)
        else:
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "numerical_error"
        assert api.is_at_rest


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_engine_that_closes_ends_what_runs_with_an_error(is_stream):
    with Api(stories_engine()) as api:

        async def scene():
            async with Client(api, "/v1/completions", {**LONG, "stream": is_stream}) as client:
                while not api.engine.submitted:
                    await asyncio.sleep(0)
                await api.engine.close()
                async with asyncio.timeout(10):
                    await client.task
                return client.status, client.sent

        status, sent = api.run(scene())
        assert status == (200 if is_stream else 503) and b'"draining"' in sent and b"[DONE]" not in sent


def test_a_full_queue_is_a_503_before_a_stream_begins(byte_model):
    with Api(echo_engine(byte_model, "x" * 50, bounds={"max_waiting": 1})) as api:

        async def scene():
            async with paused(api.engine):
                first = asyncio.create_task(api.send("/v1/completions", {"prompt": "a", "max_tokens": 4}))
                while not api.engine.submitted:
                    await asyncio.sleep(0)
                refused = await api.send("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 4, "stream": True})
            return refused, await first

        refused, first = api.run(scene())
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert first.status_code == 200 and api.is_at_rest


def test_a_silent_stream_sends_comments(byte_model):
    with Api(echo_engine(byte_model, "x"), Bounds(keep_alive_s=0.01)) as api:

        async def scene():
            async with Client(api, "/v1/completions", {"prompt": "a", "stream": True}) as client:
                async with paused(api.engine):
                    await client.until(b": keep-alive\n\n: keep-alive\n\n")
                await client.until(b"[DONE]")
                return client.sent.decode()

        assert len(events(api.run(scene()))) == 3


def test_the_progress_of_a_long_prompt_is_told(byte_model):
    with Api(echo_engine(byte_model, "x")) as api:
        answer = api.complete(prompt="a" * 2000, stream=True)
    comments = [line for line in answer.text.split("\n") if line.startswith(":")]
    assert comments == [f": prefill {done}/2001" for done in (512, 1024, 1536)]

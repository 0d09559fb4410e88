"""Texts beside the event loop: what can never fit is refused unseen, and what waits is bounded."""

import asyncio
import gc
import threading
import weakref

import pytest
from serve.api import Api, echo_engine

from openwork.serve.bounds import Bounds
from openwork.serve.errors import ApiError
from openwork.serve.texts import check_tokens, load_language


def test_a_long_text_is_counted_in_slices_and_refused(byte_model):
    """Bytes are tokens here, so the length alone decides; with longer tokens the slices do."""
    language = load_language(str(byte_model), 100)
    assert language.longest_bytes >= 1
    check_tokens(language, ["a" * 100], "prompt")
    with pytest.raises(ApiError) as caught:
        check_tokens(language, ["a" * 100] * 40, "messages")
    assert caught.value.param == "messages" and caught.value.code == "context_length_exceeded"


def test_what_has_few_bytes_for_each_token_is_not_tokenised_twice(byte_model, monkeypatch):
    language = load_language(str(byte_model), 100)
    monkeypatch.setattr(type(language.tokenizer), "encode", None)
    check_tokens(language, ["a" * 300], "prompt")


def test_only_so_many_texts_may_wait(byte_model):
    with Api(echo_engine(byte_model, "x"), Bounds(queued_texts=2)) as api:

        async def scene():
            gate = threading.Event()
            holding = [asyncio.create_task(api.service.texts.run(gate.wait, 10)) for _ in range(2)]
            await asyncio.sleep(0)
            refused = await api.send("/v1/completions", {"prompt": "a"})
            gate.set()
            await asyncio.gather(*holding)
            await asyncio.sleep(0)
            return refused, await api.send("/v1/completions", {"prompt": "a"})

        refused, served = api.run(scene())
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded"
    assert served.status_code == 200


def test_who_stops_waiting_for_a_text_still_counts_until_it_is_done(byte_model):
    with Api(echo_engine(byte_model, "x"), Bounds(queued_texts=1)) as api:

        async def scene():
            gate = threading.Event()
            waiting = asyncio.create_task(api.service.texts.run(gate.wait, 10))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            with pytest.raises(ApiError):
                await api.service.texts.run(int)
            gate.set()
            async with asyncio.timeout(10):
                while True:
                    try:
                        return await api.service.texts.run(int)
                    except ApiError:
                        await asyncio.sleep(0.001)

        assert api.run(scene()) == 0


def test_what_a_refused_text_was_part_of_is_let_go_at_once(byte_model):
    """A refused body may be large: it must not wait for the collector of cycles."""

    class Body:
        pass

    def refuse(body):
        raise ApiError(400, "invalid_request_error", None, "no")

    with Api(echo_engine(byte_model, "x")) as api:

        async def scene():
            body = Body()
            ref = weakref.ref(body)
            with pytest.raises(ApiError):
                await api.service.texts.run(refuse, body)
            del body
            await asyncio.sleep(0.05)
            return ref

        gc.disable()
        try:
            assert api.run(scene())() is None
        finally:
            gc.enable()

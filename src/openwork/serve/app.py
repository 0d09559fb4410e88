"""The application: routes of OpenAI's API over an engine that is awaited.

Every refusal is raised as an ApiError; the gate in front answers it, and says in the scope's state who calls and under
which id. Hosts, keys, sizes of HTTP, metrics and the health of the engine are the gate's as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from starlette.routing import BaseRoute, Route, Router

from openwork.engine.face import AsyncEngine, Facts
from openwork.serve.answering import answer
from openwork.serve.bounds import Bounds
from openwork.serve.call import Call, ClientGone, Receive, Scope, Send, Watch
from openwork.serve.chat import plan_chat
from openwork.serve.completions import plan_completion
from openwork.serve.errors import bad_request, forbidden, no_model
from openwork.serve.kept import Shelf
from openwork.serve.models import card, list_models
from openwork.serve.openapi import openapi
from openwork.serve.responses import plan_response
from openwork.serve.schema.chat import ChatBody
from openwork.serve.schema.completion import CompletionBody
from openwork.serve.schema.other import DetokenizeBody, TokenizeBody
from openwork.serve.schema.reading import Kind, read
from openwork.serve.schema.response import Cancelled, Deleted, ResponseBody
from openwork.serve.texts import Language, Texts
from openwork.serve.tokens import detokenize, tokenize
from openwork.text.dialect import AUTO

LARGE_BYTES = 16 << 10  # a body of more is read beside the event loop


class Service:
    """An engine, and what stands between it and its clients. ``language`` None: it is read when it is needed."""

    def __init__(
        self,
        engine: AsyncEngine,
        bounds: Bounds | None = None,
        tool_format: str = AUTO,
        reasoning_format: str = AUTO,
        version: str = "",
        language: Language | None = None,
    ) -> None:
        self.engine = engine
        self.version = version
        self.bounds = bounds or Bounds()
        self.shelf = Shelf(self.bounds)
        self.texts = Texts(engine, self.bounds, tool_format, reasoning_format, language=language)

    async def read(self, call: Call, kind: type[Kind]) -> Kind:
        """The body as a record."""
        body = await call.body()
        if len(body) <= LARGE_BYTES:
            return read(body, kind, self.bounds.json_depth)
        return await self.texts.run(read, body, kind, self.bounds.json_depth)

    def facts(self, call: Call, model: str | None) -> Facts:
        """Of the model that is asked for. Raises ApiError 404 or 403, and EngineUnavailable before it is loaded."""
        facts = self.engine.facts
        if model is not None and model != facts.model:
            raise no_model(model)
        if not call.caller.may_use(facts.model):
            raise forbidden("This key may not use this model.", "model")
        return facts

    def close(self) -> None:
        self.texts.close()


class Endpoint:
    """One route as an ASGI application."""

    def __init__(self, serve: Callable[[Call], Awaitable[None]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone):
            await self._serve(Call(scope, receive, send))


def make_app(service: Service, more: Sequence[BaseRoute] = ()) -> Router:
    """The API, and ``more`` routes beside it."""
    return Router([*routes(service), *more], redirect_slashes=False)


def routes(service: Service) -> list[Route]:
    """All routes of the API."""
    return [*_answers(service), *_kept(service), *_about(service)]


def _answers(service: Service) -> list[Route]:
    """What the model is asked."""
    engine, texts, bounds, shelf = service.engine, service.texts, service.bounds, service.shelf

    async def completions(call: Call) -> None:
        body = await service.read(call, CompletionBody)
        facts = service.facts(call, body.model)
        await answer(call, engine, bounds, lambda: plan_completion(body, texts, facts, call.caller, bounds))

    async def chat(call: Call) -> None:
        body = await service.read(call, ChatBody)
        facts = service.facts(call, body.model)
        await answer(call, engine, bounds, lambda: plan_chat(body, texts, facts, call.caller, bounds))

    async def responses(call: Call) -> None:
        body = await service.read(call, ResponseBody)
        facts = service.facts(call, body.model)
        await answer(call, engine, bounds, lambda: plan_response(body, texts, facts, call.caller, bounds, shelf))

    return [
        Route("/v1/completions", Endpoint(completions), methods=["POST"]),
        Route("/v1/chat/completions", Endpoint(chat), methods=["POST"]),
        Route("/v1/responses", Endpoint(responses), methods=["POST"]),
    ]


def _kept(service: Service) -> list[Route]:
    """Responses that were kept."""
    shelf = service.shelf

    async def response(call: Call) -> None:
        id, tenant = call.scope["path_params"]["response"], call.caller.tenant
        if call.scope.get("query_string"):
            raise bad_request("This route has no parameters.", code="unknown_parameter")
        if call.scope["method"] == "DELETE":
            shelf.delete(tenant, id)
            await call.answer(Deleted(id=id))
        else:
            await call.answer(shelf.find(tenant, id).record)

    async def cancelling(call: Call) -> None:
        id, tenant = call.scope["path_params"]["response"], call.caller.tenant
        if not shelf.cancel(tenant, id):
            raise bad_request("This response is complete already.", code="response_complete")
        await call.answer(Cancelled(id=id))

    return [
        Route("/v1/responses/{response}", Endpoint(response), methods=["GET", "DELETE"]),
        Route("/v1/responses/{response}/cancel", Endpoint(cancelling), methods=["POST"]),
    ]


def _about(service: Service) -> list[Route]:
    """What is known without asking the model."""
    engine, texts, bounds = service.engine, service.texts, service.bounds

    async def models(call: Call) -> None:
        facts = engine.facts
        await call.answer(list_models(facts, call.caller.may_use(facts.model)))

    async def model(call: Call) -> None:
        await call.answer(card(service.facts(call, call.scope["path_params"]["model"])))

    async def to_tokens(call: Call) -> None:
        body = await service.read(call, TokenizeBody)
        async with Watch(call, bounds.request_s):
            tokens = await tokenize(body, texts, service.facts(call, body.model), bounds)
        await call.answer(tokens)

    async def to_text(call: Call) -> None:
        body = await service.read(call, DetokenizeBody)
        async with Watch(call, bounds.request_s):
            text = await detokenize(body, texts, service.facts(call, body.model))
        await call.answer(text)

    async def description(call: Call) -> None:
        await call.answer(openapi(service.version))

    return [
        Route("/v1/models", Endpoint(models), methods=["GET"]),
        Route("/v1/models/{model:path}", Endpoint(model), methods=["GET"]),
        Route("/tokenize", Endpoint(to_tokens), methods=["POST"]),
        Route("/detokenize", Endpoint(to_text), methods=["POST"]),
        Route("/openapi.json", Endpoint(description), methods=["GET"]),
    ]

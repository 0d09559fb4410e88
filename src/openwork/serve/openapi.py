"""GET /openapi.json: what the routes take and give, from the very types that read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from openwork.serve.schema.chat import ChatBody, ChatCompletion
from openwork.serve.schema.completion import Completion, CompletionBody
from openwork.serve.schema.other import DetokenizeBody, Detokenized, ModelCard, ModelList, TokenizeBody, Tokenized
from openwork.serve.schema.response import Cancelled, Deleted, Response, ResponseBody
from openwork.serve.schema.usage import ErrorBody


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; ``takes`` None: it has no body. ``streams``: it may answer with events."""

    path: str
    method: str
    summary: str
    takes: type | None
    gives: type
    streams: bool = False


OPERATIONS: Sequence[Operation] = (
    Operation("/v1/completions", "post", "Continue prompts", CompletionBody, Completion, True),
    Operation("/v1/chat/completions", "post", "Answer a conversation", ChatBody, ChatCompletion, True),
    Operation("/v1/responses", "post", "Answer a conversation of items", ResponseBody, Response, True),
    Operation("/v1/responses/{response}", "get", "A response that is kept", None, Response),
    Operation("/v1/responses/{response}", "delete", "Forget a response", None, Deleted),
    Operation("/v1/responses/{response}/cancel", "post", "End a response that streams", None, Cancelled),
    Operation("/v1/models", "get", "What is served", None, ModelList),
    Operation("/v1/models/{model}", "get", "One model", None, ModelCard),
    Operation("/tokenize", "post", "Text to token ids", TokenizeBody, Tokenized),
    Operation("/detokenize", "post", "Token ids to text", DetokenizeBody, Detokenized),
)


@cache
def openapi(version: str) -> bytes:
    """The document (OpenAPI 3.1), as JSON."""
    each = (kind for operation in OPERATIONS for kind in (operation.takes, operation.gives))
    types = list(dict.fromkeys(kind for kind in each if kind is not None))
    refs, components = msgspec.json.schema_components([*types, ErrorBody], ref_template="#/components/schemas/{name}")
    type_to_ref = dict(zip([*types, ErrorBody], refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, type_to_ref)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "openwork", "version": version},
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _described(operation: Operation, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": refs[operation.gives]}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"description": "What was wrong", "content": {"application/json": {"schema": refs[ErrorBody]}}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": {"description": "The answer", "content": content}, "4XX": error, "5XX": error},
    }
    if operation.takes is not None:
        body = {"application/json": {"schema": refs[operation.takes]}}
        described["requestBody"] = {"required": True, "content": body}
    if "{" in operation.path:
        name = operation.path.partition("{")[2].partition("}")[0]
        described["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    return described

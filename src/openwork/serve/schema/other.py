"""The small routes: models, /tokenize and /detokenize, the latter two in vLLM's form."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from openwork.serve.schema.chat import Message, Tool, Variable
from openwork.serve.schema.fields import Id
from openwork.serve.schema.reading import Body
from openwork.serve.schema.usage import Said

ModelName = Annotated[str, Meta(min_length=1, max_length=4096)]


class ModelCard(Said, frozen=True, kw_only=True):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "openwork"
    root: str
    parent: str | None = None
    max_model_len: int


class ModelList(Said, frozen=True, kw_only=True):
    object: str = "list"
    data: list[ModelCard]


class TokenizeBody(Body, frozen=True, kw_only=True):
    """``prompt``, or ``messages`` as a chat has them; ``add_special_tokens`` is true for a prompt if left out."""

    model: ModelName | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Variable] | None = None


class Tokenized(Said, frozen=True, kw_only=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeBody(Body, frozen=True, kw_only=True):
    model: ModelName | None = None
    tokens: list[Id]


class Detokenized(Said, frozen=True, kw_only=True):
    prompt: str

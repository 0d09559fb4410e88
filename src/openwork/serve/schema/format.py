"""What an answer has to be, as OpenAI and vLLM have clients write it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from openwork.serve.schema.reading import Body

Schema = dict[str, Any] | bool
FormatName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
_OPERATORS = "How constraints are compiled is set by the operator."


class TextFormat(Body, tag_field="type", tag="text", frozen=True, kw_only=True):
    pass


class JsonObjectFormat(Body, tag_field="type", tag="json_object", frozen=True, kw_only=True):
    pass


class NamedSchema(Body, frozen=True, kw_only=True):
    """A schema is always followed strictly."""

    name: FormatName
    schema: Schema
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Body, tag_field="type", tag="json_schema", frozen=True, kw_only=True):
    json_schema: NamedSchema


class JsonSchemaText(NamedSchema, tag_field="type", tag="json_schema", frozen=True, kw_only=True):
    """The same as /v1/responses has it."""


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Body, frozen=True, kw_only=True):
    """At most one of these."""

    json: Schema | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: Annotated[str, Meta(description="of Lark")] | None = None


# Known to clients of others, and refused with a word on why.
UNSUPPORTED = dict.fromkeys(("guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"), _OPERATORS)

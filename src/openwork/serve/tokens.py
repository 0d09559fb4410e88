"""POST /tokenize and /detokenize: text to token ids and back, as the model itself has them."""

from __future__ import annotations

from openwork.engine.face import Facts
from openwork.serve.bounds import Bounds
from openwork.serve.conversation import conversation_of, prompt_of
from openwork.serve.errors import bad_request
from openwork.serve.logprobs import legacy_text
from openwork.serve.schema.other import DetokenizeBody, Detokenized, TokenizeBody, Tokenized
from openwork.serve.texts import Texts, need_tokenizer

# Fields that say how a conversation becomes a text, and nothing about a prompt.
_OF_MESSAGES = ("tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")


async def tokenize(body: TokenizeBody, texts: Texts, facts: Facts, bounds: Bounds) -> Tokenized:
    """Raises ApiError 400, naming the field."""
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("Give either prompt or messages.", "prompt")
    if body.messages is not None:
        if body.add_special_tokens:
            raise bad_request("add_special_tokens: a chat template writes them itself.", "add_special_tokens")
        conversation = conversation_of(
            body.messages,
            body.tools or (),
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            variables=body.chat_template_kwargs,
        )
        ids = (await prompt_of(conversation, texts, bounds)).token_ids
    else:
        given = [name for name in _OF_MESSAGES if getattr(body, name) is not None]
        if given:
            raise bad_request(f"{given[0]} needs messages.", given[0])
        (ids,) = await texts.encode((body.prompt or "",), ("prompt",), body.add_special_tokens is not False)
    tokenizer = need_tokenizer(await texts.language(), "prompt")
    strings = [legacy_text(tokenizer, token) for token in ids] if body.return_token_strs else None
    return Tokenized(count=len(ids), max_model_len=facts.limits.context, tokens=ids, token_strs=strings)


async def detokenize(body: DetokenizeBody, texts: Texts, facts: Facts) -> Detokenized:
    """Special tokens are written out. Raises ApiError 400 for ids that are none, or more than fit the window."""
    tokenizer = need_tokenizer(await texts.language(), "tokens")
    limits = facts.limits
    if len(body.tokens) > limits.context:
        raise bad_request(f"tokens has {len(body.tokens)} entries; at most {limits.context} are allowed.", "tokens")
    for place, token in enumerate(body.tokens):
        if token >= limits.vocab_size:
            raise bad_request(f"tokens[{place}] is {token}; ids are 0 to {limits.vocab_size - 1}.", f"tokens[{place}]")
    return Detokenized(prompt=await texts.run(tokenizer.decode, body.tokens, False))

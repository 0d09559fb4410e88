"""Log-probabilities in the forms that clients read: the legacy lists, the chat records, and those of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.core.output import Logprob
from openwork.serve.schema.chat import ChatLogprob, TopLogprob
from openwork.serve.schema.completion import LegacyLogprobs, PromptLogprob, PromptLogprobs
from openwork.text.pieces import Joiner
from openwork.text.tokenizer import Tokenizer


class LegacyLines:
    """The legacy lists of one choice, piece by piece; offsets go on from one piece to the next.

    A token that is only a part of a character is written ``bytes:\\xe2\\x80`` as OpenAI does, and stands at the offset
    of the character that it helps to make.
    """

    def __init__(self, tokenizer: Tokenizer | None, top: int, skip_special: bool, *, continues: bool) -> None:
        self._tokenizer = tokenizer
        self._top = top
        self._skip_special = skip_special
        self._joiner = None if tokenizer is None else Joiner(tokenizer.pieces, continues=continues)
        self._offset = 0

    def take(self, tokens: Sequence[int], logprobs: Sequence[Logprob | None]) -> LegacyLogprobs:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            word = None if self._tokenizer is None else self._tokenizer.visible(token, self._skip_special)
            if self._joiner is not None and word is not None:
                self._offset += len(self._joiner.feed(word))
        return LegacyLogprobs(
            tokens=[legacy_text(self._tokenizer, token) for token in tokens],
            token_logprobs=[None if each is None else each.logprob for each in logprobs],
            top_logprobs=[None if each is None else self._likeliest(each) for each in logprobs],
            text_offset=offsets,
        )

    def _likeliest(self, each: Logprob) -> dict[str, float]:
        """The likeliest, and the chosen one. Of two tokens with the same text the likelier counts."""
        found: dict[str, float] = {}
        for token, logprob in (*each.top[: self._top], (each.token, each.logprob)):
            found.setdefault(legacy_text(self._tokenizer, token), logprob)
        return found


def legacy_text(tokenizer: Tokenizer | None, token: int) -> str:
    piece = None if tokenizer is None else tokenizer.piece(token)
    if piece is None:
        return f"token_id:{token}"
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def chat_logprob(tokenizer: Tokenizer, each: Logprob) -> ChatLogprob:
    text, data = _text_and_bytes(tokenizer, each.token)
    top = []
    for token, logprob in each.top:
        other, other_data = _text_and_bytes(tokenizer, token)
        top.append(TopLogprob(token=other, logprob=logprob, bytes=other_data))
    return ChatLogprob(token=text, logprob=each.logprob, bytes=data, top_logprobs=top)


def prompt_logprobs(tokenizer: Tokenizer | None, given: Sequence[Logprob | None], top: int) -> PromptLogprobs:
    """As vLLM has them: for each token of the prompt a record by token id; nothing comes before the first."""
    return [None if each is None else _by_id(tokenizer, each, top) for each in given]


def _by_id(tokenizer: Tokenizer | None, each: Logprob, top: int) -> dict[str, PromptLogprob]:
    found = {
        token: PromptLogprob(logprob=logprob, rank=rank, decoded_token=legacy_text(tokenizer, token))
        for rank, (token, logprob) in enumerate(each.top[:top], start=1)
    }
    found[each.token] = PromptLogprob(
        logprob=each.logprob, rank=each.rank, decoded_token=legacy_text(tokenizer, each.token)
    )
    return {str(token): said for token, said in found.items()}


def _text_and_bytes(tokenizer: Tokenizer, token: int) -> tuple[str, list[int] | None]:
    piece = tokenizer.piece(token)
    return (f"token_id:{token}", None) if piece is None else (piece.decode("utf-8", "replace"), list(piece))

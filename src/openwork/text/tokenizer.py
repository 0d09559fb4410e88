"""Tokenizer: text to token ids and back, from the tokenizer.json of a checkpoint.

Encoding is the `tokenizers` library's (Rust); decoding is ours (pieces.py), because a stream needs every token's bytes.
Whatever the library throws, its panics included, becomes an error of our tree. Truncation and padding that a
tokenizer.json may ask for are switched off: a prompt is never cut in silence. It does not know the model: whether the
ids fit an embedding is for whoever holds both to compare (``vocab_size``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.core.errors import ModelError, RequestError
from openwork.text.pieces import Joiner, Pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MAX_TOKENIZER_BYTES = 512 << 20
MAX_CONFIG_BYTES = 32 << 20
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_AGAIN = "Download the checkpoint again, or point to a directory with a complete one."
# What may never be swallowed at the edge to foreign code.
_EXITS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Tokenizer:
    """One checkpoint's tokenizer. Made by ``Tokenizer.load``; safe to share between threads.

    ``special_tokens`` maps names as tokenizer_config.json has them (bos_token, eos_token, ...) to their text;
    ``config`` is that file's content, {} when there is none.
    """

    def __init__(self, backend: Backend, pieces: Pieces, config: Mapping[str, Any], directory: Path) -> None:
        self.directory = directory
        self.config = config
        self.pieces = pieces
        self.special_tokens = _named_tokens(config)
        self.add_bos_token = _flag(config, "add_bos_token", directory)
        self._backend = backend
        self.bos_id = self.token_id(self.special_tokens.get("bos_token"))
        self.eos_id = self.token_id(self.special_tokens.get("eos_token"))
        added = backend.get_added_tokens_decoder()
        ends = {token for token in (self.bos_id, self.eos_id) if token is not None}
        self._special_ids = ends | {token for token, entry in added.items() if entry.special}
        # Where tokenizer.json forgot that these are special, they would be cut in parts when they stand in a text.
        backend.add_special_tokens([backend.id_to_token(token) for token in ends - added.keys()])

    @staticmethod
    def load(directory: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint directory: tokenizer.json, and tokenizer_config.json if it is there.

        Raises ModelError naming the file when one is missing or invalid, UnsupportedModel for a kind of tokenizer
        that decoder-only models do not use.
        """
        directory = Path(directory)
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                "there is no such file",
                "A checkpoint needs the tokenizer in this form; transformers writes it with save_pretrained().",
                where=str(path),
            )
        _check_size(path, MAX_TOKENIZER_BYTES)
        config = read_json(directory / "tokenizer_config.json")
        names = read_json(directory / "special_tokens_map.json")
        for name in NAMED_TOKENS:
            if name in names:
                config.setdefault(name, names[name])
        from tokenizers import Tokenizer as Backend

        try:
            backend = Backend.from_file(str(path))
            backend.no_truncation()
            backend.no_padding()
            state = backend.decoder.__getstate__() if backend.decoder is not None else b"null"
        except _EXITS:
            raise
        except BaseException as error:  # the library's panics are BaseException, its errors plain Exception
            raise ModelError(f"cannot be read: {_one_line(error)}", _AGAIN, where=str(path)) from error
        return Tokenizer(backend, read_pieces(json.loads(state)), config, directory)

    @cached_property
    def vocab_size(self) -> int:
        """The highest token id plus one: rows that an embedding must have at least."""
        count: int = self._backend.get_vocab_size(with_added_tokens=True)
        # Ids without a gap, as nearly always: asking for the whole vocabulary would take a tenth of a second.
        if count and self._backend.id_to_token(count - 1) is not None and self._backend.id_to_token(count) is None:
            return count
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def special_texts(self) -> frozenset[str]:
        """The names of the special tokens: texts that ``encode`` reads as one token."""
        return frozenset(filter(None, map(self._backend.id_to_token, self._special_ids)))

    def encode(self, text: str, add_special: bool = True, *, max_bytes: int | None = None) -> list[int]:
        """Token ids of a text; with ``add_special``, the tokens that open (or close) a text are added.

        tokenizer_config.json's add_bos_token, where it is given, decides over tokenizer.json's own rule.
        Raises RequestError(param="prompt") for a lone surrogate, or more than ``max_bytes`` bytes of UTF-8.
        """
        check_text(text, "prompt", max_bytes)
        try:
            by_rule = add_special and self.add_bos_token is not False
            # A batch of one: unlike ``encode`` it lets other threads run meanwhile, and it leaves out the offsets.
            ids: list[int] = self._backend.encode_batch_fast([text], add_special_tokens=by_rule)[0].ids
        except _EXITS:
            raise
        except BaseException as error:
            raise RequestError(f"cannot be tokenised: {_one_line(error)}", param="prompt") from error
        if add_special and self.add_bos_token and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True, *, continues: bool = False) -> str:
        """The text of token ids, special tokens left out; invalid UTF-8 turns into U+FFFD, unknown ids into nothing.

        ``continues``: the text goes on after another, so that a space which would fall away at the start of a text
        (SentencePiece vocabularies) stays.
        """
        joiner = Joiner(self.pieces, continues=continues)
        words = (self.visible(token, skip_special) for token in ids)
        return "".join([joiner.feed(word) for word in words if word is not None]) + joiner.finish()

    def visible(self, token: int, skip_special: bool = True) -> str | None:
        """A token as the vocabulary writes it; None when it adds nothing to a text: skipped as special, or unknown."""
        if skip_special and token in self._special_ids:
            return None
        return self._backend.id_to_token(token) if 0 <= token < 2**32 else None

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token adds to a text (a special token: its name); None when no token has this id."""
        word = self.visible(token, skip_special=False)
        return None if word is None else self.pieces.piece(word)

    def is_special(self, token: int) -> bool:
        return token in self._special_ids

    def token_id(self, text: str | None) -> int | None:
        """The id of a token as the vocabulary writes it; None when there is no such token."""
        return None if text is None else self._backend.token_to_id(text)


def check_text(text: object, param: str, max_bytes: int | None = None) -> None:
    """Raises RequestError when ``text`` is not text, holds a lone surrogate, or has more bytes than allowed."""
    if not isinstance(text, str):
        raise RequestError(f"must be text, not {type(text).__name__}", param=param)
    # A character has at least one byte: an absurd length is refused before anything is copied.
    if max_bytes is not None and len(text) > max_bytes:
        raise RequestError(f"has more than {max_bytes} bytes", "Shorten the text.", param=param)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(
            f"holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}",
            "It is half of a character, not valid Unicode text; decode the text with errors='replace'.",
            param=param,
        ) from None
    if max_bytes is not None and size > max_bytes:
        raise RequestError(f"has {size} bytes; {max_bytes} are allowed", "Shorten the text.", param=param)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; {} when there is no such file. Raises ModelError naming the file."""
    if not path.is_file():
        return {}
    _check_size(path, MAX_CONFIG_BYTES)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"is not valid JSON: {_one_line(error)}", _AGAIN, where=str(path)) from error
    if not isinstance(content, dict):
        raise ModelError("must hold a JSON object", _AGAIN, where=str(path))
    return content


def _check_size(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise ModelError(f"has {size} bytes; {limit} are allowed", "This is not a tokenizer file.", where=str(path))


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Named special tokens: written as text, or as an object with the text in "content"."""
    named = {}
    for name in NAMED_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str) and text:
            named[name] = text
    return named


def _flag(config: Mapping[str, Any], name: str, directory: Path) -> bool | None:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        where = str(directory / "tokenizer_config.json")
        raise ModelError(f"must be true or false, not {value!r}", _AGAIN, where=where, field=name)
    return value


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."

"""Pieces: the bytes that each token stands for, read off a tokenizer's decoder.

Every decoder of the supported models amounts to the same thing: a token is some bytes, a text is those bytes in a row
read as UTF-8, and at the very start of a text one space may fall away. Kept in this form, decoding needs no window and
no look-back, so a stream costs the same per token however long it is, and equals the whole by construction.

Where it differs from the `tokenizers` library: there a run of byte-fallback tokens that is not valid UTF-8 as a whole
becomes replacement characters throughout, and here only the invalid bytes do. Valid text is the same in both.
It knows nothing of vocabularies, special tokens or files.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from openwork.core.errors import ModelError, UnsupportedModel

_Utf8 = codecs.getincrementaldecoder("utf-8")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PLACE = {"where": "tokenizer.json", "field": "decoder"}

Leading = Literal["keep", "strip", "drop"]


def _byte_alphabet() -> dict[str, int]:
    """The 256 characters that byte-level BPE writes bytes with (Radford et al. 2019, GPT-2).

    Printable Latin-1 stands for itself; the other 68 bytes, in order, are written U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


@dataclass(frozen=True, slots=True)
class Pieces:
    """How one tokenizer's tokens become bytes, and what happens at the start of a text.

    ``leading``: "keep" does nothing; "strip" takes up to ``strip_count`` copies of ``strip_char`` off the front of the
    text; "drop" takes every ``dropped`` mark out of the text's first token (Metaspace).
    """

    byte_level: bool = False
    byte_fallback: bool = False
    prefix: str = ""  # written before every token
    replacements: tuple[tuple[str, str], ...] = ()  # applied in order to a token's own text
    leading: Leading = "keep"
    strip_char: str = " "
    strip_count: int = 0
    dropped: str = ""

    def piece(self, token: str, *, is_first: bool = False) -> bytes:
        """The bytes of one token, given as the vocabulary writes it."""
        if is_first and self.leading == "drop":
            token = token.replace(self.dropped, "")
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes((int(match[1], 16),))
        if self.byte_level:
            try:
                return bytes([_ALPHABET[char] for char in token])
            except KeyError:  # an added token in plain text, e.g. with a space in it
                return token.encode()
        return (self.prefix + token).encode()


def read_pieces(decoder: Mapping[str, Any] | None) -> Pieces:
    """Pieces of the "decoder" entry of a tokenizer.json; None joins tokens with spaces, as the library does.

    Raises UnsupportedModel for decoders whose tokens are not bytes of their own (WordPiece, CTC), and for steps of a
    decoder in an order that has no such reading.
    """
    if decoder is None:
        return Pieces(prefix=" ", leading="strip", strip_count=1)
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise ModelError("must be a decoder or a sequence of decoders", "Download the tokenizer again.", **_PLACE)
    pieces = Pieces()
    fused = False
    for step in steps:
        if fused and step.get("type") != "Strip":
            raise _unsupported(f"the step {step.get('type')!r} after Fuse")
        pieces = _add_step(pieces, step, fused)
        fused = fused or step.get("type") in ("Fuse", "ByteLevel")
    return pieces


def _add_step(pieces: Pieces, step: Mapping[str, Any], fused: bool) -> Pieces:
    kind = step.get("type")
    if kind == "Fuse":
        return pieces
    if kind == "ByteLevel":
        return replace(pieces, byte_level=True)
    if kind == "ByteFallback":
        return replace(pieces, byte_fallback=True)
    if kind == "Replace":
        pattern = step.get("pattern")
        old = pattern.get("String") if isinstance(pattern, Mapping) else None
        new = step.get("content")
        if not isinstance(old, str) or not old or not isinstance(new, str) or pieces.byte_fallback:
            raise _unsupported("this form of Replace")
        return replace(pieces, replacements=(*pieces.replacements, (old, new)))
    if kind == "Metaspace":
        mark = step.get("replacement")
        if not isinstance(mark, str) or not mark:
            raise _unsupported("a Metaspace without a replacement")
        always = step.get("prepend_scheme", "always") != "never"
        leading: Leading = "drop" if always else pieces.leading
        return replace(pieces, leading=leading, dropped=mark, replacements=(*pieces.replacements, (mark, " ")))
    if kind == "Strip":
        char, start, stop = step.get("content"), step.get("start"), step.get("stop")
        if not isinstance(char, str) or len(char) != 1 or not isinstance(start, int) or start < 0:
            raise _unsupported("this form of Strip")
        if stop != 0 or not fused or pieces.leading != "keep":
            raise _unsupported("a Strip elsewhere than at the start of the whole text")
        return replace(pieces, leading="strip", strip_char=char, strip_count=start)
    raise _unsupported(f"the decoder {kind!r}")


def _unsupported(what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{what} is not supported",
        "Supported are ByteLevel, Metaspace, and Replace, ByteFallback, Fuse, Strip in this order.",
        **_PLACE,
    )


class Joiner:
    """Puts pieces together as they come: feed(token) -> text that is final, finish() -> the rest.

    A character whose bytes are not all there yet is kept back; bytes that can never become a character turn into
    U+FFFD, one for each maximal invalid part (Unicode 15, section 3.9, the practice of the W3C Encoding standard).
    """

    def __init__(self, pieces: Pieces, *, continues: bool = False) -> None:
        self._pieces = pieces
        self._decoder = _Utf8(errors="replace")
        self._is_first = not continues  # nothing but skipped tokens so far
        strips = pieces.leading == "strip" and not continues
        self._to_strip = pieces.strip_count if strips else 0

    def feed(self, token: str) -> str:
        text = self._decoder.decode(self._pieces.piece(token, is_first=self._is_first))
        self._is_first = False
        return self._strip(text) if self._to_strip else text

    def finish(self) -> str:
        text = self._decoder.decode(b"", True)
        return self._strip(text) if self._to_strip else text

    def _strip(self, text: str) -> str:
        while self._to_strip and text:
            if text[0] != self._pieces.strip_char:
                self._to_strip = 0
                break
            text = text[1:]
            self._to_strip -= 1
        return text

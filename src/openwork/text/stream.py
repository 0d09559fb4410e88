"""TextStream: tokens in, text that may be shown out.

Guarantees: a character is never split; text that could turn out to be the start of a stop string is held back until
that is decided; the pieces put together are exactly ``Tokenizer.decode`` of all tokens, cut at the stop string, however
the tokens were divided over the pushes; the work is linear in the length of the output. Of several stop strings the
one that is complete first counts, the longest where two are complete at the same character.
It does not know stop tokens: those are ids, and whoever chooses tokens sees them first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from openwork.text.pieces import Joiner
from openwork.text.tokenizer import Tokenizer


class TextStream:
    """The text of one growing sequence of tokens.

    ``stop``         texts that end it; not part of the text themselves
    ``min_tokens``   a stop string that is complete before this many tokens does not count
    ``continues``    the text goes on after another (see Tokenizer.decode)
    ``shown``        special tokens that are a part of the text even where the others are skipped

    ``stopped`` is the stop string that ended the text, or None; ``num_tokens`` counts the tokens taken, the one that
    completed the stop string included. Tokens pushed after a stop are ignored.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        skip_special: bool = True,
        min_tokens: int = 0,
        *,
        continues: bool = False,
        shown: Collection[int] = (),
    ) -> None:
        self.stopped: str | None = None
        self.num_tokens = 0
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._shown = shown
        self._min_tokens = min_tokens
        self._joiner = Joiner(tokenizer.pieces, continues=continues)
        self._stops = [_Progress(text) for text in stop]
        self._held = ""  # decoded, but perhaps the start of a stop string
        self._is_finished = False

    def push(self, token_ids: Iterable[int]) -> str:
        """Takes the next tokens; returns the text that became certain, possibly ""."""
        shown = []
        for token in token_ids:
            if self.stopped is not None or self._is_finished:
                break
            self.num_tokens += 1
            word = self._tokenizer.visible(token, self._skip_special and token not in self._shown)
            if word is not None:
                shown.append(self._release(self._joiner.feed(word)))
        return "".join(shown)

    def finish(self) -> str:
        """No more tokens come: returns what was held back. A cut character becomes U+FFFD. Later calls return ""."""
        if self.stopped is not None or self._is_finished:
            return ""
        self._is_finished = True
        text = self._release(self._joiner.finish())
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        """Adds decoded text; returns what can no longer belong to a stop string."""
        if not self._stops:
            return text
        buffer = self._held + text
        counts = self.num_tokens >= self._min_tokens
        for end in range(len(self._held) + 1, len(buffer) + 1):
            complete = [stop for stop in self._stops if stop.step(buffer[end - 1])]
            if complete and counts:
                first = max(complete, key=lambda stop: len(stop.text))
                self.stopped, self._held = first.text, ""
                return buffer[: end - len(first.text)]
        keep = max(stop.matched for stop in self._stops)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep]


class _Progress:
    """How far the end of a text matches the start of one stop string.

    Knuth, Morris and Pratt 1977: ``borders[k]`` is the length of the longest proper prefix of text[:k] that is also its
    suffix, so every character of the output is looked at a bounded number of times on average.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0  # characters; always below len(text) between steps
        self.borders = [0, 0]
        for char in text[1:]:
            k = self.borders[-1]
            while k and text[k] != char:
                k = self.borders[k]
            self.borders.append(k + (text[k] == char))

    def step(self, char: str) -> bool:
        """Takes one character; True when the stop string is now complete."""
        k = self.matched
        while k and self.text[k] != char:
            k = self.borders[k]
        k += self.text[k] == char
        is_complete = k == len(self.text)
        self.matched = self.borders[k] if is_complete else k
        return is_complete
